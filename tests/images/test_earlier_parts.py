"""--input-tar, SBOMs and verifying: what a build takes from before, says about itself, and can be checked by."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Bases, Lab, file, folder

from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.images import oci
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.oci import Descriptor
from pxeserver.images.target import Target
from pxeserver.images.verify import verify

SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "quiet"}
init: ["l/init:1", "l/more:1"]
volumes: [{name: v, image: "l/more:1"}]
onboot: [{name: a, image: "l/tool:1"}]
services:
  - {name: b, image: "l/tool:1"}
  - {name: c, image: "l/own:1", uid: b}
files: [{path: etc/spec.yml, metadata: yaml, mode: "0644"}, {path: etc/x, contents: old, mode: "0644"}]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.bases.image("l/kernel:1", KERNEL)
    for name in ("init", "more", "tool", "own"):
        apk = [folder("lib"), folder("lib/apk"), folder("lib/apk/db"), file("lib/apk/db/installed", name.encode())]
        lab.bases.image(f"l/{name}:1", [file(name, name.encode() * 999), *apk])
    return lab


def tarred(lab: Lab, text: str, **more: Any) -> bytes:
    out = io.BytesIO()
    lab.build(text, formats=("tar",), target=Target(Path(), "web", out), **more)
    return out.getvalue()


@pytest.fixture
def earlier(lab: Lab, tmp_path: Path) -> Path:
    path = tmp_path / "earlier.tar"
    path.write_bytes(tarred(lab, SPEC))
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("old", "old"),
        ("contents: old", "contents: new"),
        ("quiet", "loud"),
        ('["l/init:1", "l/more:1"]', '["l/more:1", "l/init:1"]'),
        ("{name: b,", "{name: bb,"),
        ("uid: b", "uid: a"),
        ("name: v,", "name: w,"),
    ],
)
def test_the_result_is_that_of_a_build_from_nothing(lab: Lab, earlier: Path, old: str, new: str) -> None:
    changed = SPEC.replace(old, new, 1).replace("uid: b}", "uid: bb}" if new == "{name: bb," else "uid: b}")
    assert tarred(lab, changed, input_tar=earlier) == tarred(lab, changed)


@pytest.mark.parametrize(("old", "new"), [("old", "old"), ("contents: old", "contents: new"), ("c, image", "d, image")])
def test_the_result_of_a_strict_build_without_volumes_is_too(lab: Lab, tmp_path: Path, old: str, new: str) -> None:
    text = SPEC.replace('volumes: [{name: v, image: "l/more:1"}]\n', "")
    path = tmp_path / "earlier.tar"
    path.write_bytes(tarred(lab, text, strict=True))
    changed = text.replace(old, new, 1)
    assert tarred(lab, changed, strict=True, input_tar=path) == tarred(lab, changed, strict=True)


def test_a_strict_build_takes_over_what_linuxkit_takes_over(lab: Lab, tmp_path: Path) -> None:
    """By position, the kernel's command line with it; and it loses volumes that stayed the same."""
    path = tmp_path / "earlier.tar"
    path.write_bytes(tarred(lab, SPEC, strict=True))
    new = SPEC.replace("quiet", "loud").replace("{name: a,", "{name: aa,")
    with tarfile.open(fileobj=io.BytesIO(tarred(lab, new, strict=True, input_tar=path))) as tar:
        cmdline = tar.extractfile("boot/cmdline")
        assert cmdline is not None and cmdline.read() == b"quiet"
        names = tar.getnames()
    assert not [n for n in names if n.startswith("containers/volumes")]
    assert "containers/onboot/000-aa/lower/tool" in names
    assert "containers/services/b/lower/tool" not in names, "it was in the folder of the first, and stays out"


@pytest.mark.parametrize("spec", [SPEC.partition("files:")[0], SPEC.replace("etc/spec.yml", "etc/other.yml")])
def test_a_strict_build_ignores_a_tar_that_does_not_tell_its_spec(lab: Lab, earlier: Path, spec: str) -> None:
    assert tarred(lab, spec, strict=True, input_tar=earlier) == tarred(lab, spec, strict=True)


def test_base_images_of_parts_taken_over_are_not_needed(lab: Lab, earlier: Path, tmp_path: Path) -> None:
    want = tarred(lab, SPEC)
    lab.bases = Bases(tmp_path / "none")
    lab.bases.image("l/unrelated:1", [file("x")])
    assert tarred(lab, SPEC, input_tar=earlier) == want
    with pytest.raises(NotFound, match="l/other:1"):
        tarred(lab, SPEC.replace("l/own:1", "l/other:1"), input_tar=earlier)


