"""Base images from a real docker engine (Debian's docker.io), started by the test with folders of its own."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from imagelab import KERNEL, Bases, Lab, file, folder, symlink, tar

from pxeserver.config import Config, Server
from pxeserver.errors import NotFound, Unreachable
from pxeserver.images.progress import Silent
from pxeserver.images.sources import Source, open_source
from pxeserver.images.store import Store

pytestmark = pytest.mark.server

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "quiet"}\ninit: ["l/init:1"]\nservices: [{name: s, image: "l/init:1"}]\n'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    top = tmp_path_factory.mktemp("engine")
    address = f"unix://{top}/sock"
    command = ["dockerd", "--data-root", f"{top}/data", "--exec-root", f"{top}/exec", "-p", f"{top}/pid", "-H", address]
    command += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--log-level=warn"]
    with (top / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait(address, top)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _wait(address: str, top: Path) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address.removeprefix("unix://"))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if b" 200 " in probe.recv(100):
                return
        time.sleep(0.1)
    raise AssertionError((top / "log").read_text())


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=url)) as client:
        yield client


@pytest.fixture
def address(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine is the one that the environment names."""
    monkeypatch.setenv("DOCKER_HOST", url)
    return url


def load(engine: docker.DockerClient, bases: Bases, ref: str) -> None:
    """`docker load` an image of a layout under the name that people type."""
    entry = bases.named(f"docker.io/{ref}")[-1]
    config, *layers = bases.blobs_of(entry)
    plain = [gzip.decompress(bases.read_blob(x.digest)) for x in layers]
    body = bases.read_json(config.digest)
    body["rootfs"] = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(p).hexdigest() for p in plain]}
    raw = json.dumps(body).encode()
    name = hashlib.sha256(raw).hexdigest() + ".json"
    paths = [f"{n}/layer.tar" for n in range(len(plain))]
    listed = [{"Config": name, "RepoTags": [ref], "Layers": paths}]
    items = [file(name, raw), file("manifest.json", json.dumps(listed).encode())]
    items += [file(path, data) for path, data in zip(paths, plain, strict=True)]
    engine.images.load(io.BytesIO(tar(items)))


@pytest.fixture(scope="module")
def layout(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Bases:
    bases = Bases(tmp_path_factory.mktemp("bases"))
    bases.image("l/kernel:1", KERNEL)
    lower = [folder("d"), file("d/old"), file("gone"), symlink("etc-link", "etc")]
    upper = [folder("d"), file("d/.wh..wh..opq"), file("d/new", b"new" * 999, uid=5), file(".wh.gone")]
    config = {"Entrypoint": ["/init"], "Labels": {"org.mobyproject.config": '{"capabilities": ["CAP_CHOWN"]}'}}
    bases.image("l/init:1", lower, upper, upper, config=config)
    for ref in ("l/kernel:1", "l/init:1"):
        load(engine, bases, ref)
    return bases


def source(lab: Lab, kind: str = "docker", **more: Any) -> Source:
    return open_source(kind, lab.store, lab.config, **more)


def test_an_engine_gives_the_very_image_that_a_layout_gives(layout: Bases, address: str, tmp_path: Path) -> None:
    near, far = Lab(tmp_path / "near"), Lab(tmp_path / "far")
    near.bases = layout
    want, got = near.build(SPEC), far.build(SPEC, source=source(far))
    assert want.image is not None
    assert got.image is not None
    assert got.image.digest == want.image.digest
    tree = far.tree(got)
    assert (tree["d/new"].uid, "d/old" in tree, "gone" in tree) == (5, False, False)
    assert json.loads(tree["containers/services/s/config.json"].data)["process"]["capabilities"]["effective"] == [
        "CAP_CHOWN"
    ]


def test_an_image_is_saved_once(layout: Bases, address: str, tmp_path: Path) -> None:
    class Tasks(Silent):
        def __init__(self) -> None:
            self.names: list[str] = []

        def task(self, name: str, total: int | None = None) -> Any:
            self.names.append(name)
            return super().task(name, total)

    lab, first, second = Lab(tmp_path), Tasks(), Tasks()
    source(lab, progress=first).base("docker.io/l/init:1", "amd64")
    source(lab, progress=second).base("docker.io/l/init:1", "amd64")
    assert first.names == ["save docker.io/l/init:1 from docker"]
    assert second.names == []


def test_a_moved_tag_is_followed(engine: docker.DockerClient, layout: Bases, address: str, tmp_path: Path) -> None:
    lab, bases = Lab(tmp_path / "lab"), Bases(tmp_path / "bases")
    for content in (b"one", b"two"):
        bases.image("l/moving:1", [file("f", content)])
        load(engine, bases, "l/moving:1")
        built = lab.build('kernel: {image: "l/kernel:1"}\ninit: ["l/moving:1"]', source=source(lab))
        assert lab.tree(built)["f"].data == content


def test_names_that_the_engine_does_not_have(layout: Bases, address: str, tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r'no base image "docker.io/l/innit:1" in the docker engine - did you mean'
    ) as caught:
        source(Lab(tmp_path)).base("docker.io/l/innit:1", "amd64")
    assert (caught.value.slug, caught.value.hint) == ("base-not-found", "docker pull docker.io/l/innit:1")
    with pytest.raises(NotFound) as caught:
        source(Lab(tmp_path)).base("docker.io/l/init:1", "arm64")
    assert (caught.value.slug, caught.value.hint) == ("image-platform", "it is there for: amd64")


def test_the_engine_goes_before_the_store_when_asked(layout: Bases, address: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    stored = Bases(lab.store.root)
    stored.image("l/kernel:1", KERNEL)
    stored.image("l/init:1", [file("from-store")])
    stored.image("l/only-store:1", [file("x")])
    text = SPEC + 'onboot: [{name: o, image: "l/only-store:1"}]\n'
    without, with_it = lab.build(text, source=source(lab, "")), lab.build(text, source=source(lab, "", docker=True))
    assert "from-store" in lab.tree(without)
    assert "d/new" in lab.tree(with_it)
    assert "containers/onboot/000-o/lower/x" in lab.tree(with_it)


def test_no_engine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    config = Config(server=Server(data=str(tmp_path)))
    with pytest.raises(Unreachable, match="no docker engine answers") as caught:
        open_source("docker", Store(tmp_path / "s"), config).base("docker.io/l/x:1", "amd64")
    assert (caught.value.slug, "DOCKER_HOST" in caught.value.hint) == ("docker-unreachable", True)
