"""A built image as a file: the same bytes each time, read by tarfile, taken in again, refused when it is not whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Lab, file

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images import archive, oci
from pxeserver.images.catalogue import ARTIFACT, Catalogue
from pxeserver.images.progress import Silent
from pxeserver.images.store import Store
from pxeserver.images.target import Target
from pxeserver.model import Image

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "quiet"}\ninit: ["l/init:1"]\n'
Members = dict[str, bytes]


class Home(Lab):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/init:1", [file("init", b"hello" * 999)])
        built = self.build(SPEC, tags=("v1",)).image
        assert built is not None
        self.image: Image = built
        self.catalogue = Catalogue(self.store)
        out = io.BytesIO()
        archive.write(self.catalogue, built, out)
        self.written = out.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def away(tmp_path: Path) -> Catalogue:
    return Catalogue(Store(tmp_path / "away"))


def members(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def packed(files: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def load(away: Catalogue, data: bytes, tags: list[str] | None = None) -> tuple[Image, ...]:
    return archive.load(away, "x.tar", io.BufferedReader(io.BytesIO(data)), Silent(), tags)  # type: ignore[arg-type]


def nothing_stays(away: Catalogue) -> bool:
    folder = away.store.root / "blobs" / "sha256"
    return away.list() == () and (not folder.is_dir() or not list(folder.iterdir()))


def test_there_and_back(home: Home, away: Catalogue) -> None:
    (came,) = load(away, home.written)
    assert (came.digest, came.initrd, came.tags) == (home.image.digest, home.image.initrd, ("web:latest", "web:v1"))
    assert away.details(came).manifest == home.catalogue.details(home.image).manifest
    assert load(away, home.written)[0].created == came.created, "what is here stays as it is"


def test_other_names_for_it(home: Home, away: Catalogue) -> None:
    assert load(away, home.written, ["mine", "other:x"])[0].tags == ("other:x", "web:mine")
    assert load(away, home.written, [])[0].tags == ("other:x", "web:mine")


def test_compressed_archives(home: Home, away: Catalogue) -> None:
    assert load(away, gzip.compress(home.written))[0].digest == home.image.digest


def test_the_file_is_an_oci_layout_and_the_same_each_time(home: Home, tmp_path: Path) -> None:
    path = archive.export(home.catalogue, home.image, Target(tmp_path, "web"))
    assert (path, path.read_bytes()) == (tmp_path / "web.oci.tar", home.written)
    files = members(home.written)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files["index.json"])
    assert [e["annotations"][oci.REF_NAME] for e in index["manifests"]] == ["web:latest", "web:v1"]
    assert {e["artifactType"] for e in index["manifests"]} == {ARTIFACT}
    blobs = {n: d for n, d in files.items() if n.startswith("blobs/")}
    assert all(hashlib.sha256(d).hexdigest() == n.rpartition("/")[2] for n, d in blobs.items())
    reached = home.store.references([e for e in home.store.index() if e.artifact_type == ARTIFACT])
    assert {f"sha256:{n.rpartition('/')[2]}" for n in blobs} == reached


def test_names_of_other_tools_are_no_tags(home: Home, away: Catalogue) -> None:
    files = members(home.written)
    index = json.loads(files["index.json"])
    del index["manifests"][1:]
    index["manifests"][0]["annotations"] = {oci.REF_NAME: "docker.io/x/web:v1"}
    del index["manifests"][0]["artifactType"]
    files["index.json"] = json.dumps(index).encode()
    assert load(away, packed(files))[0].tags == ()


def _without(part: str) -> Callable[[Members, Any], None]:
    def change(files: Members, manifest: Any) -> None:
        layer = next(x for x in manifest["layers"] if part in x["mediaType"])
        del files["blobs/sha256/" + layer["digest"].removeprefix("sha256:")]

    return change


def _flipped(files: Members, manifest: Any) -> None:
    name = "blobs/sha256/" + manifest["layers"][1]["digest"].removeprefix("sha256:")
    files[name] = bytes([files[name][0] ^ 1]) + files[name][1:]


def _no_index(files: Members, manifest: Any) -> None:
    del files["index.json"]


def _no_manifest(files: Members, manifest: Any) -> None:
    index = json.loads(files["index.json"])
    del files["blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")]


def _bad_index(files: Members, manifest: Any) -> None:
    files["index.json"] = b"[]"


def _bad_name(files: Members, manifest: Any) -> None:
    files["blobs/sha256/../../../etc/x.json"] = b"x"
    files["blobs/sha256/short"] = b"x"


@pytest.mark.parametrize(
    ("change", "kind", "slug"),
    [
        (_without("initrd"), NotFound, "archive-incomplete"),
        (_without("spec"), NotFound, "archive-incomplete"),
        (_no_manifest, NotFound, "archive-incomplete"),
        (_flipped, UsageError, "archive-bad"),
        (_no_index, UsageError, "archive-bad"),
        (_bad_index, UsageError, "archive-bad"),
        (_bad_name, UsageError, "archive-bad"),
    ],
)
def test_what_is_not_whole_leaves_nothing(
    home: Home, away: Catalogue, change: Callable[[Members, Any], None], kind: type[PxeServerError], slug: str
) -> None:
    files = members(home.written)
    manifest = json.loads(files["blobs/sha256/" + home.catalogue.details(home.image).manifest[7:]])
    change(files, manifest)
    with pytest.raises(kind) as caught:
        load(away, packed(files))
    assert caught.value.slug == slug
    assert nothing_stays(away)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello" * 500, gzip.compress(b"x" * 2000, mtime=0)[:-5], b"\x28\xb5\x2f\xfdjunk" * 99],
    ids=["empty", "text", "cut", "junk"],
)
def test_what_is_no_archive(away: Catalogue, data: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        load(away, data)
    assert caught.value.slug == "archive-bad"
    assert nothing_stays(away)


def test_an_archive_cut_short_anywhere(home: Home, tmp_path: Path) -> None:
    for end in range(1, len(home.written) - 1024, len(home.written) // 23):
        away = Catalogue(Store(tmp_path / str(end)))
        with pytest.raises(PxeServerError):
            load(away, home.written[:end])
        assert nothing_stays(away)


def _forged(home: Home, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The archive with another config and manifest, every digest right."""
    files = members(home.written)
    index = json.loads(files["index.json"])
    name = "blobs/sha256/" + index["manifests"][0]["digest"][7:]
    manifest = json.loads(files.pop(name))
    config = json.loads(files.pop("blobs/sha256/" + manifest["config"]["digest"][7:]))
    change(manifest, config)
    raw = json.dumps(config).encode()
    manifest["config"].update(digest="sha256:" + hashlib.sha256(raw).hexdigest(), size=len(raw))
    files["blobs/sha256/" + hashlib.sha256(raw).hexdigest()] = raw
    raw = json.dumps(manifest).encode()
    files["blobs/sha256/" + hashlib.sha256(raw).hexdigest()] = raw
    entry = {"mediaType": oci.MANIFEST, "digest": "sha256:" + hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    return packed(files)


@pytest.mark.parametrize(
    ("key", "value", "slug"),
    [
        ("cmdline", "init=/evil", "image-damaged"),
        ("arch", "arm64", "image-damaged"),
        ("digest", "sha256:" + "0" * 64, "image-damaged"),
        ("digest", "../../x", "image-foreign"),
        ("spec", "../x", "image-foreign"),
        ("segments", [], "image-damaged"),
        ("segments", [{}], "image-damaged"),
        ("segments", None, "image-foreign"),
        ("ucode", {"size": 5, "digest": "sha256:" + "0" * 64}, "image-damaged"),
    ],
)
def test_what_claims_to_be_another_image(home: Home, away: Catalogue, key: str, value: Any, slug: str) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config[key] = value

    with pytest.raises(PxeServerError) as caught:
        load(away, _forged(home, change))
    assert caught.value.slug == slug
    assert nothing_stays(away)


def test_what_lies_about_its_size(home: Home, away: Catalogue) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer.get("annotations", {}).pop("io.pxeserver.raw-size", None)

    with pytest.raises(PxeServerError, match="unpacks to") as caught:
        load(away, _forged(home, change))
    assert caught.value.slug == "image-damaged"


def test_base_images_are_for_building(home: Home, away: Catalogue) -> None:
    entry = home.bases.index()[0]
    files = {f"blobs/sha256/{d[7:]}": home.bases.read_blob(d) for d in home.bases.references([entry])}
    files["index.json"] = json.dumps({"manifests": [entry.json()]}).encode()
    with pytest.raises(Refused, match="holds no built image") as caught:
        load(away, packed(files))
    assert "--source oci:x.tar" in caught.value.hint
    assert nothing_stays(away)
