"""Any spec, built twice under other circumstances, is the same image."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagelab import KERNEL, Lab, file, folder, hardlink, symlink

from pxeserver.errors import PxeServerError
from pxeserver.images import build as build_module
from pxeserver.images import initrd

IMAGES = ("l/init:1", "l/layers:1", "l/label:1", "l/zstd:1")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
NAME = st.text("abc-", min_size=1, max_size=4)
PATH = st.lists(st.sampled_from(["etc", "opt", "a", "b", "\u00e9"]), min_size=1, max_size=3).map("/".join)
MODE = st.sampled_from(["0600", "0644", "0755", "4755", "0000"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def container() -> st.SearchStrategy[dict[str, Any]]:
    more = {
        "capabilities.add": st.lists(st.sampled_from(["CAP_CHOWN", "CAP_KILL"]), max_size=2),
        "command": st.lists(TEXT, max_size=3),
        "env": st.lists(TEXT.map(lambda t: f"E={t}"), max_size=2),
        "binds": st.lists(st.sampled_from(["/a:/b", "/c:/d:ro", "v:/v"]), max_size=2),
        "tmpfs": st.lists(st.sampled_from(["/t", "/u:size=1m"]), max_size=2),
        "readonly": st.booleans(),
        "net": st.sampled_from(["host", "new", "/run/netns/x"]),
        "uid": st.integers(0, 1 << 31),
        "sysctl": st.dictionaries(NAME, TEXT, max_size=3),
        "annotations": st.dictionaries(NAME, TEXT, max_size=3),
        "rlimits": st.just(["nofile,1,2"]),
        "resources": some(memory=st.just({"limit": 5}), hugepageLimits=st.just([{"pageSize": 2048, "limit": 1}])),
        "runtime": some(mkdir=st.lists(PATH, max_size=2), bindNS=some(net=TEXT, ipc=TEXT)),
    }
    whole = st.fixed_dictionaries({"name": NAME, "image": st.sampled_from(IMAGES)})
    return st.builds(lambda a, b: {**a, **b}, whole, some(**more))


FILE = st.one_of(
    st.fixed_dictionaries({"path": PATH, "contents": TEXT}, optional={"mode": MODE, "uid": st.integers(0, 99)}),
    st.fixed_dictionaries({"path": PATH, "symlink": TEXT.filter(bool)}),
    st.fixed_dictionaries({"path": PATH, "directory": st.just(True)}, optional={"mode": MODE}),
    st.fixed_dictionaries({"path": PATH, "metadata": st.sampled_from(["yaml", "json"])}),
)
SPEC = st.fixed_dictionaries(
    {
        "kernel": st.fixed_dictionaries({"image": st.just("l/kernel:1")}, optional={"cmdline": st.just("quiet a=b")}),
        "init": st.lists(st.sampled_from(IMAGES), max_size=3),
        "onboot": st.lists(container(), max_size=2),
        "services": st.lists(container(), max_size=3, unique_by=lambda c: str(c["name"])),
        "volumes": st.just([{"name": "v", "image": "l/init:1"}]),
        "files": st.lists(FILE, max_size=4),
    }
)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Lab]:
    """Two data folders over the same base images: one starts with nothing each time, one keeps what it has."""
    top = tmp_path_factory.mktemp("labs")
    rand = random.Random(3)
    cold, warm = Lab(top / "one"), Lab(top / "two")
    cold.bases.image("l/kernel:1", KERNEL)
    apk = [folder("lib"), folder("lib/apk"), folder("lib/apk/db"), file("lib/apk/db/installed", b"P:x")]
    cold.bases.image("l/init:1", [file("init", rand.randbytes(5000), 0o755), *apk])
    lower = [folder("d"), *(file(f"d/{n}", rand.randbytes(900), uid=n) for n in range(9)), file("e", b"e")]
    cold.bases.image("l/layers:1", lower, [file(".wh.e"), file("d/1", b"new"), hardlink("h", "d/1"), symlink("s", "d")])
    label = {"Labels": {"org.mobyproject.config": '{"capabilities": ["CAP_CHOWN"], "net": "host"}'}, "Cmd": ["/x"]}
    cold.bases.image("l/label:1", [file("x", b"x"), *apk], config=label)
    cold.bases.image("l/zstd:1", [file("z", rand.randbytes(70_000))], packed="zstd")
    warm.bases = cold.bases
    return cold, warm


@contextmanager
def other_circumstances(folder_: Path, workers: int) -> Iterator[None]:
    """Elsewhere, at another time zone's midnight, with as many threads."""
    here, zone, before = Path.cwd(), os.environ.get("TZ"), (build_module._AT_ONCE, initrd._helpers)
    os.chdir(folder_)
    mask = os.umask(0o077)
    os.environ["TZ"] = "Asia/Tokyo"
    build_module._AT_ONCE = workers
    initrd._helpers = lambda: workers
    try:
        yield
    finally:
        os.chdir(here)
        os.umask(mask)
        build_module._AT_ONCE, initrd._helpers = before
        os.environ.pop("TZ")
        if zone is not None:
            os.environ["TZ"] = zone


def shuffled(value: Any, rand: random.Random) -> Any:
    """The same value, its maps in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        rand.shuffle(items)
        return {key: shuffled(item, rand) for key, item in items}
    return [shuffled(item, rand) for item in value] if isinstance(value, list) else value


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=SPEC, seed=st.integers(0, 99), strict=st.booleans(), workers=st.integers(1, 8))
def test_a_random_spec_twice(
    labs: tuple[Lab, Lab], tmp_path: Path, spec: dict[str, Any], seed: int, strict: bool, workers: int
) -> None:
    one, two = labs
    for path in (one.config.data / "cache" / "segments").glob("*"):
        path.unlink()  # cold: every segment is made anew
    text = yaml.safe_dump(spec, allow_unicode=True, sort_keys=False)
    again = yaml.safe_dump(shuffled(spec, random.Random(seed)), sort_keys=False)
    outcomes = []
    for lab, written, circumstances in ((one, text, (Path("/"), 1)), (two, again, (tmp_path, workers))):
        with other_circumstances(*circumstances):
            try:
                built = lab.build(written, strict=strict, sbom="sbom.spdx.json")
                assert built.image is not None
                outcomes.append((built.image.digest, built.image.kernel, built.image.initrd))
            except PxeServerError as error:  # a random spec may be refused: then both are, for the same reason
                outcomes.append((error.slug, None, None))
    assert outcomes[0] == outcomes[1]
