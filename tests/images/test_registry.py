"""Base images from a real registry: names, platforms, mirrors, logins, broken connections, damaged contents."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Bases, Lab, file, unpack
from registrylab import HTPASSWD, PASSWORD, USER, Front, Registry, certificate, token_server

from pxeserver.config import Config, Images, Server
from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, UsageError
from pxeserver.images import oci, registryhttp
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Silent
from pxeserver.images.sources import Source, open_source
from pxeserver.images.store import Store

pytestmark = pytest.mark.server

BIG = random.Random(3).randbytes(3_000_000)
SPEC = (
    'kernel: {image: "l/kernel:1", cmdline: "quiet"}\ninit: ["l/init:1"]\nservices: [{name: big, image: "l/big:1"}]\n'
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    bases = Bases(tmp_path_factory.mktemp("bases"))
    bases.image("l/kernel:1", KERNEL)
    bases.image("l/init:1", [file("init", b"one")], [file("second")])
    bases.image("l/big:1", [file("big", BIG)], packed="none")
    amd, arm = (bases.image(f"l/{a}:1", [file("arch", a.encode())], arch=a) for a in ("amd64", "arm64"))
    assert amd.manifest and arm.manifest
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [amd.manifest.json(), arm.manifest.json()]}
    bases.tag("docker.io/l/multi:1", bases.add_json(oci.INDEX, body))
    return bases


@pytest.fixture(scope="module")
def registry(layout: Bases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as server:
        for name in ("kernel", "init", "big", "multi"):
            server.push(layout, f"docker.io/l/{name}:1", f"l/{name}", "1")
        yield server


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registryhttp, "_RETRIES", (0.01, 0.02))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def source(store: Store, kind: str = "registry", *mirrors: str, progress: Any = None) -> Source:
    config = Config(server=Server(data=str(store.root.parent)), images=Images(mirrors=mirrors))
    return open_source(kind, store, config, progress=progress or Silent())


def test_a_mirror_gives_the_very_image_that_a_layout_gives(layout: Bases, registry: Registry, tmp_path: Path) -> None:
    near, far = Lab(tmp_path / "near"), Lab(tmp_path / "far")
    near.bases = layout
    want, got = near.build(SPEC), far.build(SPEC, source=source(far.store, "", registry.url))
    assert want.image is not None
    assert got.image is not None
    assert (got.image.digest, got.image.initrd) == (want.image.digest, want.image.initrd)
    assert far.tree(got)["containers/services/big/lower/big"].data == BIG


def test_a_registry_by_its_own_name_over_plain_http(registry: Registry, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    text = SPEC.replace('"l/', f'"{registry.host}/l/')
    built = lab.build(text, source=source(lab.store))
    assert lab.tree(built)["init"].data == b"one"
    assert f"{registry.host}/l/init:1" in {e.ref for e in lab.store.list()}


def test_what_was_fetched_serves_without_the_registry(layout: Bases, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    with Registry(tmp_path / "reg") as server:
        for name in ("kernel", "init", "big"):
            server.push(layout, f"docker.io/l/{name}:1", f"l/{name}", "1")
        first = lab.build(SPEC, source=source(lab.store, "", server.url))
    again = lab.build(SPEC, source=source(lab.store, "", server.url))
    assert first.image is not None
    assert again.image is not None
    assert again.image.digest == first.image.digest
    with pytest.raises(Unreachable) as caught:
        lab.build(SPEC.replace("l/init:1", f"{server.host}/l/initt:1"), source=source(lab.store, ""))
    assert caught.value.slug == "registry-unreachable"
    assert str(caught.value.where) == "web.yml:2:8: init[0]"
    assert "the local store has no" in caught.value.hint


def test_pull_asks_the_registry_again(layout: Bases, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    with Registry(tmp_path / "reg") as server:
        for name in ("kernel", "init", "big"):
            server.push(layout, f"docker.io/l/{name}:1", f"l/{name}", "1")
        lab.build(SPEC, source=source(lab.store, "", server.url))
        other = Bases(tmp_path / "other")
        other.image("l/init:1", [file("init", b"two")])
        server.push(other, "docker.io/l/init:1", "l/init", "1")
        stale = lab.build(SPEC, source=source(lab.store, "", server.url))
        fresh = lab.build(SPEC, source=source(lab.store, "", server.url), pull=True)
        straight = lab.build(SPEC, source=source(lab.store, "registry", server.url))
    assert [lab.tree(b)["init"].data for b in (stale, fresh, straight)] == [b"one", b"two", b"two"]


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_an_index_gives_the_architecture(registry: Registry, tmp_path: Path, arch: str) -> None:
    base = source(Store(tmp_path / "s"), "registry", registry.url).base("docker.io/l/multi:1", arch)
    assert base.config["architecture"] == arch
    assert base.index is not None
    by_digest = source(Store(tmp_path / "t"), "registry", registry.url).base(
        f"docker.io/l/multi@{base.index.digest}", arch
    )
    assert by_digest.digest == base.digest


def test_a_missing_architecture_says_which_there_are(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="linux/s390x") as caught:
        source(Store(tmp_path / "s"), "registry", registry.url).base("docker.io/l/multi:1", "s390x")
    assert caught.value.hint == "it is there for: amd64, arm64"


def test_a_store_with_one_platform_of_an_index_fetches_the_other(registry: Registry, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    chain = source(store, "", registry.url)
    assert chain.base("docker.io/l/multi:1", "amd64").config["architecture"] == "amd64"
    assert chain.base("docker.io/l/multi:1", "arm64").config["architecture"] == "arm64"


def test_an_oci_volume_brings_in_all_platforms(registry: Registry, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    text = SPEC + 'volumes: [{name: v, image: "l/multi:1", format: oci}]\n'
    tree = lab.tree(lab.build(text, source=source(lab.store, "", registry.url)))
    blobs = [n.data for name, n in tree.items() if "/v/lower/blobs/sha256/" in name]
    assert len(blobs) == 7, "an index, and config, layer and manifest of two platforms"


def test_an_unknown_name_is_not_found_with_the_endpoint(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        source(Store(tmp_path / "s")).base(f"{registry.host}/l/none:1", "amd64")
    assert (caught.value.slug, registry.url in caught.value.message) == ("base-not-found", True)


def test_a_dead_mirror_is_passed_over(registry: Registry, tmp_path: Path) -> None:
    dead = "http://127.0.0.1:1"
    base = source(Store(tmp_path / "s"), "registry", dead, registry.url).base("docker.io/l/init:1", "amd64")
    assert len(base.layers) == 2


def test_a_mirror_may_be_for_one_registry_only(registry: Registry, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    mirrors = (f"example.invalid={registry.url}",)
    assert source(store, "registry", *mirrors).base("example.invalid/l/init:1", "amd64").layers
    assert [e.url for e in registryhttp.endpoints("quay.io", mirrors)] == ["https://quay.io"]


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_broken_download_goes_on_where_it_broke(registry: Registry, layout: Bases, tmp_path: Path) -> None:
    blob = next(x for x in layout.blobs_of(layout.named("docker.io/l/big:1")[0]) if x.size > 1_000_000)
    heard = Heard()

    def misbehave(path: str, attempt: int) -> tuple[int, int]:
        return (0, 1_000_000) if blob.digest in path and attempt < 3 else (0, 0)

    with Front(registry, misbehave) as front:
        source(Store(tmp_path / "s"), "registry", front.url, progress=heard).base("docker.io/l/big:1", "amd64")
        assert front.asked[f"/v2/l/big/blobs/{blob.digest}"] == ["", "bytes=1000000-", "bytes=2000000-"]
        assert front.sent < blob.size + 10_000
    assert len(heard.said) == 2
    assert list((tmp_path / "s" / "partial").iterdir()) == []


def test_a_killed_download_goes_on_in_the_next_run(registry: Registry, layout: Bases, tmp_path: Path) -> None:
    blob = next(x for x in layout.blobs_of(layout.named("docker.io/l/big:1")[0]) if x.size > 1_000_000)
    store = Store(tmp_path / "s")
    with (
        Front(registry, lambda path, attempt: (0, 100_000 if blob.digest in path else 0)) as front,
        pytest.raises(Unreachable),
    ):
        source(store, "registry", front.url).base(f"{front.url[7:]}/l/big:1", "amd64")
    part = tmp_path / "s" / "partial" / blob.digest[7:]
    assert part.stat().st_size == 600_000
    with Front(registry, lambda path, attempt: (0, 0)) as front:
        source(store, "registry", front.url).base("docker.io/l/big:1", "amd64")
        assert front.asked[f"/v2/l/big/blobs/{blob.digest}"][0].startswith("bytes=")
    assert store.read_blob(blob.digest) == layout.read_blob(blob.digest)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(registry: Registry, tmp_path: Path, status: int) -> None:
    heard = Heard()
    with Front(registry, lambda path, attempt: (status if attempt == 1 else 0, 0)) as front:
        base = source(Store(tmp_path / "s"), "registry", front.url, progress=heard).base("docker.io/l/init:1", "amd64")
    assert len(base.layers) == 2
    assert heard.said[0].startswith(f"{front.url}: it answers {status}; again in")


def test_a_server_that_stays_busy_is_given_up(registry: Registry, tmp_path: Path) -> None:
    with Front(registry, lambda path, attempt: (503, 0)) as front, pytest.raises(Unreachable, match="answers 503"):
        source(Store(tmp_path / "s")).base(f"{front.url[7:]}/l/init:1", "amd64")


def test_contents_that_are_not_what_was_asked_for_never_count(layout: Bases, tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with Registry(tmp_path / "reg") as server:
        server.push(layout, "docker.io/l/init:1", "l/init", "1")
        layer = layout.blobs_of(layout.named("docker.io/l/init:1")[0])[1]
        path = server.root / f"docker/registry/v2/blobs/sha256/{layer.digest[7:9]}/{layer.digest[7:]}/data"
        path.write_bytes(b"x" * layer.size)
        with pytest.raises(PxeServerError) as caught:
            source(store).base(f"{server.host}/l/init:1", "amd64")
        assert caught.value.slug == "digest-mismatch"
        assert not store.has(layer.digest)
        assert store.list() == ()
        path.write_bytes(layout.read_blob(layer.digest))
        assert source(store).base(f"{server.host}/l/init:1", "amd64").layers


def test_a_login_as_docker_keeps_it(layout: Bases, tmp_path: Path) -> None:
    folder = tmp_path / "reg"
    folder.mkdir()
    with Registry(folder) as open_server:
        open_server.push(layout, "docker.io/l/init:1", "l/init", "1")
    (folder / "htpasswd").write_text(HTPASSWD)
    with Registry(folder, {"htpasswd": {"realm": "r", "path": str(folder / "htpasswd")}}) as server:
        ref = f"{server.host}/l/init:1"
        with pytest.raises(Refused, match="does not let us read l/init") as caught:
            source(Store(tmp_path / "s")).base(ref, "amd64")
        assert caught.value.hint.startswith(f"docker login {server.host}")
        (tmp_path / "docker").mkdir()
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": secret}}}))
        assert source(Store(tmp_path / "s")).base(ref, "amd64").layers


def test_tokens(layout: Bases, tmp_path: Path) -> None:
    folder = tmp_path / "reg"
    with Registry(folder) as open_server:
        for repository in ("public/init", "private/init"):
            open_server.push(layout, "docker.io/l/init:1", repository, "1")
    with token_server(folder) as (auth, seen), Registry(folder, auth) as server:
        here = source(Store(tmp_path / "s"))
        assert here.base(f"{server.host}/public/init:1", "amd64").layers
        assert len(seen) == 1, "one token serves all requests for a repository"
        assert (seen[0]["scope"], seen[0]["authorization"]) == ("repository:public/init:pull", "")
        with pytest.raises(Refused):
            here.base(f"{server.host}/private/init:1", "amd64")
        (tmp_path / "docker").mkdir()
        entry = {"username": USER, "password": PASSWORD}
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {server.host: entry}}))
        assert source(Store(tmp_path / "s")).base(f"{server.host}/private/init:1", "amd64").layers


def test_docker_manifests_are_read(registry: Registry, layout: Bases, tmp_path: Path) -> None:
    bases = Bases(tmp_path / "b")
    image = bases.image("l/old:1", [file("x")])
    body = {**bases.read_json(image.digest), "mediaType": oci.DOCKER_MANIFEST}
    body["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    body["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    bases.tag("docker.io/l/old:2", bases.add_json(oci.DOCKER_MANIFEST, body))
    registry.push(bases, "docker.io/l/old:2", "l/old", "2")
    lab = Lab(tmp_path)
    built = lab.build(SPEC.replace("l/init:1", "l/old:2"), source=source(lab.store, "", registry.url))
    assert "x" in lab.tree(built)


def test_certificates_of_ones_own(layout: Bases, tmp_path: Path) -> None:
    folder = tmp_path / "reg"
    with Registry(folder) as plain:
        plain.push(layout, "docker.io/l/init:1", "l/init", "1")
    tls = certificate(folder)
    with Registry(folder, tls=tls) as server:
        ref = f"{server.host}/l/init:1"
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            source(Store(tmp_path / "s")).base(ref, "amd64")
        config = Config(server=Server(data=str(tmp_path)))
        trusting = open_source("registry", Store(tmp_path / "s"), config, cert_file=Path(tls["certificate"]))
        assert len(trusting.base(ref, "amd64").layers) == 2
        nothing = open_source("registry", Store(tmp_path / "s"), config, cert_file=tmp_path / "none.pem")
        with pytest.raises(UsageError) as caught:
            nothing.base(ref, "amd64")
        assert caught.value.slug == "cert-file-bad"


@pytest.mark.parametrize("text", ["ftp://x", "x=y", "http://", "=http:/x"])
def test_mirrors_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        registryhttp.mirror_of(text)
    assert caught.value.slug == "mirror-bad"


@pytest.mark.parametrize(
    ("registry", "local"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("192.168.0.1", True),
        ("nas.local", True),
        ("8.8.8.8", False),
        ("quay.io", False),
        ("docker.io", False),
    ],
)
def test_where_plain_http_may_be_tried(registry: str, local: bool) -> None:
    assert registryhttp.is_local(registry) is local
    assert next(registryhttp.endpoints(registry, ())).url.startswith("http://" if local else "https://")


def test_two_builds_at_once_fetch_each_blob_once(registry: Registry, layout: Bases, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = Store(tmp_path / "s")
    blobs = {x.digest for x in layout.blobs_of(layout.named("docker.io/l/big:1")[0])}
    with Front(registry, lambda path, attempt: (0, 0)) as front, ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(source(store, "registry", front.url).base, "docker.io/l/big:1", "amd64") for _ in "ab"
        ]:
            done.result()
        fetched = {path: ranges for path, ranges in front.asked.items() if "/blobs/" in path}
    assert {path.rpartition("/")[2] for path in fetched} == blobs
    assert all(len(ranges) == 1 for ranges in fetched.values())


def test_a_plain_descriptor_is_enough(registry: Registry, tmp_path: Path) -> None:
    """What the store remembers of a pulled image has no platform: it suits any architecture, as in LinuxKit."""
    store = Store(tmp_path / "s")
    source(store, "registry", registry.url).base("docker.io/l/init:1", "amd64")
    (entry,) = store.list()
    assert isinstance(entry, Descriptor)
    assert entry.platform == {}
    assert source(store, "").base("docker.io/l/init:1", "riscv64").digest == entry.digest
    assert unpack([]) == {}
