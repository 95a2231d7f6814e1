"""The form `uki`: an assembled image as one UEFI executable."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pxeserver.images import kernel, uki
from pxeserver.images.entry import FILE, Entry
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.target import Target, whole_file
from pxeserver.images.writers import copy

_GZIP = b"\x1f\x8b"


def needs(arch: str) -> None:
    uki.find_stub(arch)


def files(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """BASE.efi."""
    path = target.path(".efi")
    initrd = uki.Section(".initrd", made.initrd.size, lambda: store.open_blob(made.initrd.digest))
    with whole_file(path) as out:
        write(out, made, store, target.name, initrd, made.cmdline)
    yield path


def write(
    out: BinaryIO,
    made: Assembled,
    store: Store,
    name: str,
    initrd: uki.Section | None,
    cmdline: str,
    stub: Path | None = None,
) -> None:
    """The image's kernel with this initrd and command line; `stub` None is the one that is on this host."""
    with efi_kernel(made, store) as section, cast(io.BufferedReader, section.open()) as file:
        parts = uki.sections(
            kernel=section,
            initrd=initrd,
            cmdline=cmdline,
            os_release=os_release(name, made.digest),
            uname=uki.kernel_version(file),
        )
        uki.lay_out(stub or uki.find_stub(made.arch), parts, made.arch).write(out)


def os_release(name: str, digest: str) -> bytes:
    """What boot menus show of it (os-release(5)): the image's name and the start of its digest."""
    short = digest.removeprefix("sha256:")[:12]
    plain = "".join(c if c.isalnum() and c.isascii() or c in "._-" else "-" for c in name)
    lines = [
        *("ID=linuxkit", "NAME=LinuxKit", f'PRETTY_NAME="{plain} {short}"'),
        *(f"IMAGE_ID={plain.lower()}", f"VERSION_ID={short}", f"IMAGE_VERSION={short}"),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def efi_kernel(made: Assembled, store: Store) -> Iterator[uki.Section]:
    """The kernel as UEFI can start it: out of its gzip file where arm64 has one. Refused "kernel-no-efi" otherwise."""
    assert made.kernel is not None, "outputs.write looks first"
    path = store.blob_path(made.kernel.digest)
    with contextlib.ExitStack() as stack:
        with path.open("rb") as start:
            zipped = start.read(2) == _GZIP
        if zipped:
            file = stack.enter_context(path.open("rb"))
            packed = Entry("kernel", FILE, size=made.kernel.size, open=lambda: file)
            plain = stack.enter_context(kernel.decompressed(packed))
            out = stack.enter_context(tempfile.NamedTemporaryFile())
            assert plain.open is not None
            copy(plain.open(), out, plain.size, "the kernel")
            out.flush()
            path = Path(out.name)
        with path.open("rb") as start:
            uki.check_kernel(start)
        yield uki.Section(".linux", path.stat().st_size, lambda: path.open("rb"))
