"""DHCP packets as values (RFC 2131, 2132, 3396, 3046): `parse` and `Packet.pack`, nothing about what they mean.

Parsing is lenient where real firmware is sloppy (no END, a last option that runs over the end, text with NULs) and
raises WireError, and nothing else, where the bytes are not a DHCP packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from socket import inet_aton, inet_ntoa

from pxeserver.wire.reader import WireError

# Message types (option 53)
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
MESSAGE_NAMES = {
    DISCOVER: "DISCOVER",
    OFFER: "OFFER",
    REQUEST: "REQUEST",
    DECLINE: "DECLINE",
    ACK: "ACK",
    NAK: "NAK",
    RELEASE: "RELEASE",
    INFORM: "INFORM",
}

# Options we speak about
OPT_VENDOR_SPECIFIC = 43
OPT_OVERLOAD = 52
OPT_MESSAGE_TYPE = 53
OPT_SERVER_ID = 54
OPT_MAX_SIZE = 57
OPT_VENDOR_CLASS = 60
OPT_CLIENT_ID = 61
OPT_TFTP_SERVER = 66
OPT_BOOTFILE = 67
OPT_USER_CLASS = 77
OPT_RELAY = 82
OPT_ARCH = 93
OPT_UNDI = 94
OPT_UUID = 97
OPT_IPXE = 175

BOOTREQUEST, BOOTREPLY = 1, 2
BROADCAST = 0x8000
MIN_PACKET = 300  # BOOTP clients drop shorter ones (RFC 951: 64 bytes of vendor area)
MAGIC = b"\x63\x82\x53\x63"
FILE_MAX = 127  # the header's file field, less its NUL
SNAME_MAX = 63
NOWHERE = "0.0.0.0"

_HEADER = struct.Struct("!BBBB4sHH4s4s4s4s16s64s128s4s")
_HEADER_SIZE = _HEADER.size  # 240 with the magic cookie
_READ = struct.Struct("!BBBB4sHH16s16s64s128s4s")  # the same, its four addresses in one
_LAST = {OPT_BOOTFILE: 1, OPT_RELAY: 2}  # the order at the end: everything else, 67, 82


def _until_nul(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


@lru_cache(maxsize=256)  # most have none, those behind a relay agent that one's
def _addresses(raw: bytes) -> tuple[str, str, str, str]:
    return inet_ntoa(raw[:4]), inet_ntoa(raw[4:8]), inet_ntoa(raw[8:12]), inet_ntoa(raw[12:])


@dataclass(frozen=True, slots=True)
class Packet:
    """One DHCP packet. Addresses are dotted text, `file` and `sname` end before their first NUL.

    `options` are in wire order, each code once: parts of long ones are joined (RFC 3396), those that stood in `file` or
    `sname` (option 52) follow the others and 52 itself is gone. The value of option 67 has no NUL at its end.
    """

    op: int
    xid: bytes
    chaddr: bytes  # `hlen` bytes
    options: tuple[tuple[int, bytes], ...]
    htype: int = 1
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: str = NOWHERE
    yiaddr: str = NOWHERE
    siaddr: str = NOWHERE
    giaddr: str = NOWHERE
    sname: bytes = b""
    file: bytes = b""
    _table: Mapping[int, bytes] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", dict(self.options))

    def option(self, code: int) -> bytes | None:
        """The value of an option, None if it is absent."""
        return self._table.get(code)

    @property
    def message(self) -> int:
        """Option 53, 0 if there is none (plain BOOTP)."""
        value = self._table.get(OPT_MESSAGE_TYPE)
        return value[0] if value else 0

    def pack(self) -> bytes:
        """The bytes on the wire: 67 closed by a NUL and last but for 82, long options split, padded to 300 bytes.

        EDK2 writes a NUL behind option 67, over the tag of whatever follows: so nothing may follow it. A relay agent
        takes 82 away before the client sees the packet. Raises WireError if a field does not fit.
        """
        return pack(
            pack_options(sorted(self.options, key=lambda option: _LAST.get(option[0], 0))),
            op=self.op,
            xid=self.xid,
            chaddr=self.chaddr,
            htype=self.htype,
            hops=self.hops,
            secs=self.secs,
            flags=self.flags,
            ciaddr=self.ciaddr,
            yiaddr=self.yiaddr,
            siaddr=self.siaddr,
            giaddr=self.giaddr,
            sname=self.sname,
            file=self.file,
        )


def pack(
    options: bytes,
    *,
    op: int,
    xid: bytes,
    chaddr: bytes,
    htype: int = 1,
    hops: int = 0,
    secs: int = 0,
    flags: int = 0,
    ciaddr: str = NOWHERE,
    yiaddr: str = NOWHERE,
    siaddr: str = NOWHERE,
    giaddr: str = NOWHERE,
    sname: bytes = b"",
    file: bytes = b"",
) -> bytes:
    """The header of a `Packet` and options as `pack_options` makes them. Raises WireError if a field does not fit."""
    hlen = len(chaddr)
    if hlen > 16 or len(file) > FILE_MAX or len(sname) > SNAME_MAX or len(xid) != 4:
        raise WireError("a header field is longer than its place")
    try:
        addresses = inet_aton(ciaddr), inet_aton(yiaddr), inet_aton(siaddr), inet_aton(giaddr)
        header = _HEADER.pack(op, htype, hlen, hops, xid, secs, flags, *addresses, chaddr, sname, file, MAGIC)
    except (struct.error, OSError) as error:
        raise WireError(f"a header field does not fit: {error}") from None
    return (header + options + b"\xff").ljust(MIN_PACKET, b"\0")


def pack_options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options in their order, without an END: 67 closed by a NUL, long ones split. WireError for what is no code."""
    parts = []
    for code, value in options:
        if not 0 < code < 255:
            raise WireError(f"{code} is not an option code")
        if code == OPT_BOOTFILE:
            value += b"\0"
        if len(value) < 256:
            parts.append(bytes((code, len(value))) + value)
            continue
        for start in range(0, len(value), 255):
            piece = value[start : start + 255]
            parts.append(bytes((code, len(piece))) + piece)
    return b"".join(parts)


