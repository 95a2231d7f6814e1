"""A DHCP channel without a socket, and what comes in by it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface

from pxeserver.local.interfaces import Interface
from pxeserver.serve.dhcp import DhcpServer
from pxeserver.serve.udp import Answer, Datagram
from pxeserver.wire import dhcp

ETH = Interface(7, "eth0", True, False, (IPv4Interface("10.77.0.1/16"), IPv4Interface("10.78.0.1/24")))


class DhcpChannel:
    """Gives what it was given, keeps what is sent."""

    def __init__(self, port: int, *arrived: Datagram) -> None:
        self.port = port
        self.sock = None
        self.arrived = list(arrived)
        self.sent: list[tuple[dhcp.Packet, tuple[str, int], int, str]] = []
        self.works = True

    def receive(self) -> Datagram | None:
        return self.arrived.pop(0) if self.arrived else None

    def send(self, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool:
        self.sent.append((dhcp.parse(data), peer, ifindex, own))
        return self.works

    def send_all(self, answers: Sequence[Answer]) -> list[Answer]:
        return [answer for answer in answers if not self.send(*answer)]


def feed(server: DhcpServer, channel: DhcpChannel) -> None:
    server._readable(channel)  # type: ignore[arg-type]


def datagram(
    packet: dhcp.Packet, *, peer: tuple[str, int] = ("0.0.0.0", 68), own: str = "10.77.0.1", ifindex: int = 7
) -> Datagram:
    return Datagram(packet.pack(), peer, ifindex, own)
