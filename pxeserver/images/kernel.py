"""The kernel image of a spec: kernel, modules archive, microcode; and taking a compressed kernel apart."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

from pxeserver.errors import NotFound, PxeServerError, Refused, did_you_mean
from pxeserver.images import flatten, tarread
from pxeserver.images.entry import FILE, FIXED_TIME, Entry, Readable, folder, text
from pxeserver.images.layers import BaseImage

KERNEL, CMDLINE, UCODE = "boot/kernel", "boot/cmdline", "boot/ucode.cpio"


def entries(
    base: BaseImage,
    *,
    cmdline: bytes,
    binaries: tuple[str, ...] = ("kernel",),
    tar: str = "kernel.tar",
    ucode: str = "",
    decompress: bool = False,
    strict: bool = False,
) -> Iterator[Entry]:
    """`boot/...` and the entries of the modules archive, in the order in which the image has them.

    The first of `binaries` that is there is the kernel: a better one that comes later replaces the one before.
    `tar` and `ucode` "" = none. Raises NotFound "kernel-not-found" with the nearest file of the image.
    """
    rank = {name: n for n, name in enumerate(binaries)}
    best = len(binaries)
    wanted = {*binaries, tar, ucode} - {""}
    found: set[str] = set()
    others: list[str] = []
    for entry in flatten.files(base, strict=strict):
        if entry.name not in wanted or entry.kind != FILE:
            if entry.kind == FILE and len(others) < 1000:
                others.append(entry.name)
            continue
        if entry.name != tar and not found - {tar}:
            yield folder("boot")
        found.add(entry.name)
        if entry.name in rank:
            if rank[entry.name] < best:
                best = rank[entry.name]
                yield text(CMDLINE, cmdline)
                with decompressed(entry) if decompress else nullcontext(entry) as plain:
                    yield _file(KERNEL, plain)
        elif entry.name == tar:
            yield from _unpacked(entry, base)
        else:
            yield _file(UCODE, entry)
    if best == len(binaries):
        raise _missing("kernel", binaries[0], base, others, "binary")
    if tar and tar not in found:
        raise _missing("kernel tar", tar, base, others, "tar")


def _missing(what: str, name: str, base: BaseImage, others: list[str], key: str) -> NotFound:
    return NotFound(
        "kernel-not-found",
        f'did not find {what} "{name}" in {base.ref}{did_you_mean(name, others)}',
        hint=f"kernel.{key} names the file" + ('; "none" for no modules archive' if key == "tar" else ""),
    )


def _file(name: str, entry: Entry) -> Entry:
    return Entry(name, FILE, entry.mode, mtime=FIXED_TIME, size=entry.size, open=entry.open)


def _unpacked(entry: Entry, base: BaseImage) -> Iterator[Entry]:
    assert entry.open is not None
    try:
        yield from tarread.entries(entry.open())
    except PxeServerError as error:
        if error.slug != tarread.SLUG:
            raise
        raise PxeServerError("kernel-tar-malformed", f"{entry.name} of {base.ref}: {error.message}") from None


class _Joined:
    """`head` (already read), then the rest of `stream`, as one stream."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._stream.read(size)
        data = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(data) :]
        return data


@contextmanager
def decompressed(entry: Entry) -> Iterator[Entry]:
    """The kernel inside a gzip file or a bzImage with a gzip payload (Documentation/arch/x86/boot.rst, 2.08 and later).

    Goes through a temporary file, because the size must be known before the content. Refused "kernel-compression".
    """
    assert entry.open is not None
    stream = entry.open()
    head = _read(stream, 0x250)
    if head[:2] == b"\x1f\x8b":
        with _gunzipped(entry, _Joined(head, stream)) as plain:
            yield plain
        return
    if head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        raise Refused(
            "kernel-compression", "no compressed kernel or no supported format found", hint="leave --decompress-kernel"
        )
    start = (head[0x1F1] + 1) * 512 + cast(int, struct.unpack_from("<I", head, 0x248)[0])
    if start < len(head):
        raise Refused("kernel-compression", f"the bzImage's payload offset {start} makes no sense")
    left = start - len(head)
    while left:
        left -= len(_read(stream, min(left, 1 << 18), exact=True))
    magic = _read(stream, 2)
    if magic != b"\x1f\x8b":
        raise Refused("kernel-compression", f"unsupported bzImage payload format at offset {start}")
    with _gunzipped(entry, _Joined(magic, stream)) as plain:
        yield plain


def _read(stream: Readable, size: int, *, exact: bool = False) -> bytes:
    data = b""
    while len(data) < size and (part := stream.read(size - len(data))):
        data += part
    if exact and len(data) < size:
        raise Refused("kernel-compression", "the bzImage ends before its payload")
    return data


@contextmanager
def _gunzipped(entry: Entry, stream: Readable) -> Iterator[Entry]:
    from isal import isal_zlib

    inflate = isal_zlib.decompressobj(wbits=31)
    size = 0
    with tempfile.TemporaryFile() as out:
        while not inflate.eof:
            data = stream.read(1 << 18)
            if not data:
                raise Refused("kernel-compression", "the compressed kernel ends too early")
            try:
                plain = inflate.decompress(data)
            except Exception as error:  # the library's own error class is untyped
                raise Refused("kernel-compression", f"the kernel cannot be decompressed: {error}") from None
            size += out.write(plain)
        out.seek(0)
        yield entry._replace(size=size, open=lambda: _Unclosed(out))


class _Unclosed:
    """The temporary file for reading; whoever made it closes it."""

    def __init__(self, file: Readable) -> None:
        self.read = file.read
