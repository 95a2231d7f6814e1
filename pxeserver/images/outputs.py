"""What a build can write besides the image in the store: a table of named forms, named as LinuxKit names them."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pxeserver.errors import UsageError, did_you_mean
from pxeserver.images import compress, ukiform
from pxeserver.images.catalogue import Details
from pxeserver.images.entry import FILE, Entry, text
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.target import Target, copied, whole_file
from pxeserver.images.tarwrite import TarWriter
from pxeserver.images.tree import Tree
from pxeserver.images.writers import Sink
from pxeserver.model import Blob

DEFAULT = "kernel+initrd"


@dataclass(frozen=True, slots=True)
class Form:
    """`files` makes files out of an assembled image, `stream` writes the tree itself as one stream ("tar", ...)."""

    files: Callable[[Assembled, Store, Target], Iterator[Path]] | None = None
    needs: Callable[[str], None] | None = None  # Refused "tool-missing" and such for this architecture
    suffix: str = ""
    dockerfile: bool = False

    @property
    def streamable(self) -> bool:
        return self.files is None


def _kernel_initrd(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    if made.kernel is not None:
        yield copied(store.blob_path(made.kernel.digest), target.path("-kernel"))
    yield copied(store.blob_path(made.initrd.digest), target.path("-initrd.img"))
    if made.cmdline:
        path = target.path("-cmdline")
        with whole_file(path) as file:
            file.write(made.cmdline.encode("utf-8", "surrogateescape"))
        yield path


def _tar_kernel_initrd(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    path = target.path("-initrd.tar")
    with whole_file(path) as file:
        tar = TarWriter(file)
        if made.kernel is not None:
            tar.add(_blob("kernel", made.kernel, store))
        skipped = made.ucode.size if made.ucode else 0  # here the microcode stands beside the initrd, not in it
        initrd = _blob("initrd.img", made.initrd, store, skipped)
        with _as_linuxkit(initrd) if target.exact else nullcontext(initrd) as entry:
            tar.add(entry)
        if made.cmdline:
            tar.add(text("cmdline", made.cmdline.encode("utf-8", "surrogateescape")))
        if made.ucode is not None:
            tar.add(_blob("ucode.cpio", made.initrd, store)._replace(size=made.ucode.size))
        tar.finish()
    yield path


def exported(details: Details) -> Assembled:
    """A stored image as the forms above take it."""
    image, ucode = details.image, details.facts.get("ucode")
    return Assembled(
        image.digest, image.kernel, Blob(**ucode) if ucode else None, image.initrd, image.cmdline, (), image.arch
    )


FORMS: dict[str, Form] = {
    "kernel+initrd": Form(files=_kernel_initrd),
    "tar-kernel-initrd": Form(files=_tar_kernel_initrd),
    "uki": Form(files=ukiform.files, needs=ukiform.needs),
    "tar": Form(suffix=".tar"),
    "docker": Form(suffix=".docker", dockerfile=True),
}
# LinuxKit makes these by running its mkimage containers
_ELSEWHERE = (
    *("aws", "dynamic-vhd", "gcp", "iso-bios", "iso-efi", "iso-efi-initrd", "kernel+erofs", "kernel+iso"),
    *("kernel+squashfs", "qcow2-bios", "qcow2-efi", "raw-bios", "raw-efi", "rpi3", "vhd", "vmdk"),
)


def checked(formats: Sequence[str]) -> tuple[str, ...]:
    """The names that may be asked for together, each once; UsageError "format-..." otherwise."""
    names = tuple(dict.fromkeys(formats))
    for name in names:
        if name in FORMS:
            continue
        known = f"known: {', '.join(FORMS)}"
        if name in _ELSEWHERE:
            raise UsageError("format-unsupported", f"format {name} is not made here", hint=known)
        raise UsageError("format-unknown", f'unknown format type "{name}"{did_you_mean(name, FORMS)}', hint=known)
    streamed = next((n for n in names if FORMS[n].streamable), "")
    if streamed and len(names) > 1:
        raise UsageError("format-alone", f"format type {streamed} must be the only format specified")
    return names


def need(formats: Sequence[str], arch: str) -> None:
    """Refused "tool-missing" and the like when one of these forms cannot be made here for `arch`."""
    for name in formats:
        needs = FORMS[name].needs
        if needs is not None:
            needs(arch)


def write_tree(tree: Tree, sink: Sink) -> None:
    """The tree as a PAX archive, each entry with LinuxKit's notes about where it came from."""
    tar = TarWriter(sink)
    for part in tree.parts:
        with part.placed():
            for entry in part.read(_nobody):
                tar.add(entry, part.records)
    tar.finish()


def write_stream(form: Form, tree: Tree, target: Target) -> Iterator[Path]:
    """A streamable form to the target's stream or file, else to FOLDER/NAME.SUFFIX."""
    if target.stream is not None:
        write_tree(tree, target.stream)
        return
    path = target.file or target.path(form.suffix)
    with whole_file(path) as file:
        write_tree(tree, file)
    yield path


def _blob(name: str, blob: Blob, store: Store, skipped: int = 0) -> Entry:
    def start() -> BinaryIO:
        file = store.open_blob(blob.digest)
        file.seek(skipped)
        return file

    return Entry(name, FILE, 0o644, size=blob.size - skipped, open=start)


@contextmanager
def _as_linuxkit(initrd: Entry) -> Iterator[Entry]:
    """The same initrd as one archive, compressed as LinuxKit does."""
    from pxeserver.images import pgzip  # big tables, and only this one strict format needs them
    from pxeserver.images.pgzip import onearchive

    assert initrd.open is not None
    with tempfile.TemporaryFile() as whole, cast(io.BufferedReader, initrd.open()) as file:
        plain = compress.opened(file)
        for piece in pgzip.compress(onearchive.joined(plain)):
            whole.write(piece)
        whole.flush()
        size = whole.tell()

        def start() -> BinaryIO:
            again = os.fdopen(os.dup(whole.fileno()), "rb")
            again.seek(0)
            return again

        yield initrd._replace(size=size, open=start)


def _nobody(count: int) -> None:
    pass
