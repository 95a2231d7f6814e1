"""A built image's UKI: made with the distribution's stub, signed, kept with the image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fleetlab import build

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images import uki as forms
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.local import uki
from pxeserver.model import Blob, Image


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(Store(tmp_path / "store"))


def bootable(catalogue: Catalogue, arch: str = "amd64") -> Image:
    """An image whose kernel is an EFI program: the stub itself."""
    kernel = catalogue.store.add_bytes(forms.find_stub("amd64").read_bytes())
    initrd = catalogue.store.add_bytes(b"initrd" * 1000)
    image = Image("sha256:" + "ab" * 32, "web", kernel, Blob(initrd.digest, initrd.size, 9), "console=ttyS0", arch)
    return catalogue.add(image, spec_text=b"kernel:\n  image: kernel\n")


def test_a_signature_takes_both_a_key_and_a_certificate(tmp_path: Path) -> None:
    assert uki.signer("", "") is None
    with pytest.raises(UsageError) as half:
        uki.signer("uki.key", "")
    assert half.value.slug == "uki-signer"
    with pytest.raises(NotFound) as missing:
        uki.signer(str(tmp_path / "uki.key"), str(tmp_path / "uki.crt"))
    assert missing.value.slug == "uki-signer-missing" and "uki.key" in missing.value.message


def test_a_kernel_that_uefi_cannot_start_is_refused_and_nothing_is_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    build(tmp_path, "web", arch="riscv64")
    with pytest.raises(Refused) as caught:
        uki.make(catalogue, catalogue.get("web"), tmp_path / "cache")
    assert caught.value.slug == "uki-arch"
    assert catalogue.get("web").uki is None


@pytest.mark.server
def test_the_uki_is_kept_with_its_image_and_carries_the_signature(catalogue: Catalogue, tmp_path: Path) -> None:
    key, cert = tmp_path / "uki.key", tmp_path / "uki.crt"
    subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=our own key/"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    image = bootable(catalogue)
    plain = uki.make(catalogue, image, tmp_path / "cache").uki
    signed = uki.make(catalogue, image, tmp_path / "cache", uki.signer(str(key), str(cert))).uki
    assert plain is not None and signed is not None and catalogue.get("web").uki == signed
    assert not catalogue.store.has(plain.digest)
    with catalogue.store.open_blob(signed.digest) as file:
        assert forms.is_signed(file)
    verified = subprocess.run(
        ["sbverify", "--cert", str(cert), str(catalogue.store.blob_path(signed.digest))],
        capture_output=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    key.write_text("no key")
    with pytest.raises(PxeServerError) as caught:
        uki.make(catalogue, image, tmp_path / "cache", uki.Signer(key, cert))
    assert caught.value.slug == "uki-sign" and catalogue.get("web").uki == signed
