"""DHCP without the port: datagrams are captured (packet(7)) and answers are put on the wire whole.

For a host whose port 67 belongs to another program: that program goes on as if we were not there.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from pxeserver.serve.udp import RECEIVE_BUFFER, SO_RCVBUFFORCE, Datagram

_ETH_P_IP = 0x0800
_OUTGOING = 4  # PACKET_OUTGOING
_SO_ATTACH_FILTER = 26
_BROADCAST = "255.255.255.255"
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")


def _filter(port: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF over the IP header: UDP, first fragment, destination port."""
    return [
        (0x30, 0, 0, 9),  # ldb [9]: protocol
        (0x15, 0, 6, 17),
        (0x28, 0, 0, 6),  # ldh [6]: fragment offset
        (0x45, 4, 0, 0x1FFF),
        (0xB1, 0, 0, 0),  # ldxb 4*([0]&0xf): length of the IP header
        (0x48, 0, 0, 2),  # ldh [x+2]: destination port
        (0x15, 0, 1, port),
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    ]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pack(payload: bytes, source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """An IPv4 packet with one UDP datagram."""
    src, dst = socket.inet_aton(source[0]), socket.inet_aton(target[0])
    length = _UDP.size + len(payload)
    udp = _UDP.pack(source[1], target[1], length, 0) + payload
    check = checksum(src + dst + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length) + udp) or 0xFFFF
    udp = udp[:6] + check.to_bytes(2, "big") + udp[8:]
    header = _IP.pack(0x45, 0, _IP.size + length, 0, 0, 64, socket.IPPROTO_UDP, 0, src, dst)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + udp


def unpack(raw: bytes) -> tuple[bytes, tuple[str, int], str] | None:
    """(payload, source, destination address) of an IPv4 packet with a whole UDP datagram, else None."""
    if len(raw) < _IP.size or raw[0] >> 4 != 4:
        return None
    start = (raw[0] & 15) * 4
    if start < _IP.size or len(raw) < start + _UDP.size:
        return None
    port, _, length, _ = _UDP.unpack_from(raw, start)
    if length < _UDP.size or start + length > len(raw):
        return None
    address = socket.inet_ntoa(raw[12:16]), port
    return raw[start + _UDP.size : start + length], address, socket.inet_ntoa(raw[16:20])


class RawChannel:
    """Hears UDP datagrams to `port` on every interface, or on `device`, and answers as if it had that port."""

    def __init__(self, port: int, device: str = "") -> None:
        self.port = port
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        program = b"".join(struct.pack("=HBBI", *step) for step in _filter(port))
        buffer = ctypes.create_string_buffer(program, len(program))
        attach = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attach)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        self.sock.bind((device, _ETH_P_IP))
        self._senders: dict[str, tuple[str, int, bytes]] = {}  # by address: interface, its hardware type and address

    def receive(self) -> Datagram | None:
        """The next datagram; None when there is none."""
        while True:
            try:
                raw, (name, _, kind, hardware, sender) = self.sock.recvfrom(4096)
            except OSError:
                return None
            found = unpack(raw)
            if kind == _OUTGOING or found is None:
                continue
            payload, peer, target = found
            relay = socket.inet_ntoa(payload[24:28]) if len(payload) >= 28 else "0.0.0.0"
            for address in {peer[0], relay} - {"0.0.0.0"}:
                self._remember(address, (name, hardware, sender))
            try:
                ifindex = socket.if_nametoindex(name)
            except OSError:
                continue
            return Datagram(payload, peer, ifindex, "" if target == _BROADCAST else target)

    def _remember(self, address: str, sender: tuple[str, int, bytes]) -> None:
        if len(self._senders) > 10_000:
            self._senders.clear()
        self._senders[address] = sender

    def send(self, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool:
        """To everybody on the interface, or to the station whose packet we answer: the client, or its relay."""
        known = self._senders.get(peer[0]) if peer[0] != _BROADCAST else None
        try:
            name, hardware, station = known or (socket.if_indextoname(ifindex), 1, b"\xff" * 6)
            packet = pack(data, (own, self.port), peer)
            self.sock.sendto(packet, (name, _ETH_P_IP, 0, hardware, station))
        except OSError:
            return False
        return True
