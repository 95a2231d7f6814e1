"""Writing POSIX (PAX) tar archives as LinuxKit does: a PAX header with sorted records before entries that need one."""

from __future__ import annotations

import posixpath

from pxeserver.images.entry import BLOCK, CHAR, FIFO, FILE, FOLDER, HARDLINK, SYMLINK, Entry
from pxeserver.images.writers import Sink, copy

_FLAGS = {FILE: b"0", HARDLINK: b"1", SYMLINK: b"2", CHAR: b"3", BLOCK: b"4", FOLDER: b"5", FIFO: b"6"}


class TarWriter:
    """`add` entries, then `finish`; memory stays at one chunk."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, entry: Entry, records: dict[str, str] | None = None) -> None:
        """`records` are more PAX records for this entry, such as where it came from."""
        pax = {**entry.pax, **(records or {})}
        owners = b""
        for key in ("uname", "gname"):
            value = _bytes(pax.get(key, ""))
            if len(value) <= 32 and value.isascii():
                pax.pop(key, None)
            owners += _ascii(value)[:32].ljust(32, b"\0")
        name, link = _bytes(entry.name), _bytes(entry.link)
        size = entry.size if entry.kind == FILE else 0
        for key, value, most in (("path", name, 100), ("linkpath", link, 100)):
            if len(value) > most or not value.isascii():
                pax[key] = value.decode("utf-8", "surrogateescape")
        for key, number, digits in (("uid", entry.uid, 7), ("gid", entry.gid, 7), ("size", size, 11)):
            if not 0 <= number < 8**digits:
                pax[key] = str(number)
        if "mtime" not in pax and not 0 <= entry.mtime < 8**11:
            pax["mtime"] = str(entry.mtime)
        if pax:
            body = b"".join(_record(k, pax[k]) for k in sorted(pax))
            top, slash, base = entry.name.rpartition("/")
            name_of_pax = _bytes(posixpath.normpath(f"{top}{slash}PaxHeaders.0/{base}"))
            self._sink.write(_header(name_of_pax, b"x", len(body), ends=bytes(80)))
            self._sink.write(body + bytes(-len(body) % 512))
        self._sink.write(
            _header(
                name, _FLAGS[entry.kind], size, link=link, mode=entry.mode & 0o7777,
                uid=entry.uid, gid=entry.gid, mtime=entry.mtime,
                ends=owners + _octal(entry.major, 7) + _octal(entry.minor, 7),
            )
        )  # fmt: skip
        if entry.open is not None and entry.kind == FILE:
            copy(entry.open(), self._sink, size, entry.name)
            self._sink.write(bytes(-size % 512))

    def finish(self) -> None:
        self._sink.write(bytes(1024))


def _header(
    name: bytes, flag: bytes, size: int, *, link: bytes = b"", mode: int = 0,
    uid: int = 0, gid: int = 0, mtime: int = 0, ends: bytes,
) -> bytes:  # fmt: skip
    head = b"".join(
        (
            _ascii(name).ljust(100, b"\0"), _octal(mode, 7), _octal(uid, 7), _octal(gid, 7), _octal(size, 11),
            _octal(mtime, 11), b" " * 8, flag, _ascii(link).ljust(100, b"\0"), b"ustar\x0000", ends, bytes(167),
        )
    )  # fmt: skip
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _record(key: str, value: str) -> bytes:
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def _ascii(text: bytes) -> bytes:
    """What an old reader gets to see of a name that stands in full in the PAX header."""
    return bytes(c for c in text if c < 128)[:100]


def _octal(number: int, digits: int) -> bytes:
    """Too large numbers stand in the PAX header, and as 0 here."""
    return b"%0*o\0" % (digits, number if 0 <= number < 8**digits else 0)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
