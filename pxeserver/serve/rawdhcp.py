"""DHCP without the port: datagrams are captured (packet(7)) and answers are put on the wire whole.

For a host whose port 67 belongs to another program: that program goes on as if we were not there.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterable

from pxeserver.serve.udp import RECEIVE_BUFFER, SO_RCVBUFFORCE, Answer, Datagram
from pxeserver.wire import ip

_ETH_P_IP = 0x0800
_TO_US = (0, 1, 2)  # PACKET_HOST, _BROADCAST, _MULTICAST; not what is for others, or of a VLAN that is not here
_SO_ATTACH_FILTER = 26
_BROADCAST = "255.255.255.255"
_ARPHRD_LOOPBACK = 772


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


def _bind_to_all(sock: socket.socket) -> None:
    """To every interface: sockaddr_ll with index 0, which Python's own bind has no way to say."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_ETH_P_IP), 0, 0, 0, 0, b"")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class RawChannel:
    """Hears UDP datagrams to `port` on every interface, or on `device`, and answers as if it had that port."""

    def __init__(self, port: int, device: str = "") -> None:
        self.port, self._device = port, device
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            self._listen(port, device)
        except OSError:
            self.sock.close()
            raise
        self._senders: dict[str, tuple[str, int, bytes]] = {}  # by address: interface, its hardware type and address

    def _listen(self, port: int, device: str) -> None:
        program = b"".join(struct.pack("=HBBI", *step) for step in _filter(port))
        buffer = ctypes.create_string_buffer(program, len(program))
        attach = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attach)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        if device:
            self.sock.bind((device, _ETH_P_IP))
        else:
            _bind_to_all(self.sock)

    def receive(self) -> Datagram | None:
        """The next datagram; None when there is none."""
        while True:
            try:
                raw, (name, _, kind, hardware, sender) = self.sock.recvfrom(4096)
            except OSError:
                return None
            found = ip.unpack(raw)
            # a listener on eth0 is shown what comes for its VLANs too, under their names
            if kind not in _TO_US or found is None or self._device not in ("", name):
                continue
            payload, peer, (target, _) = found
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

    def send_all(self, answers: Iterable[Answer]) -> list[Answer]:
        return [answer for answer in answers if not self.send(*answer)]

    def send(self, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool:
        """To everybody on the interface, or to the station whose packet we answer: the client, or its relay."""
        known = self._senders.get(peer[0]) if peer[0] != _BROADCAST else None
        try:
            name, hardware, station = known or (socket.if_indextoname(ifindex), 1, b"\xff" * 6)
            if hardware == _ARPHRD_LOOPBACK:
                return _say_on_loopback(data, peer, own)
            packet = ip.pack(data, (own, self.port), peer)
            self.sock.sendto(packet, (name, _ETH_P_IP, 0, hardware, station))
        except OSError:
            return False
        return True


def _say_on_loopback(data: bytes, peer: tuple[str, int], own: str) -> bool:
    """There the kernel takes no packet that it has not made itself; the port that it comes from is any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((own, 0))
        sock.sendto(data, peer)
    return True
