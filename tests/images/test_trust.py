"""Signed images are built from, others refused: signatures in a layout, by right and wrong keys, tampered with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from imagelab import KERNEL, Lab, file
from signlab import ANNOTATION, PAYLOAD, Signer, tag

from pxeserver.checked import replace
from pxeserver.config import Images
from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images import locking, oci, trust
from pxeserver.images.build import Built
from pxeserver.images.locked import LockedSource
from pxeserver.images.sources import LayoutSource, open_source
from pxeserver.images.target import Target
from pxeserver.linuxkit import loader
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.linuxkit.lockfile import Lock

SPEC = """\
kernel: {image: "l/kernel:1"}
init:
  - l/init:1
trust:
  image: [l/init]
"""
NAME = "docker.io/l/init"


class Home(Lab):
    """One image, l/init:1, must be signed; `signer` made the configured key."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.signer = Signer(path / "keys")
        self.trusting(self.signer)
        self.bases.image("l/kernel:1", KERNEL)
        self.digest = self.bases.image("l/init:1", [file("init", b"init")]).digest

    def trusting(self, *signers: Signer) -> None:
        keys = tuple(str(s.public) for s in signers)
        self.config = replace(self.config, images=Images(trust_keys=keys))

    def refused(self, text: str = SPEC, **more: Any) -> PxeServerError:
        with pytest.raises(PxeServerError) as caught:
            self.build(text, **more)
        return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_signed_image_is_built_from(home: Home) -> None:
    home.signer.into_layout(home.bases, NAME, home.digest)
    built: Built = home.build(SPEC)
    assert built.image is not None and built.warnings == ()


def test_an_unsigned_image_is_refused_by_name_and_place(home: Home) -> None:
    error = home.refused()
    assert (type(error), error.slug, str(error.where)) == (Refused, "trust-unsigned", "web.yml:3:5: init[0]")
    assert error.message == (
        f"{NAME}:1 must be signed (trust.image: l/init at web.yml:5:11: trust.image[0]), "
        f"and there is no signature of {home.digest}"
    )
    assert error.hint == f"cosign sign --key cosign.key {NAME}@{home.digest}; or pin it: {NAME}@{home.digest}"


def test_without_a_key_nobody_can_tell(home: Home) -> None:
    home.signer.into_layout(home.bases, NAME, home.digest)
    home.trusting()
    error = home.refused()
    assert (error.slug, "images.trust_keys" in error.hint, home.digest in error.hint) == ("trust-no-key", True, True)


def test_images_that_trust_does_not_name_need_nothing(home: Home) -> None:
    assert home.build(SPEC.replace("l/init]", "l/other]")).image
    assert home.refused(SPEC.replace("image: [l/init]", "org: [l]")).slug == "trust-unsigned"


def test_strict_trusts_as_linuxkit_does(home: Home) -> None:
    home.trusting()
    assert home.build(SPEC, strict=True).image


def test_a_digest_in_the_spec_is_as_good(home: Home) -> None:
    ref = f"l/init:1@{home.digest}"
    home.bases.tag(f"docker.io/{ref}", home.bases.named(f"{NAME}:1")[0])
    home.trusting()
    assert home.build(SPEC.replace("l/init:1", ref)).image


def test_a_digest_that_the_layout_does_not_keep_is_refused(home: Home) -> None:
    """Under the pinned name stands another image."""
    ref = f"l/init@{'sha256:' + '0' * 64}"
    home.bases.tag(f"docker.io/{ref}", home.bases.named(f"{NAME}:1")[0])
    error = home.refused(SPEC.replace("l/init:1", ref))
    assert (error.slug, home.digest in error.message) == ("trust-digest", True)


def test_another_image_under_the_same_name_is_refused(home: Home) -> None:
    home.signer.into_layout(home.bases, NAME, home.digest)
    other = home.bases.image("l/init:1", [file("init", b"evil")]).digest
    error = home.refused()
    assert (error.slug, other in error.message) == ("trust-unsigned", True)


def test_the_signature_of_another_image_is_refused(home: Home) -> None:
    """Signed, but moved: the signed text says what was signed."""
    home.signer.into_layout(home.bases, NAME, home.digest)
    other = home.bases.image("l/init:1", [file("init", b"evil")]).digest
    home.signer.into_layout(home.bases, NAME, other, text=home.signer.payload(home.digest))
    error = home.refused()
    assert (error.slug, f"it is the signature of {home.digest}" in error.message) == ("trust-signature", True)


