"""The same DISCOVER within moments: the same answer, one offer. Whatever happens in between ends that."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from dhcplab import ETH, DhcpChannel, datagram, feed
from servelab import captured

from pxeserver.boot.decide import PAUSE
from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config
from pxeserver.model import Event, FleetView
from pxeserver.serve import udp
from pxeserver.serve.dhcp import DhcpServer, UdpChannel
from pxeserver.serve.recorder import Delivery, Recorder
from pxeserver.serve.repeats import LONGEST
from pxeserver.serve.site import Site
from pxeserver.wire import dhcp

MAC = "52:54:00:00:00:01"
DISCOVER = captured("plain-rom-bios.discover", MAC)
OTHER_XID = replace(DISCOVER, xid=b"\x01\x02\x03\x04")


class Server:
    def __init__(self) -> None:
        self.now = 1000.0
        self.events: list[Event] = []
        self.site = Site(Config(), load_quirks(), http_port=8080)
        self.site.interfaces = {7: ETH}
        self.recorder = Recorder(bytes(32), self.site.config, self.events.append)
        self.dhcp = DhcpServer(self.site, self.recorder, lambda: self.now)
        self.channel = DhcpChannel(67)

    def feed(self, packet: dhcp.Packet, **arrival: object) -> None:
        self.channel.arrived.append(datagram(packet, **arrival))  # type: ignore[arg-type]
        feed(self.dhcp, self.channel)

    @property
    def offers(self) -> int:
        return sum(event.kind == "offer" for event in self.events)


@pytest.fixture
def server() -> Server:
    made = Server()
    made.feed(DISCOVER)
    return made


def test_the_same_again_gets_the_same_answer_with_its_own_xid_and_is_no_second_offer(server: Server) -> None:
    server.now += PAUSE - 0.1
    server.feed(OTHER_XID)
    first, second = server.channel.sent
    assert second == (replace(first[0], xid=OTHER_XID.xid), *first[1:])
    assert (server.offers, server.dhcp.counts["repeated"], server.dhcp.counts["answered"]) == (1, 1, 1)


@pytest.mark.parametrize("seconds", [1.0, 4.0], ids=["iPXE", "EDK2"])
def test_firmware_that_asks_again_after_its_time_out_is_heard(server: Server, seconds: float) -> None:
    server.now += seconds
    server.feed(DISCOVER)
    assert server.offers == 2


def test_a_flood_is_one_offer_for_as_long_as_it_lasts_but_shows_now_and_then(server: Server) -> None:
    for _ in range(4 * int(LONGEST) + 1):
        server.now += 0.5
        server.feed(OTHER_XID)
    assert server.offers == 3


@pytest.mark.parametrize(
    ("packet", "arrival"),
    [
        (replace(DISCOVER, secs=1), {}),
        (replace(DISCOVER, chaddr=bytes.fromhex("525400000002")), {}),
        (replace(DISCOVER, giaddr="10.78.0.9"), {"peer": ("10.78.0.9", 67)}),
        (DISCOVER, {"own": "10.78.0.1"}),
        (DISCOVER, {"peer": ("10.77.9.9", 68)}),
    ],
    ids=["later by its own count", "another machine", "by a relay", "to another address", "from another"],
)
def test_what_differs_is_decided(server: Server, packet: dhcp.Packet, arrival: dict[str, object]) -> None:
    server.feed(packet, **arrival)
    assert (server.offers, server.dhcp.counts["repeated"]) == (2, 0)


def test_a_sign_of_life_ends_it(server: Server) -> None:
    loader = Delivery("undionly.kpxe", "10.77.0.50", 90_000, 90_000, 0.1)
    server.recorder.sent(MAC, "", "loader", loader, server.now)
    server.feed(DISCOVER)
    assert (server.offers, server.dhcp.counts["repeated"]) == (2, 0)


def test_a_change_of_the_fleet_ends_it_for_all(server: Server) -> None:
    server.site.see(FleetView(generation=1))
    server.feed(DISCOVER)
    assert (server.offers, server.dhcp.counts["repeated"]) == (2, 0)


def test_a_change_of_the_interfaces_ends_it_for_all(server: Server) -> None:
    server.site.interfaces = {7: replace(ETH, addresses=ETH.addresses[1:])}
    server.feed(DISCOVER, own="10.78.0.1")
    server.feed(DISCOVER, own="10.78.0.1")
    assert (server.offers, server.dhcp.counts["repeated"]) == (2, 1)
    assert server.channel.sent[-1][0].siaddr == "10.78.0.1"


@pytest.mark.parametrize("refused", [False, True], ids=["segments", "one by one"])
def test_many_answers_leave_by_few_calls_and_arrive_as_they_are(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    """More of one size than one call takes, then others: what UDP_SEGMENT would cut is what each was."""
    calls: list[int] = []

    def send_alike(sock: socket.socket, datagrams: Sequence[bytes], *way: Any) -> bool:
        calls.append(len(datagrams))
        return not refused and real(sock, datagrams, *way)

    real = udp.send_alike
    monkeypatch.setattr(udp, "send_alike", send_alike)
    channel = UdpChannel(0)
    with channel.sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(5)
        sizes = [300] * 70 + [1400] * 50 + [342] + [300] * 2
        payloads = [n.to_bytes(2, "big") * (size // 2) for n, size in enumerate(sizes)]
        way = (client.getsockname(), socket.if_nametoindex("lo"), "127.0.0.1")
        channel.send_all([(payload, *way) for payload in payloads])
        assert [client.recv(65536) for _ in payloads] == payloads
    assert calls == [64, 6, 46, 4, 2]


def test_repeats_of_one_turn_leave_together(server: Server) -> None:
    server.channel.arrived += [datagram(replace(DISCOVER, xid=bytes((0, 0, 0, n)))) for n in range(1, 9)]
    feed(server.dhcp, server.channel)
    assert [packet.xid[3] for packet, *_ in server.channel.sent[1:]] == list(range(1, 9))
    assert (server.offers, server.dhcp.counts["repeated"], server.dhcp.counts["received"]) == (1, 8, 9)
