"""TFTP packets as values (RFC 1350, 2347, 2348, 2349, 7440) and the negotiation of options. No sockets, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pxeserver.wire.reader import Reader, WireError

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)

# Error codes (RFC 1350, 2347)
NOT_DEFINED, NOT_FOUND, ACCESS_VIOLATION, DISK_FULL, ILLEGAL, UNKNOWN_ID, EXISTS, NO_USER, BAD_OPTION = range(9)

DEFAULT_BLKSIZE = 512
BLKSIZE_RANGE = range(8, 65465)
WINDOW_RANGE = range(1, 65536)
TIMEOUT_RANGE = range(1, 256)


@dataclass(frozen=True, slots=True)
class Request:
    """RRQ or WRQ. `filename` is what the client sent; `path` is what it means, None if no file of ours can be meant."""

    write: bool
    filename: str
    mode: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str | None:
        return safe_path(self.filename)

    def option(self, name: str) -> str | None:
        return next((value for key, value in self.options if key == name), None)


@dataclass(frozen=True, slots=True)
class Data:
    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    block: int


@dataclass(frozen=True, slots=True)
class Error:
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Oack:
    options: tuple[tuple[str, str], ...]


Message: TypeAlias = Request | Data | Ack | Error | Oack


def parse(raw: bytes) -> Message:
    """Bytes of a UDP payload -> message; WireError if they are not TFTP."""
    reader = Reader(raw, "TFTP packet")
    opcode = reader.u16()
    if opcode in (RRQ, WRQ):
        # Some ROMs leave out the last NUL: the end of the packet counts as one.
        name = reader.until_nul()
        mode = reader.until_nul(open_end=True)
        if not name or not mode:
            raise WireError("TFTP request without a name or a mode")
        return Request(opcode == WRQ, _text(name), _text(mode).lower(), _options(reader))
    if opcode == DATA:
        return Data(reader.u16(), reader.rest())
    if opcode == ACK:
        return Ack(reader.u16())
    if opcode == ERROR:
        return Error(reader.u16(), _text(reader.until_nul(open_end=True)))
    if opcode == OACK:
        return Oack(_options(reader))
    raise WireError(f"TFTP opcode {opcode}")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _options(reader: Reader) -> tuple[tuple[str, str], ...]:
    """Names in lower case, the first of repeated ones; what follows an empty name or lacks a value is left out."""
    found: dict[str, str] = {}
    while reader.left:
        name = reader.until_nul(open_end=True)
        if not name or not reader.left:
            break
        found.setdefault(_text(name).lower(), _text(reader.until_nul(open_end=True)))
    return tuple(found.items())


def safe_path(filename: str) -> str | None:
    """'\\\\boot\\\\x.kpxe\\xff' -> 'boot/x.kpxe'; None for names with '..', control characters, or nothing left.

    Windows-minded firmware sends backslashes, shim a doubled slash, some BIOS ROMs a 0xff at the end (which is not
    UTF-8, so it arrives as U+FFFD).
    """
    name = filename.rstrip("\ufffd\xff").replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or any(ord(c) < 32 or ord(c) == 127 or c == "\ufffd" for c in name):
        return None
    return "/".join(parts)


def pack_request(
    filename: str, *, mode: str = "octet", write: bool = False, options: dict[str, str] | None = None
) -> bytes:
    fields = [filename, mode, *(text for pair in (options or {}).items() for text in pair)]
    return (WRQ if write else RRQ).to_bytes(2, "big") + _nul_joined(fields)


def pack_data(block: int, payload: bytes) -> bytes:
    return b"\0\3" + (block & 0xFFFF).to_bytes(2, "big") + payload


def pack_ack(block: int) -> bytes:
    return b"\0\4" + (block & 0xFFFF).to_bytes(2, "big")


def pack_error(code: int, message: str) -> bytes:
    return b"\0\5" + code.to_bytes(2, "big") + _nul_joined([message])


def pack_oack(options: dict[str, str] | tuple[tuple[str, str], ...]) -> bytes:
    pairs = options.items() if isinstance(options, dict) else options
    return b"\0\6" + _nul_joined([text for pair in pairs for text in pair])


def _nul_joined(fields: list[str]) -> bytes:
    out = b""
    for field in fields:
        if "\0" in field:
            raise WireError("a TFTP field cannot hold a NUL")
        out += field.encode("utf-8") + b"\0"
    return out


@dataclass(frozen=True, slots=True)
class Terms:
    """What a transfer goes by. `timeout` in seconds, None: the server's adaptive one. No OACK if `oack` is empty."""

    blksize: int = DEFAULT_BLKSIZE
    windowsize: int = 1
    timeout: int | None = None
    oack: tuple[tuple[str, str], ...] = ()


def negotiate(request: Request, size: int, *, blksize_max: int, windowsize_max: int) -> Terms:
    """The terms that answer a read request for a file of `size` bytes.

    Values are clamped downwards only; an option that is unknown, malformed or out of its RFC's range is left out of the
    OACK, which tells the client that it was not accepted (RFC 2347). `tsize` is answered in octet mode only.
    """
    blksize, windowsize, timeout = DEFAULT_BLKSIZE, 1, None
    oack: list[tuple[str, str]] = []
    for name, text in request.options:
        value = _number(text)
        if value is None:
            continue
        if name == "blksize" and value in BLKSIZE_RANGE:
            blksize = min(value, blksize_max)
            oack.append((name, str(blksize)))
        elif name == "windowsize" and value in WINDOW_RANGE:
            windowsize = min(value, windowsize_max)
            oack.append((name, str(windowsize)))
        elif name == "timeout" and value in TIMEOUT_RANGE:
            timeout = value
            oack.append((name, str(value)))
        elif name == "tsize" and request.mode == "octet":
            oack.append((name, str(size)))
    return Terms(blksize, windowsize, timeout, tuple(oack))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None
