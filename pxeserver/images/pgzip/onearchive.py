"""Cpio archives in a row as the one that LinuxKit writes: one trailer, inodes counted through, padded to 512."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pxeserver.errors import PxeServerError

_HEADER = 110
_FIRST_INODE = 721
_CHUNK = 1 << 18
_TRAILER = b"TRAILER!!!\0"


def joined(archives: BinaryIO) -> Iterator[bytes]:
    """The bytes of the one archive. PxeServerError "cpio-broken" when an archive ends in the middle."""
    inode, size = _FIRST_INODE, 0
    trailer = b""
    while header := archives.read(_HEADER):
        if not header.startswith(b"070701"):
            raise PxeServerError("cpio-broken", "the initrd is no cpio archive of the newc kind")
        header += _exactly(archives, _HEADER - len(header))
        length, data = int(header[94:102], 16), int(header[54:62], 16)
        name = _exactly(archives, length + (-(_HEADER + length) & 3))
        if name.startswith(_TRAILER):
            trailer = header + name
            continue
        yield _numbered(header, inode) + name
        size += _HEADER + len(name)
        inode += 1
        left = data + (-data & 3)
        size += left
        while left:
            piece = _exactly(archives, min(left, _CHUNK))
            left -= len(piece)
            yield piece
    end = _numbered(trailer[:_HEADER], inode) + trailer[_HEADER:]
    yield end + b"\0" * (-(size + len(end)) & 511)


def _numbered(header: bytes, inode: int) -> bytes:
    return header[:6] + b"%08x" % inode + header[14:]


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise PxeServerError("cpio-broken", "the initrd ends in the middle of an archive")
    return data