def test_an_image_that_two_containers_share_is_taken_whole_or_not_at_all(lab: Lab, earlier: Path) -> None:
    """A moved tag: what is taken over has the old content, what is made has the new one, and never both in one tree."""
    lab.bases.image("l/tool:1", [file("tool", b"new")])
    lab.bases.image("l/own:1", [file("own", b"new")])
    data = tarred(lab, SPEC.replace("{name: b,", "{name: bb,").replace("uid: b", "uid: bb"), input_tar=earlier)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    assert found["containers/onboot/000-a/lower/tool"] == b"new"
    assert found["containers/services/c/lower/own"] == b"new", "its uid names a container that is no longer there"
    assert found["init"] == b"init" * 999


def test_a_bootable_image_from_an_earlier_tar(lab: Lab, earlier: Path) -> None:
    plain, taken = lab.build(SPEC), lab.build(SPEC, input_tar=earlier)
    assert taken.image is not None
    assert lab.tree(taken) == lab.tree(plain)
    assert taken.image.cmdline == "quiet"
    assert lab.store.read_blob(taken.image.kernel.digest) == b"KERNEL"


def test_a_tar_that_does_not_tell_its_spec_is_refused(lab: Lab, earlier: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a file with metadata: yaml"):
        tarred(lab, 'init: ["l/init:1"]', input_tar=earlier)
    with pytest.raises(UsageError, match="has no etc/other") as caught:
        tarred(lab, SPEC.replace("etc/spec.yml", "etc/other"), input_tar=earlier)
    assert caught.value.slug == "input-tar-metadata"
    with pytest.raises(NotFound) as missing:
        tarred(lab, SPEC, input_tar=tmp_path / "none.tar")
    assert missing.value.slug == "input-tar-missing"
    (tmp_path / "cut.tar").write_bytes(b"x" * 10_000)
    with pytest.raises(PxeServerError, match=r"^error\[tar-malformed\]: .*/cut.tar: not a tar"):
        tarred(lab, SPEC, input_tar=tmp_path / "cut.tar")


@pytest.mark.parametrize(
    "odd", [True, 5, "x", {"a": 1}, [None], [5], [{}], [{"digest": "sha256:" + "1" * 64, "size": float("inf")}]]
)
@pytest.mark.parametrize("key", ["manifests", "layers"])
def test_lists_of_descriptors_that_are_none_are_refused(lab: Lab, key: str, odd: object) -> None:
    image = lab.bases.image("l/init:1", [file("init")])
    lab.bases.remove(image.ref)
    if key == "manifests":
        top = lab.bases.add_json(oci.INDEX, {"schemaVersion": 2, "manifests": odd})
    else:
        top = lab.bases.add_json(oci.MANIFEST, lab.bases.read_json(image.digest) | {"layers": odd})
    lab.bases.tag(image.ref, top)
    with pytest.raises(PxeServerError, match=r"^error\[oci-malformed\]: web.yml:\d+:\d+: init\[0\]: "):
        lab.build(SPEC)


def attested(bases: Bases, name: str, predicate: dict[str, Any]) -> None:
    """docker.io/l/NAME:1 as an index with an SBOM beside the image, as buildkit makes it."""
    image = bases.image(f"l/{name}:1", [file(name)])
    assert image.manifest is not None
    raw = bases.add_bytes(json.dumps({"predicate": predicate}).encode())
    note = {"in-toto.io/predicate-type": "https://spdx.dev/Document"}
    layer = Descriptor("application/vnd.in-toto+json", raw.digest, raw.size, note)
    config = bases.add_json(oci.CONFIG, {})
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config.json(), "layers": [layer.json()]}
    notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.digest}
    attestation = bases.add_json(
        oci.MANIFEST, body, annotations=notes, platform={"os": "unknown", "architecture": "unknown"}
    )
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [image.manifest.json(), attestation.json()]}
    bases.remove(image.ref)
    bases.tag(image.ref, bases.add_json(oci.INDEX, index))


