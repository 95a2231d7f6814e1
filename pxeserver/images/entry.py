"""One entry of a tree on its way from a layer to an archive."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

FIXED_TIME = 1492533000  # 2017-04-18T16:30:00Z: the time that LinuxKit gives to everything it makes itself
_NONE: Mapping[str, str] = MappingProxyType({})

FILE, FOLDER, SYMLINK, HARDLINK, CHAR, BLOCK, FIFO = "f", "d", "l", "h", "c", "b", "p"


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Entry(NamedTuple):
    """`name` without a leading slash, undecodable bytes as surrogates; `size` bytes come from `open()`, once."""

    name: str
    kind: str
    mode: int = 0o755  # permission bits with set-id and sticky
    uid: int = 0
    gid: int = 0
    mtime: int = FIXED_TIME
    size: int = 0
    link: str = ""  # target of a symlink or hard link
    major: int = 0
    minor: int = 0
    open: Callable[[], Readable] | None = None
    pax: Mapping[str, str] = _NONE  # what only a tar archive can keep: fractions of mtime, owners' names, xattrs


def folder(name: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(name, FOLDER, mode, uid, gid)


def text(name: str, data: bytes, mode: int = 0o644, *, uid: int = 0, gid: int = 0, mtime: int = FIXED_TIME) -> Entry:
    """A file whose content is in memory."""
    return Entry(name, FILE, mode, uid, gid, mtime, len(data), open=lambda: io.BytesIO(data))


def from_disk(name: str, path: Path, mode: int, *, uid: int = 0, gid: int = 0) -> Entry:
    """A file whose content is read from disk when it is written; its size is taken now.

    What says that it has nothing in it is read at once: files below /proc say so.
    """
    if path.stat().st_size == 0:
        return text(name, path.read_bytes(), mode, uid=uid, gid=gid)
    return Entry(name, FILE, mode, uid, gid, size=path.stat().st_size, open=lambda: path.open("rb"))


def symlink(name: str, target: str, mode: int = 0o777, *, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(name, SYMLINK, mode, uid, gid, link=target)


def parents(path: str) -> list[Entry]:
    """A folder for each component of `path` itself: a/b -> a, a/b."""
    parts = [p for p in path.split("/") if p]
    return [folder("/".join(parts[: n + 1])) for n in range(len(parts))]