def test_one_of_several_keys_is_enough(home: Home, tmp_path: Path) -> None:
    other = Signer(tmp_path / "keys", "other")
    home.signer.into_layout(home.bases, NAME, home.digest)
    home.trusting(other)
    error = home.refused()
    assert (error.slug, f"it was not made with {other.public}" in error.message) == ("trust-signature", True)
    home.trusting(other, home.signer)
    assert home.build(SPEC).image


def test_one_of_several_signatures_is_enough(home: Home, tmp_path: Path) -> None:
    """cosign adds a layer for each signer."""
    other = Signer(tmp_path / "keys", "other")
    first = other.into_layout(home.bases, NAME, home.digest)
    earlier = home.bases.read_json(first.digest)["layers"]
    home.signer.into_layout(home.bases, NAME, home.digest, earlier=earlier)
    assert home.build(SPEC).image


BAD = {
    "flipped": lambda s, d: {"signature": "A" + s.sign(s.payload(d))[1:]},
    "not base64": lambda s, d: {"signature": "§§§"},
    "empty": lambda s, d: {"signature": "===="},
    "over another text": lambda s, d: {"signature": s.sign(b"{}")},
    "another type": lambda s, d: {"text": s.payload(d, type="atomic host")},
    "no digest": lambda s, d: {"text": s.payload(d, image={})},
    "no map": lambda s, d: {"text": s.payload(d, image="x")},
    "no json": lambda s, d: {"text": b"\xff\xfe"},
    "a list": lambda s, d: {"text": b"[]"},
}


@pytest.mark.parametrize("how", BAD)
def test_signatures_that_are_none(home: Home, how: str) -> None:
    home.signer.into_layout(home.bases, NAME, home.digest, **BAD[how](home.signer, home.digest))
    error = home.refused()
    assert (type(error), error.slug, "web.yml:3:5" in str(error)) == (Refused, "trust-signature", True)


def test_a_text_changed_after_signing(home: Home) -> None:
    made = home.signer.into_layout(home.bases, NAME, home.digest)
    layer = home.bases.read_json(made.digest)["layers"][0]
    home.bases.blob_path(layer["digest"]).write_bytes(home.signer.payload(home.digest) + b" ")
    assert home.refused().slug == "trust-signature"
    home.bases.blob_path(layer["digest"]).unlink()
    assert "the signed text is missing" in home.refused().message


def test_a_manifest_that_is_no_signature(home: Home) -> None:
    home.bases.tag(f"{NAME}:{tag(home.digest)}", home.bases.named("docker.io/l/kernel:1")[0])
    assert home.refused().slug == "trust-unsigned"
    home.bases.tag(f"{NAME}:{tag(home.digest)}", oci.Descriptor(oci.MANIFEST, "sha256:" + "0" * 64, 5))
    assert home.refused().slug == "trust-signature"


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_an_image_changed_after_signing(home: Home, part: str) -> None:
    """The digest is signed; what stands under it is not what it says."""
    home.signer.into_layout(home.bases, NAME, home.digest)
    body = home.bases.read_json(home.digest)
    digest = {"manifest": home.digest, "config": body["config"]["digest"], "layer": body["layers"][0]["digest"]}[part]
    path = home.bases.blob_path(digest)
    if part == "manifest":
        other = home.bases.image("l/other", [file("init", b"evil")])
        path.write_bytes(home.bases.read_blob(other.digest))
    elif part == "config":
        path.write_bytes(path.read_bytes().replace(b"linux", b"linuz"))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    error = home.refused()
    assert error.slug == ("layer-damaged" if part == "layer" else "digest-mismatch")
    assert str(error.where) == "web.yml:3:5: init[0]"


def _index(home: Home) -> tuple[str, str]:
    """l/init:1 as an index of two architectures: digests of the index, and of the manifest for amd64."""
    found = [home.bases.image(f"l/{a}", [file("init", a.encode())], arch=a).manifest for a in ("amd64", "arm64")]
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [m.json() for m in found if m]}
    index = home.bases.add_json(oci.INDEX, body)
    home.bases.remove(f"{NAME}:1")
    home.bases.tag(f"{NAME}:1", index)
    assert found[0]
    return index.digest, found[0].digest


@pytest.mark.parametrize("signed", [0, 1])
def test_an_index_or_its_manifest_may_be_signed(home: Home, signed: int) -> None:
    home.signer.into_layout(home.bases, NAME, _index(home)[signed])
    assert home.build(SPEC).image


