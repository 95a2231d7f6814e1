"""Making the unified kernel image of a built image: systemd's stub, kernel, initrd and command line in one EFI program.

The stub comes from the distribution's package, installed or fetched; a signature is made by its `sbsign`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images import uki, ukiform
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.initrd import Assembled
from pxeserver.local.bases.apt import Apt, closure
from pxeserver.local.bases.deb import unpack
from pxeserver.model import Image
from pxeserver.tools import need_tools


@dataclass(frozen=True, slots=True)
class Signer:
    """PEM files: a private key and the certificate that the firmware knows it by."""

    key: Path
    cert: Path


def signer(key: str, cert: str) -> Signer | None:
    """None when neither is named; UsageError "uki-signer" for one of two, NotFound "uki-signer-missing"."""
    if not key and not cert:
        return None
    if not (key and cert):
        raise UsageError("uki-signer", "a signature takes a key and a certificate", hint="--key FILE --cert FILE")
    for file in (key, cert):
        if not Path(file).is_file():
            raise NotFound("uki-signer-missing", f"no file {file}")
    return Signer(Path(key), Path(cert))


def make(catalogue: Catalogue, image: Image, cache: Path, sign: Signer | None = None) -> Image:
    """Make the UKI of `image`, record it with the image, in place of one from before. The image with it.

    Refused "uki-arch" for an architecture without a stub, "kernel-no-efi" for a kernel that none could start,
    Unreachable "mirror-failed" when the stub cannot be had, PxeServerError "uki-sign" when the key does not sign.
    """
    store = catalogue.store
    store.prepare()
    with tempfile.TemporaryDirectory(prefix="uki-", dir=store.tmp) as temporary:
        made = Path(temporary) / "uki.efi"
        stub = _stub(image, cache, Path(temporary))
        initrd = uki.Section(".initrd", image.initrd.size, lambda: store.open_blob(image.initrd.digest))
        with made.open("wb") as out:
            ukiform.write(out, _assembled(image), store, image.spec, initrd, image.cmdline, stub)
        if sign is not None:
            made = _signed(made, sign)
        with made.open("rb") as file:
            blob = store.add_blob(file)
    return catalogue.with_uki(image, blob)


def _stub(image: Image, cache: Path, work: Path) -> Path:
    """The one on this host, else out of the package, which need not be for this host's processor."""
    try:
        return uki.find_stub(image.arch)
    except Refused as error:
        if error.slug != "tool-missing":
            raise
    apt = Apt(cache, arch=image.arch)
    apt.refresh()
    records = {r.name: r for r in closure([uki.PACKAGE], apt.records([uki.PACKAGE]))}
    (package,) = apt.packages([records[uki.PACKAGE]])
    apt.fetch([package])
    (work / "stub").mkdir()
    tree = unpack([apt.path(package)], work / "stub")
    name = uki.MACHINES[image.arch][0]
    found = tree.disk.get(str(uki.STUBS / name).lstrip("/"))
    if found is None:
        raise PxeServerError("package-changed", f"{uki.PACKAGE} {package.version} has no {name}")
    return found


def _assembled(image: Image) -> Assembled:
    return Assembled(image.digest, image.kernel, None, image.initrd, image.cmdline, (), image.arch)


def _signed(made: Path, sign: Signer) -> Path:
    need_tools({"sbsign": "sbsigntool"})
    signed = made.with_suffix(".signed")
    argv = ["sbsign", "--key", str(sign.key), "--cert", str(sign.cert), "--output", str(signed), str(made)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode or not signed.is_file():
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise PxeServerError("uki-sign", f"sbsign does not sign by {sign.key}: {said}")
    shutil.copymode(made, signed)
    return signed