def parse(raw: bytes) -> Packet:
    """Bytes of a UDP payload -> Packet; WireError if they are not DHCP."""
    if len(raw) < _HEADER_SIZE:
        raise WireError(f"{len(raw)} bytes are too few for a DHCP packet")
    op, htype, hlen, hops, xid, secs, flags, addresses, chaddr, sname, file, magic = _READ.unpack_from(raw)
    if magic != MAGIC:
        raise WireError("no DHCP magic cookie")
    if op not in (BOOTREQUEST, BOOTREPLY):
        raise WireError(f"op {op} is neither a request nor a reply")
    if hlen > 16:
        raise WireError(f"hardware address of {hlen} bytes")
    options: dict[int, bytes] = {}
    _scan(raw, _HEADER_SIZE, options)
    overload = options.pop(OPT_OVERLOAD, None)
    if overload:
        if overload[0] & 1:
            _scan(file, 0, options)
            file = b""
        if overload[0] & 2:
            _scan(sname, 0, options)
            sname = b""
        options.pop(OPT_OVERLOAD, None)
    if OPT_BOOTFILE in options:
        options[OPT_BOOTFILE] = _until_nul(options[OPT_BOOTFILE])
    return Packet(
        op,
        xid,
        chaddr[:hlen],
        tuple(options.items()),
        htype,
        hops,
        secs,
        flags,
        *_addresses(addresses),
        _until_nul(sname),
        _until_nul(file),
    )


def _scan(raw: bytes, position: int, into: dict[int, bytes]) -> None:
    """Collect options until END or the end of `raw`; one that runs over it is left out, repeated ones are joined."""
    end = len(raw)
    while position < end:
        code = raw[position]
        if code == 0:
            position += 1
            continue
        if code == 255 or position + 1 >= end:
            return
        stop = position + 2 + raw[position + 1]
        if stop > end:
            return
        value = raw[position + 2 : stop]
        into[code] = into[code] + value if code in into else value
        position = stop


def option_at(raw: bytes, code: int) -> int | None:
    """Where the value of an option begins in a packet that `parse` took; None if the option does not stand there once.

    Options in `file` or `sname` (52) are not looked for: with them it is None.
    """
    found = None
    position, end = _HEADER_SIZE, len(raw)
    while position < end and (tag := raw[position]) != 255:
        if tag == 0:
            position += 1
            continue
        if position + 1 >= end or position + 2 + raw[position + 1] > end:
            break
        if tag == OPT_OVERLOAD or (tag == code and found is not None):
            return None
        if tag == code:
            found = position + 2
        position += 2 + raw[position + 1]
    return found


def suboptions(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    """Encapsulated options (43, 82, 175): code, length, value; lenient as `parse` is. Each code once, joined."""
    found: dict[int, bytes] = {}
    _scan(raw, 0, found)
    return tuple(found.items())


def pack_suboptions(options: Iterable[tuple[int, bytes]], *, end: bool = False) -> bytes:
    """The reverse of `suboptions`; `end` closes with 255 (option 43 of PXE wants it). WireError if one does not fit."""
    out = bytearray()
    for code, value in options:
        if not 0 < code < 255 or len(value) > 255:
            raise WireError(f"sub-option {code} of {len(value)} bytes does not fit")
        out += bytes((code, len(value))) + value
    if end:
        out.append(255)
    return bytes(out)
