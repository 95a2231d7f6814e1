"""Writing cpio "newc" as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst).

Inodes count from 721 in each archive, as LinuxKit's do; hard links become relative symlinks; xattrs have no place.
"""

from __future__ import annotations

import posixpath
from struct import Struct

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import BLOCK, CHAR, FIFO, FILE, FOLDER, HARDLINK, SYMLINK, Entry
from pxeserver.images.writers import Sink, copy

_FIRST_INODE = 721
_TYPES = {FIFO: 0o01, CHAR: 0o02, FOLDER: 0o04, BLOCK: 0o06, FILE: 0o10, SYMLINK: 0o12, HARDLINK: 0o12}
_MOST = 0xFFFFFFFF
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
_FIELDS = Struct(">13I")


class CpioWriter:
    """`add` entries, then `finish`. It always ends with a trailer, so several archives can stand one after another."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._inode = _FIRST_INODE
        self.count = 0

    def add(self, entry: Entry) -> None:
        kind, size, target = entry.kind, 0, b""
        if kind == FILE:
            size = entry.size
            if (fault := too_large(entry)) is not None:
                raise fault
        elif kind in (SYMLINK, HARDLINK):
            link = relative(entry.name, entry.link) if kind == HARDLINK else entry.link
            target = link.encode("utf-8", "surrogateescape")
            size = len(target)
        self._sink.write(self._header(entry, _TYPES[kind] << 12 | entry.mode & 0o7777, size) + target)
        if entry.open is not None and size and kind == FILE:
            copy(entry.open(), self._sink, size, entry.name)
        if size & 3:
            self._sink.write(_PAD[size & 3])
        self.count += 1

    def finish(self) -> None:
        self._sink.write(self._header(Entry("TRAILER!!!", FILE, 0, mtime=0), 0, 0))

    def _header(self, entry: Entry, mode: int, size: int) -> bytes:
        name = entry.name.encode("utf-8", "surrogateescape") + b"\0"
        fields = _FIELDS.pack(
            self._inode, mode, entry.uid & _MOST, entry.gid & _MOST, 2 if entry.kind == FOLDER else 1,
            min(max(entry.mtime, 0), _MOST), size, 3, 1, entry.major & _MOST, entry.minor & _MOST, len(name), 0,
        )  # fmt: skip
        self._inode += 1
        return b"070701" + fields.hex().encode() + name + _PAD[(110 + len(name)) & 3]


def too_large(entry: Entry) -> PxeServerError | None:
    """Why a file cannot be in a cpio archive."""
    if entry.kind != FILE or entry.size <= _MOST:
        return None
    return PxeServerError("cpio-too-large", f"{entry.name} has {entry.size} bytes; an initrd's files end at 4 GiB")


def relative(name: str, target: str) -> str:
    """The symlink text that leads from entry `name` to entry `target`, both counted from the root."""
    return posixpath.relpath("/" + target, posixpath.dirname("/" + name.rstrip("/")))
