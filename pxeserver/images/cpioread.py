"""Reading cpio "newc" archives in a row, as an initrd holds them: from first byte to last, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import BLOCK, CHAR, FIFO, FILE, FOLDER, SYMLINK, Entry, Readable

_HEADER = 110
_CHUNK = 1 << 18
_LONGEST_NAME = 1 << 16
_KINDS = {0o01: FIFO, 0o02: CHAR, 0o04: FOLDER, 0o06: BLOCK, 0o10: FILE, 0o12: SYMLINK}


class _Content:
    """What is left of the entry at hand."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        data = _exactly(self._stream, self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data


def _given(content: _Content) -> Callable[[], Readable]:
    return lambda: content


def entries(stream: Readable) -> Iterator[Entry]:
    """The content of each can be read until the next one is asked for. PxeServerError "cpio-broken"."""
    while first := stream.read(1):
        if first == b"\0":
            continue  # what fills up to a boundary between archives
        header = first + _exactly(stream, _HEADER - 1)
        if not header.startswith(b"070701"):
            raise _broken("the initrd is no cpio archive of the newc kind")
        fields = [_number(header[n : n + 8]) for n in range(6, _HEADER, 8)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, length, _ = fields
        if length > _LONGEST_NAME:
            raise _broken("a name in the initrd is too long")
        name = _exactly(stream, length + (-(_HEADER + length) & 3))[: length - 1].decode("utf-8", "surrogateescape")
        content = _Content(stream, size)
        kind = _KINDS.get(mode >> 12, "")
        if kind:
            link = content.read().decode("utf-8", "surrogateescape") if kind == SYMLINK else ""
            yield Entry(
                name, kind, mode & 0o7777, uid, gid, mtime, size if kind == FILE else 0, link, major, minor,
                _given(content) if kind == FILE else None,
            )  # fmt: skip
        while content.left:
            content.read(_CHUNK)
        _exactly(stream, -size & 3)


def _exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size) if size else b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise _broken("the initrd ends in the middle of an archive")
        data += more
    return data


def _number(field: bytes) -> int:
    try:
        return int(field, 16)
    except ValueError:
        raise _broken("a header in the initrd makes no sense") from None


def _broken(what: str) -> PxeServerError:
    return PxeServerError("cpio-broken", what)
