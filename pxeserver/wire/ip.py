"""IPv4 packets with one UDP datagram (RFC 791, 768), for sockets that see the whole packet (packet(7))."""

from __future__ import annotations

import socket
import struct

_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")

Address = tuple[str, int]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pack(payload: bytes, source: Address, target: Address) -> bytes:
    """The packet that carries `payload`."""
    src, dst = socket.inet_aton(source[0]), socket.inet_aton(target[0])
    length = _UDP.size + len(payload)
    udp = _UDP.pack(source[1], target[1], length, 0) + payload
    check = checksum(src + dst + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length) + udp) or 0xFFFF
    udp = udp[:6] + check.to_bytes(2, "big") + udp[8:]
    header = _IP.pack(0x45, 0, _IP.size + length, 0, 0, 64, socket.IPPROTO_UDP, 0, src, dst)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + udp


def unpack(raw: bytes) -> tuple[bytes, Address, Address] | None:
    """(payload, source, target) of a packet with a whole UDP datagram, else None. Checksums are the card's business."""
    if len(raw) < _IP.size or raw[0] >> 4 != 4 or raw[9] != socket.IPPROTO_UDP:
        return None
    start = (raw[0] & 15) * 4
    if start < _IP.size or len(raw) < start + _UDP.size:
        return None
    from_port, to_port, length, _ = _UDP.unpack_from(raw, start)
    if length < _UDP.size or start + length > len(raw):
        return None
    source, target = socket.inet_ntoa(raw[12:16]), socket.inet_ntoa(raw[16:20])
    return raw[start + _UDP.size : start + length], (source, from_port), (target, to_port)
