"""What a build can write besides the image in the store: a table of named forms, named as LinuxKit names them."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from pxeserver.errors import Refused, UsageError, did_you_mean
from pxeserver.images import compress
from pxeserver.images.catalogue import Details
from pxeserver.images.entry import FILE, Entry, text
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.target import Target, copied, whole_file, write_cmdline
from pxeserver.images.tarwrite import TarWriter
from pxeserver.images.tree import Tree
from pxeserver.images.writers import Sink
from pxeserver.model import Blob

DEFAULT = "kernel+initrd"


@dataclass(frozen=True, slots=True)
class Form:
    """`files` makes files out of an assembled image; without it the tree itself is one stream ("tar", ...)."""

    files: Callable[[Assembled, Store, Target], Iterator[Path]] | None = None
    needs: Callable[[str], None] | None = None  # Refused "tool-missing" and such for this architecture
    boots: bool = False  # by itself, so there must be a kernel
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
        yield write_cmdline(made.cmdline, target)


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


def _late(module: str, needs: str, files: str, *, boots: bool = True) -> Form:
    """A form whose module is only imported when it is asked for: builds start without them."""

    def named(name: str) -> Callable[..., Any]:
        return cast(Callable[..., Any], getattr(import_module(f"pxeserver.images.{module}"), name))

    return Form(lambda made, store, target: named(files)(made, store, target), lambda arch: named(needs)(arch), boots)


FORMS: dict[str, Form] = {
    "kernel+initrd": Form(files=_kernel_initrd),
    "tar-kernel-initrd": Form(files=_tar_kernel_initrd),
    "uki": _late("ukiform", "needs", "files"),
    "kernel+squashfs": _late("rootforms", "need_squashfs", "squashfs", boots=False),
    "kernel+erofs": _late("rootforms", "need_erofs", "erofs", boots=False),
    "kernel+iso": _late("rootforms", "need_iso", "iso", boots=False),
    "iso-bios": _late("isoforms", "need_bios", "bios"),
    "iso-efi": _late("isoforms", "need_efi", "efi"),
    "raw-bios": _late("diskforms", "need_bios", "raw_bios"),
    "raw-efi": _late("diskforms", "need_efi", "raw_efi"),
    "qcow2-bios": _late("diskforms", "need_bios_converted", "qcow2_bios"),
    "qcow2-efi": _late("diskforms", "need_efi_converted", "qcow2_efi"),
    "vhd": _late("diskforms", "need_bios_converted", "vhd"),
    "dynamic-vhd": _late("diskforms", "need_bios_converted", "dynamic_vhd"),
    "vmdk": _late("diskforms", "need_bios_converted", "vmdk"),
    "tar": Form(suffix=".tar"),
    "docker": Form(suffix=".docker", dockerfile=True),
}
_SAME_FILE = (("kernel+iso", "iso-bios"), ("vhd", "dynamic-vhd"))
# LinuxKit's other formats -> what comes nearest here
_ELSEWHERE = {"aws": "raw-bios", "gcp": "raw-bios", "iso-efi-initrd": "raw-efi", "rpi3": "kernel+initrd"}


def checked(formats: Sequence[str]) -> tuple[str, ...]:
    """The names that may be asked for together, each once; UsageError "format-..." otherwise."""
    names = tuple(dict.fromkeys(formats))
    for name in names:
        if name in FORMS:
            continue
        known = f"known: {', '.join(FORMS)}"
        if name in _ELSEWHERE:
            near = _ELSEWHERE[name]
            raise UsageError("format-unsupported", f"format {name} is not made here; nearest is {near}", hint=known)
        raise UsageError("format-unknown", f'unknown format type "{name}"{did_you_mean(name, FORMS)}', hint=known)
    streamed = next((n for n in names if FORMS[n].streamable), "")
    if streamed and len(formats) > 1:  # not even twice, as LinuxKit has it
        raise UsageError("format-alone", f"format type {streamed} must be the only format specified")
    for one, other in _SAME_FILE:
        if one in names and other in names:
            raise UsageError("format-clash", f"{one} and {other} are written to the same file", hint="one at a time")
    return names


def need(formats: Sequence[str], arch: str) -> None:
    """Refused "tool-missing" and the like when one of these forms cannot be made here for `arch`."""
    for name in formats:
        needs = FORMS[name].needs
        if needs is not None:
            needs(arch)


def write(name: str, made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    """The files of a form that is no stream, each as soon as it is whole."""
    form = FORMS[name]
    assert form.files is not None
    if form.boots and made.kernel is None:
        raise Refused("spec-no-kernel", f"{target.name} has no kernel, so {name} could not boot", hint="kernel.image")
    yield from form.files(made, store, target)


def write_tree(tree: Tree, sink: Sink) -> None:
    """The tree as a PAX archive, each entry with LinuxKit's notes about where it came from."""
    tar = TarWriter(sink)
    for part in tree.parts:
        with part.placed():
            for entry in tree.read(part, _nobody):
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