def test_sboms_are_merged_under_the_folders_of_their_images(lab: Lab) -> None:
    for name in ("init", "tool"):
        attested(
            lab.bases,
            name,
            {
                "packages": [{"name": f"{name}-p", "SPDXID": "p"}, {"name": "q", "packageFileName": "lib/q"}],
                "files": [{"fileName": f"bin/{name}"}],
                "relationships": [{"spdxElementId": "p"}],
                "hasExtractedLicensingInfos": [{"licenseId": name}],
                "externalDocumentRefs": [{"externalDocumentId": name}],
            },
        )
    tree = lab.tree(lab.build(SPEC, sbom="usr/sbom.json"))
    assert "usr/sbom.json" not in tree, "its folder is not there, and nothing makes it"
    built = lab.build(SPEC, sbom="sbom.spdx.json")
    raw = lab.tree(built)["sbom.spdx.json"].data
    assert built.image is not None
    stored = Catalogue(lab.store).details(built.image).sbom
    assert stored is not None
    assert lab.store.read_blob(stored.digest) == raw
    document = json.loads(raw)
    where = "containers/onboot/000-a/lower"
    assert [f["fileName"] for f in document["files"]] == ["bin/init", f"{where}/bin/tool"]
    assert [p.get("packageFileName") for p in document["packages"]] == [None, "lib/q", where, f"{where}/lib/q"]
    assert len(document["relationships"]) == 2
    assert [x["licenseId"] for x in document["hasExtractedLicensingInfos"]] == ["init", "tool"]
    assert list(document).index("externalDocumentRefs") < list(document).index("creationInfo")
    assert (document["spdxVersion"], document["creationInfo"]["created"]) == ("SPDX-2.3", "2017-04-18T16:30:00Z")


@pytest.mark.parametrize("packages", [5, "x", [5], [[]], [None], True])
def test_an_sbom_that_is_none_is_refused(lab: Lab, packages: object) -> None:
    attested(lab.bases, "init", {"packages": packages})
    with pytest.raises(PxeServerError, match="packages in the SPDX document of docker.io/l/init:1") as caught:
        lab.build(SPEC, sbom="sbom.spdx.json")
    assert caught.value.slug == "oci-malformed"
    lab.build(SPEC)


def test_half_a_character_in_an_sbom_is_replaced(lab: Lab) -> None:
    attested(lab.bases, "init", {"packages": [{"name": "a\ud800b\ud83d\ude00"}]})
    document = json.loads(lab.tree(lab.build(SPEC, sbom="sbom.spdx.json"))["sbom.spdx.json"].data)
    assert document["packages"] == [{"name": "a\ufffdb\U0001f600"}]


def test_an_sbom_has_no_random_id_and_no_clock_unless_asked(lab: Lab) -> None:
    first, second = (lab.build(SPEC, sbom="sbom.spdx.json").image for _ in "ab")
    assert first is not None
    assert second is not None
    assert first.digest == second.digest
    dated = json.loads(lab.tree(lab.build(SPEC, sbom="sbom.spdx.json", now=0.0))["sbom.spdx.json"].data)
    assert dated["creationInfo"]["created"] == "1970-01-01T00:00:00Z"


def test_verify_finds_every_kind_of_damage(lab: Lab) -> None:
    lab.bases.image("l/kernel:1", [*KERNEL, file("u", b"070701ucode!")])
    text = SPEC.replace("cmdline", "ucode: u, cmdline")
    image = lab.build(text).image
    assert image is not None
    catalogue = Catalogue(lab.store)
    seen: list[int] = []
    assert verify(catalogue, image, seen.append) == ()
    assert sum(seen) == image.kernel.size + image.initrd.size
    initrd = lab.store.blob_path(image.initrd.digest)
    good = initrd.read_bytes()
    initrd.write_bytes(good[:-50] + b"x" + good[-49:])
    assert verify(catalogue, image, seen.append) == (f"initrd {image.initrd.digest} is damaged",)
    initrd.write_bytes(good[:-1])
    assert verify(catalogue, image, seen.append) == (
        f"initrd {image.initrd.digest} has {len(good) - 1} bytes instead of {len(good)}",
    )
    initrd.write_bytes(good)
    lab.store.blob_path(image.kernel.digest).unlink()
    assert verify(catalogue, image, seen.append) == (f"kernel {image.kernel.digest} is missing",)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_verify_unpacks_every_compression(lab: Lab, compression: str) -> None:
    image = lab.build(SPEC, compression=compression).image
    assert image is not None
    assert verify(Catalogue(lab.store), image, lambda n: None) == ()
