"""DHCPv6 messages as values (RFC 8415, 5970, 6939): `parse` and `pack`, through relay agents too. No meaning here.

Unlike DHCPv4 nothing is guessed: bytes that do not fit their lengths are a WireError, and so is everything behind them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from pxeserver.wire.reader import Reader, WireError

SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE, RECONFIGURE = range(1, 11)
INFORMATION_REQUEST, RELAY_FORW, RELAY_REPL = 11, 12, 13
MESSAGE_NAMES = {
    SOLICIT: "SOLICIT",
    ADVERTISE: "ADVERTISE",
    REQUEST: "REQUEST",
    CONFIRM: "CONFIRM",
    RENEW: "RENEW",
    REBIND: "REBIND",
    REPLY: "REPLY",
    RELEASE: "RELEASE",
    DECLINE: "DECLINE",
    RECONFIGURE: "RECONFIGURE",
    INFORMATION_REQUEST: "INFORMATION-REQUEST",
}

# Options we speak about
OPT_CLIENT_ID = 1
OPT_SERVER_ID = 2
OPT_IA_NA = 3
OPT_IA_ADDRESS = 5
OPT_REQUESTED = 6
OPT_RELAY_MESSAGE = 9
OPT_USER_CLASS = 15
OPT_VENDOR_CLASS = 16
OPT_INTERFACE_ID = 18
OPT_BOOTFILE_URL = 59
OPT_BOOTFILE_PARAM = 60
OPT_ARCH = 61
OPT_NII = 62
OPT_CLIENT_LINK_LAYER = 79

DUID_LLT, DUID_EN, DUID_LL, DUID_UUID = 1, 2, 3, 4
ETHERNET = 1
RELAYS_MAX = 8  # HOP_COUNT_LIMIT

Options = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Relay:
    """What one relay agent wrapped around a message; addresses are text."""

    hops: int
    link: str  # "::" if the agent names no link
    peer: str  # whom it heard the message from
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Packet:
    """A message of a client or a server, and the relay agents that it came through, the outermost first.

    `options` are in wire order; a code may stand there several times.
    """

    message: int
    xid: bytes  # 3 bytes
    options: Options = ()
    relays: tuple[Relay, ...] = ()

    def option(self, code: int) -> bytes | None:
        """The first value of an option, None if it is absent."""
        return _first(self.options, code)

    def pack(self) -> bytes:
        """The bytes on the wire; what was relayed is in RELAY-REPL when a server says it, else in RELAY-FORW.

        A relay agent finds the way back by its interface id, so that is echoed. WireError if a field does not fit.
        """
        if len(self.xid) != 3 or not 0 < self.message < 256 or self.message in (RELAY_FORW, RELAY_REPL):
            raise WireError("a header field does not fit")
        raw = bytes((self.message,)) + self.xid + pack_options(self.options)
        kind = RELAY_REPL if self.message in (ADVERTISE, REPLY, RECONFIGURE) else RELAY_FORW
        for relay in reversed(self.relays):
            options = relay.options
            if kind == RELAY_REPL:
                options = tuple(option for option in options if option[0] == OPT_INTERFACE_ID)
            if not 0 <= relay.hops < 256:
                raise WireError("a hop count does not fit")
            head = bytes((kind, relay.hops)) + _packed(relay.link) + _packed(relay.peer)
            raw = head + pack_options((*options, (OPT_RELAY_MESSAGE, raw)))
        return raw


def parse(raw: bytes) -> Packet:
    """Bytes of a UDP payload -> Packet; WireError if they are not DHCPv6."""
    relays: list[Relay] = []
    while True:
        reader = Reader(raw, "DHCPv6 message")
        kind = reader.u8()
        if kind not in (RELAY_FORW, RELAY_REPL):
            break
        if len(relays) == RELAYS_MAX:
            raise WireError(f"more than {RELAYS_MAX} relay agents")
        hops, link, peer = reader.u8(), reader.take(16), reader.take(16)
        options = options_of(reader.rest())
        inner = _first(options, OPT_RELAY_MESSAGE)
        if inner is None:
            raise WireError("a relay agent's message without a message in it")
        others = tuple(option for option in options if option[0] != OPT_RELAY_MESSAGE)
        relays.append(Relay(hops, address(link), address(peer), others))
        raw = inner
    if kind == 0:
        raise WireError("0 is no DHCPv6 message type")
    return Packet(kind, reader.take(3), options_of(reader.rest()), tuple(relays))


def options_of(raw: bytes) -> Options:
    """Options one after another, also those inside an option (IA_NA behind its first 12 bytes)."""
    reader, found = Reader(raw, "DHCPv6 options"), []
    while reader.left:
        code = reader.u16()
        found.append((code, reader.take(reader.u16())))
    return tuple(found)


def pack_options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """The reverse of `options_of`; WireError if one does not fit."""
    out = bytearray()
    for code, value in options:
        if not 0 <= code < 65536 or len(value) > 65535:
            raise WireError(f"option {code} of {len(value)} bytes does not fit")
        out += code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    return bytes(out)


def classes(raw: bytes) -> tuple[bytes, ...]:
    """Option 15, or option 16 behind its enterprise number: values with two bytes of length before each."""
    reader, found = Reader(raw, "classes"), []
    while reader.left:
        found.append(reader.take(reader.u16()))
    return tuple(found)


def vendor_class(raw: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Option 16: the enterprise number and its classes."""
    reader = Reader(raw, "vendor class")
    return reader.u16() << 16 | reader.u16(), classes(reader.rest())