def test_a_volume_of_all_platforms_needs_the_index_signed(home: Home) -> None:
    index, single = _index(home)
    text = SPEC.replace("  - l/init:1\n", "  - l/kernel:1\n") + "volumes: [{name: v, image: 'l/init:1', format: oci}]\n"
    home.signer.into_layout(home.bases, NAME, single)
    assert home.refused(text).slug == "trust-unsigned"
    home.signer.into_layout(home.bases, NAME, index)
    assert home.build(text).image


@pytest.mark.parametrize("marks", [{"kind": "dev.cosignproject.cosign/sigs"}, {oci.REF_NAME: ""}])
def test_layouts_that_cosign_saved(home: Home, marks: dict[str, str]) -> None:
    made = home.signer.manifest(home.bases, home.digest)
    marks = {k: v or tag(home.digest) for k, v in marks.items()}
    entry = oci.Descriptor(made.media_type, made.digest, made.size, marks)
    home.bases.edit_index(lambda entries: [*entries, entry])
    assert home.build(SPEC).image


def test_keys_that_are_none(home: Home, tmp_path: Path) -> None:
    home.signer.into_layout(home.bases, NAME, home.digest)
    home.signer.public.unlink()
    error = home.refused()
    assert (type(error), error.slug) == (NotFound, "trust-key-missing")
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    for raw in (b"", b"no key", rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)):
        home.signer.public.write_bytes(raw)
        error = home.refused()
        assert (type(error), error.slug) == (UsageError, "trust-key-bad")
    other = Signer(tmp_path / "keys", "cosign", ec.SECP384R1())
    assert (other.public, home.refused().slug) == (home.signer.public, "trust-key-bad")


def test_parts_that_must_be_signed_are_not_taken_from_an_earlier_tar(home: Home, tmp_path: Path) -> None:
    text = SPEC + "files: [{path: spec.yml, metadata: yaml, mode: '0644'}]\n"
    home.signer.into_layout(home.bases, NAME, home.digest)
    target = Target(tmp_path, "web")
    home.build(text, formats=("tar",), target=target)
    home.bases.remove(f"{NAME}:{tag(home.digest)}")
    error = home.refused(text, input_tar=tmp_path / "web.tar")
    assert (error.slug, str(error.where)) == ("trust-unsigned", "web.yml:3:5: init[0]")
    home.bases.remove("docker.io/l/kernel:1")
    home.signer.into_layout(home.bases, NAME, home.digest)
    assert home.build(text, input_tar=tmp_path / "web.tar").image, "the kernel was taken over"


def test_only_what_is_signed_is_locked(home: Home, tmp_path: Path) -> None:
    spec = SpecSource("web.yml", SPEC, tmp_path)
    source = LayoutSource(home.bases, "lab")
    with pytest.raises(Refused) as caught:
        locking.write(spec, source, "amd64", home.config)
    assert (caught.value.slug, str(caught.value.where)) == ("trust-unsigned", "web.yml:3:5: init[0]")
    assert not (tmp_path / "web.yml.lock").exists()
    home.signer.into_layout(home.bases, NAME, home.digest)
    assert locking.write(spec, source, "amd64", home.config).images[f"{NAME}:1"] == home.digest


def test_a_locked_image_is_pinned(home: Home) -> None:
    source = open_source(f"oci:{home.bases.root}", home.store, home.config)
    kernel = home.bases.named("docker.io/l/kernel:1")[0].digest
    lock = Lock("l", {f"{NAME}:1": home.digest, "docker.io/l/kernel:1": kernel})
    assert home.build(SPEC, source=LockedSource(source, [lock])).image
    path = home.bases.blob_path(home.digest)
    path.write_bytes(path.read_bytes() + b" ")
    assert home.refused(source=LockedSource(source, [lock])).slug == "digest-mismatch"


def test_specs_without_trust_load_no_cryptography(home: Home) -> None:
    code = "import sys, pxeserver.images.build; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    source = LayoutSource(home.bases, "lab")
    assert trust.guarded(loader.load([SpecSource("x.yml", "init: [a]")]), source, home.config) is source


def test_the_lab_signs_as_cosign_does(home: Home) -> None:
    """The names that the code and the tests both know are those of cosign's specification."""
    made = home.signer.into_layout(home.bases, NAME, home.digest)
    (layer,) = home.bases.read_json(made.digest)["layers"]
    assert layer["mediaType"] == PAYLOAD == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert list(layer["annotations"]) == [ANNOTATION] == ["dev.cosignproject.cosign/signature"]
    text = json.loads(home.bases.read_blob(layer["digest"]))
    assert text["critical"]["type"] == "cosign container image signature"
    assert tag("sha256:ab") == "sha256-ab.sig"
