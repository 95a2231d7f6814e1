"""Archives as sources: docker's of yesterday and today, OCI ones of several tools, and files that are none."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, WHEN, Bases, Lab, file, tar

from pxeserver.config import Config, Server
from pxeserver.errors import NotFound, UsageError
from pxeserver.images import oci, unpacked
from pxeserver.images.progress import Silent, Task
from pxeserver.images.sources import Source, open_source
from pxeserver.images.store import Store

LAYERS = (tar([file("a", b"one")]), tar([file("b", b"two")]))
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["/run"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(x).hexdigest() for x in LAYERS]},
}


class Counting(Silent):
    def __init__(self) -> None:
        self.tasks: list[str] = []

    def task(self, name: str, total: int | None = None) -> Task:
        self.tasks.append(name.split()[0])
        return super().task(name, total)


def write(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), WHEN
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    path.write_bytes(out.getvalue())
    return path


def old_docker(path: Path, names: list[str]) -> Path:
    """docker save before 25: a folder for each layer, the config by its hash."""
    files = {
        "conf.json": json.dumps(CONFIG).encode(),
        "one/layer.tar": LAYERS[0],
        "one/VERSION": b"1.0",
        "one/json": b"{}",
        "manifest.json": json.dumps(
            [{"Config": "conf.json", "RepoTags": names, "Layers": ["one/layer.tar", "two/layer.tar"]}]
        ).encode(),
        "real/layer.tar": LAYERS[1],
        "repositories": b"{}",
    }
    return write(path, files, {"two/layer.tar": "../real/layer.tar"})


def oci_archive(path: Path, bases: Bases, *names: dict[str, str], with_docker: bool = False) -> Path:
    """An OCI layout in a tar: the image `l/x:1` of `bases` under these annotations."""
    (entry,) = bases.named("docker.io/l/x:1")
    files = {f"blobs/sha256/{d[7:]}": bases.read_blob(d) for d in bases.references([entry])}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    manifests = [
        {"mediaType": oci.MANIFEST, "digest": entry.digest, "size": entry.size, "annotations": n} for n in names
    ]
    files["index.json"] = json.dumps({"manifests": manifests}).encode()
    if with_docker:
        body = bases.read_json(entry.digest)
        layers = ["blobs/sha256/" + x["digest"][7:] for x in body["layers"]]
        config = "blobs/sha256/" + body["config"]["digest"][7:]
        listed = [{"Config": config, "RepoTags": ["l/x:1"], "Layers": layers}]
        files["manifest.json"] = json.dumps(listed).encode()
    return write(path, files)


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    made = Bases(tmp_path / "bases")
    made.image("l/x:1", [file("x", b"x")], config={"Cmd": ["/x"]})
    return made


def source(tmp_path: Path, path: Path, kind: str = "archive", progress: Any = None) -> Source:
    config = Config(server=Server(data=str(tmp_path / "data")))
    return open_source(f"{kind}:{path}", Store(tmp_path / "data" / "store"), config, progress=progress or Silent())


def test_docker_of_yesterday(tmp_path: Path) -> None:
    path = old_docker(tmp_path / "x.tar", ["nginx:alpine", "reg.example:5000/a/b:latest"])
    found = source(tmp_path, path)
    assert set(found.names()) == {
        "docker.io/library/nginx:alpine",
        "reg.example:5000/a/b:latest",
        "reg.example:5000/a/b",
    }
    base = found.base("docker.io/library/nginx:alpine", "amd64")
    assert base.config["config"]["Cmd"] == ["/run"]
    assert [base.layout.read_blob(x.digest) for x in base.layers] == list(LAYERS)
    with pytest.raises(NotFound) as caught:
        found.base("docker.io/library/nginx:alpine", "arm64")
    assert caught.value.slug == "image-platform"


def test_docker_of_today_keeps_the_digest_of_its_index(tmp_path: Path, bases: Bases) -> None:
    name = {"io.containerd.image.name": "docker.io/l/x:1", oci.REF_NAME: "1"}
    found = source(tmp_path, oci_archive(tmp_path / "x.tar", bases, name, with_docker=True))
    assert found.base("docker.io/l/x:1", "amd64").digest == bases.named("docker.io/l/x:1")[0].digest


@pytest.mark.parametrize("kind", ["archive", "oci"])
def test_oci_archives_of_several_tools(tmp_path: Path, bases: Bases, kind: str) -> None:
    names = ({oci.REF_NAME: "docker.io/l/x:1"}, {oci.REF_NAME: "y:latest"}, {oci.REF_NAME: "justatag"}, {})
    found = source(tmp_path, oci_archive(tmp_path / "x.tar", bases, *names), kind)
    assert set(found.names()) == {"docker.io/l/x:1", "docker.io/library/y:latest", "docker.io/library/y"}
    assert found.base("docker.io/library/y", "amd64").config["config"]["Cmd"] == ["/x"]


def test_compressed(tmp_path: Path) -> None:
    path = old_docker(tmp_path / "x.tar", ["a/b:1"])
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert source(tmp_path, path).base("docker.io/a/b:1", "amd64").layers


def test_it_is_unpacked_once_and_again_when_it_changed(tmp_path: Path) -> None:
    path = old_docker(tmp_path / "x.tar", ["a/b:1"])
    progress = Counting()
    for _ in range(3):
        source(tmp_path, path, progress=progress)
    assert progress.tasks == ["unpack"]
    old_docker(path, ["a/c:other"])
    assert set(source(tmp_path, path, progress=progress).names()) == {"docker.io/a/c:other"}
    assert progress.tasks == ["unpack", "unpack"]


def test_an_unpacking_that_broke_off_is_done_again(tmp_path: Path) -> None:
    path = old_docker(tmp_path / "x.tar", ["a/b:1"])
    source(tmp_path, path)
    (folder,) = (p for p in (tmp_path / "data/cache/archives").iterdir() if p.is_dir())
    (folder / "stamp").unlink()
    (folder / "index.json").write_text("{")
    assert source(tmp_path, path).base("docker.io/a/b:1", "amd64")


def test_what_was_not_used_for_a_month_goes_away(tmp_path: Path) -> None:
    path = old_docker(tmp_path / "x.tar", ["a/b:1"])
    source(tmp_path, path)
    cache = tmp_path / "data/cache/archives"
    unpacked._sweep(cache, path.stat().st_mtime + 20 * 86400)
    assert list(cache.glob("*/stamp"))
    unpacked._sweep(cache, path.stat().st_mtime + 40 * 86400)
    assert [p for p in cache.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize(
    "data",
    [b"", b"no tar" * 200, gzip.compress(b"x" * 5000, mtime=0)[:-9], tar([file("manifest.json", b"[]")])],
    ids=["empty", "text", "cut", "nothing"],
)
def test_files_that_are_no_archives(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            source(tmp_path, path)
        assert caught.value.slug == "archive-bad"


def test_an_archive_without_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no image"):
        source(tmp_path, old_docker(tmp_path / "x.tar", []))


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        source(tmp_path, tmp_path / "absent.tar")
    assert caught.value.slug == "source-not-found"


def test_a_build_from_an_archive_is_the_one_from_the_layout(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.bases.image("l/kernel:1", KERNEL)
    entries = {"docker.io/l/kernel:1": lab.bases.named("docker.io/l/kernel:1")[0]}
    files = {f"blobs/sha256/{d[7:]}": lab.bases.read_blob(d) for d in lab.bases.references(entries.values())}
    manifests = [{**e.json(), "annotations": {oci.REF_NAME: ref}} for ref, e in entries.items()]
    files["index.json"] = json.dumps({"manifests": manifests}).encode()
    path = write(tmp_path / "bases.tar", files)
    spec = 'kernel: {image: "l/kernel:1"}\n'
    from_layout = lab.build(spec).image
    from_archive = lab.build(spec, source=source(tmp_path, path)).image
    assert from_layout and from_archive and from_layout.digest == from_archive.digest