def pack_vendor_class(enterprise: int, *names: bytes) -> bytes:
    return enterprise.to_bytes(4, "big") + b"".join(len(name).to_bytes(2, "big") + name for name in names)


def addresses(packet: Packet) -> tuple[str, ...]:
    """The addresses in the message's IA_NAs: those that a client has, or asks for."""
    found = []
    for code, value in packet.options:
        if code == OPT_IA_NA:
            inner = options_of(Reader(value[12:], "IA_NA").rest())
            found += [address(text[:16]) for kind, text in inner if kind == OPT_IA_ADDRESS and len(text) >= 16]
    return tuple(found)


def mac_of_duid(duid: bytes) -> bytes | None:
    """The Ethernet address in a DUID-LLT or DUID-LL (RFC 8415, 11.2, 11.4), None for other kinds."""
    start = {DUID_LLT: 8, DUID_LL: 4}.get(int.from_bytes(duid[:2], "big"))
    if start is None or len(duid) != start + 6 or int.from_bytes(duid[2:4], "big") != ETHERNET:
        return None
    return duid[start:]


def uuid_of_duid(duid: bytes) -> bytes | None:
    """The 16 bytes of a DUID-UUID (RFC 6355), None for other kinds."""
    return duid[2:] if len(duid) == 18 and int.from_bytes(duid[:2], "big") == DUID_UUID else None


def pack_duid_uuid(uuid: bytes) -> bytes:
    return DUID_UUID.to_bytes(2, "big") + uuid


def mac_of_link_local(text: str) -> bytes | None:
    """The Ethernet address that a link-local address was made of (EUI-64, RFC 4291 appendix A), None if it was not."""
    try:
        raw = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return None
    if raw[:8] != b"\xfe\x80" + bytes(6) or raw[11:13] != b"\xff\xfe":
        return None
    return bytes((raw[8] ^ 2,)) + raw[9:11] + raw[13:]


def mac_of_link_layer(raw: bytes) -> bytes | None:
    """Option 79 of a relay agent (RFC 6939): the Ethernet address, None for other hardware."""
    return raw[2:] if len(raw) == 8 and int.from_bytes(raw[:2], "big") == ETHERNET else None


def address(raw: bytes) -> str:
    """16 bytes -> text."""
    return socket.inet_ntop(socket.AF_INET6, raw)


def _packed(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        raise WireError(f"{text!r} is not an IPv6 address") from None


def _first(options: Options, code: int) -> bytes | None:
    return next((value for kind, value in options if kind == code), None)
