"""Reading a tar stream from first byte to last: ustar, PAX, GNU and V7 headers; nothing is sought, nothing is kept.

The standard library's reader spends most of a build's time on objects that nobody needs here; this one yields plain
entries. A stream that breaks off or makes no sense is a PxeServerError "tar-malformed"; sparse files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import BLOCK, CHAR, FIFO, FILE, FOLDER, HARDLINK, SYMLINK, Entry, Readable

_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"1": HARDLINK, b"2": SYMLINK,
    b"3": CHAR, b"4": BLOCK, b"5": FOLDER, b"6": FIFO,
}  # fmt: skip
_KEPT = ("SCHILY.xattr.", "LINUXKIT.", "uname", "gname")
_NO_OWNERS = bytes(64)
# name, mode, uid, gid, size, mtime, checksum, type, link, magic, owners, major, minor, prefix (POSIX.1-1988 ustar)
_HEADER = Struct("100s8s8s8s12s12s8sc100s6s2x64s8s8s155s12x")
_BLANK_SUM = 8 * 32
SLUG = "tar-malformed"
_CHUNK = 256 * 1024
_META_LIMIT = 1 << 20  # bytes of one PAX or long-name header
_ZEROS = bytes(512)


class _Member:
    """The content of the member at hand; ends where the member ends."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int = -1, /) -> bytes:
        want = self.left if size < 0 or size > self.left else size
        data = self._stream.read(want) if want else b""
        if len(data) < want:  # a decompressor may give less than was asked for
            data += _exactly(self._stream, want - len(data))
        self.left -= want
        return data


def entries(stream: Readable) -> Iterator[Entry]:
    """The entries in their order; the content of each can be read until the next is asked for. Names are as spelled."""
    shared: dict[str, str] = {}  # a global PAX header holds until the next one
    extra: dict[str, str] = {}
    while True:
        block = stream.read(512)
        while 0 < len(block) < 512 and (more := stream.read(512 - len(block))):
            block += more
        if not block or block == _ZEROS:
            return
        if len(block) < 512:
            raise _bad("it ends within a header")
        fields = _HEADER.unpack(block)
        _check_sum(block, fields[6])
        kind, size = fields[7], _number(fields[4])
        if kind in b"xgLK":
            _take_meta(kind, _meta(stream, size), shared, extra)
            continue
        records = {**shared, **extra} if shared else extra
        extra = {}
        entry, member = _entry(fields, size, records, stream)
        yield entry
        while member.left:
            member.read(min(_CHUNK, member.left))
        if pad := -entry_size(entry) % 512:
            _exactly(stream, pad)


def entry_size(entry: Entry) -> int:
    return entry.size if entry.kind == FILE else 0


def _entry(fields: tuple[bytes, ...], size: int, records: dict[str, str], stream: Readable) -> tuple[Entry, _Member]:
    name_field, mode, uid, gid, _, mtime, _, kind, link_field, magic, owners, major, minor, prefix = fields
    if kind == b"S" or (records and any(k.startswith("GNU.sparse.") for k in records)):
        raise _bad("it holds a sparse file", hint="make the layer again without tar's --sparse")
    what = _KINDS.get(kind, FILE)
    name = records.get("path") or _text(name_field)
    # GNU archives use the prefix field for other things
    if prefix[0] and magic == b"ustar\0" and not records.get("path"):
        name = f"{_text(prefix)}/{name}"
    if what == FILE and kind in b"0\0" and name.endswith("/"):
        what = FOLDER  # V7 archives know folders by the slash only
    keep: dict[str, str] = {}
    if records:
        if "size" in records:
            size = _decimal(records["size"])
        if "\0" in records.get("path", "") + records.get("linkpath", ""):
            raise _bad("a header makes no sense")
        keep = {k: v for k, v in records.items() if k.startswith(_KEPT) or (k == "mtime" and "." in v)}
    if size < 0:
        raise _bad("a header makes no sense")
    if what != FILE:
        size = 0  # links of some writers carry their target's size, but no content
    member = _Member(stream, size)
    time = records.get("mtime")
    if owners != _NO_OWNERS:
        keep = {"uname": _text(owners[:32]), "gname": _text(owners[32:]), **keep}
    device = what in (CHAR, BLOCK)
    return Entry(
        name,
        what,
        _number(mode) & 0o7777,
        _decimal(records["uid"]) if "uid" in records else _number(uid),
        _decimal(records["gid"]) if "gid" in records else _number(gid),
        _decimal(time.partition(".")[0] or "0") if time else _number(mtime),
        size,
        records.get("linkpath") or _text(link_field) if what in (SYMLINK, HARDLINK) else "",
        _number(major) if device else 0,
        _number(minor) if device else 0,
        (lambda: member) if what == FILE else None,
        keep,
    ), member


def _take_meta(kind: bytes, data: bytes, shared: dict[str, str], extra: dict[str, str]) -> None:
    if kind == b"x":
        extra.update(_records(data))
    elif kind == b"g":
        shared.update(_records(data))
    else:
        extra["path" if kind == b"L" else "linkpath"] = _text(data)


def _records(data: bytes) -> dict[str, str]:
    """PAX records: "LENGTH KEY=VALUE\\n", the length counts itself (POSIX.1-2001 pax)."""
    out: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 2 < int(length) <= len(data):
            raise _bad("a PAX header makes no sense")
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if not equals or data[int(length) - 1 : int(length)] != b"\n":
            raise _bad("a PAX header makes no sense")
        out[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return out


def _meta(stream: Readable, size: int) -> bytes:
    if not 0 <= size <= _META_LIMIT:
        raise _bad(f"a header of {size} bytes makes no sense")
    return _exactly(stream, size + -size % 512)[:size]


def _exactly(stream: Readable, size: int) -> bytes:
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            raise _bad("it ends within a file")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Octal text, or base 256 with the first bit set (GNU), signed."""
    digits = field.rstrip(b"\0 ")
    if not digits.isdigit():
        if field[0] & 0x80:
            value = int.from_bytes(field, "big")
            return value - (1 << (8 * len(field))) if field[0] == 0xFF else value & ~(0x80 << 8 * (len(field) - 1))
        digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise _bad(f"a number reads {digits!r}") from None


def _decimal(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _bad(f"a number reads {value!r}") from None


def _check_sum(block: bytes, field: bytes) -> None:
    # the sum of the header with its own field as blanks; some old writers summed signed bytes
    want = _number(field)
    plain = sum(block) - sum(field) + _BLANK_SUM
    if want != plain and want != plain - 256 * sum(b > 127 for b in block[:148] + block[156:]):
        raise _bad("a header's checksum is wrong")


def _bad(what: str, hint: str = "") -> PxeServerError:
    return PxeServerError(SLUG, f"not a tar archive that can be read: {what}", hint=hint)
