"""The DHCP shell without sockets: any packet at all costs at most itself."""

from __future__ import annotations

import pytest
from dhcplab import ETH, DhcpChannel, datagram, feed
from hypothesis import given
from hypothesis import strategies as st
from servelab import CAPTURES, captured

from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config, Server
from pxeserver.local.interfaces import Interface
from pxeserver.model import Event
from pxeserver.serve.dhcp import DhcpServer
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site
from pxeserver.serve.udp import Datagram
from pxeserver.wire import dhcp

MAC = "52:54:00:00:00:01"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.hex"))


def make(config: Config | None = None, interface: Interface = ETH) -> tuple[DhcpServer, list[Event]]:
    site = Site(config or Config(), load_quirks(), http_port=8080)
    site.interfaces = {7: interface}
    events: list[Event] = []
    return DhcpServer(site, Recorder(bytes(32), site.config, events.append), lambda: 1000.0), events


@given(
    name=st.sampled_from(NAMES),
    port=st.sampled_from([67, 4011]),
    changes=st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.integers(0, 600),
)
def test_mutated_packets_of_real_firmware_cost_at_most_themselves(
    name: str, port: int, changes: list[tuple[int, bytes]], cut: int
) -> None:
    raw = bytearray.fromhex((CAPTURES / f"{name}.hex").read_text().strip())
    for place, new in changes:
        raw[place : place + len(new)] = new
    server, _ = make()
    channel = DhcpChannel(port, Datagram(bytes(raw[: max(cut, 200)]), ("10.77.9.9", 4011), 7, "10.77.0.1"))
    feed(server, channel)
    assert server.counts["failed"] == 0
    for packet, _, _, _ in channel.sent:
        assert (packet.op, packet.yiaddr) == (dhcp.BOOTREPLY, "0.0.0.0")


def test_a_fault_of_ours_costs_one_packet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    server, _ = make()
    before = server._site.source
    calls = iter([True, False, False])

    def source(*args: str) -> str:
        if next(calls):
            raise RuntimeError("a bug")
        return before(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(server._site, "source", source)
    channel = DhcpChannel(67, *(datagram(captured("plain-rom-bios.discover", MAC)) for _ in range(3)))
    feed(server, channel)
    assert (len(channel.sent), server.counts["failed"]) == (2, 1)
    assert "a bug" in caplog.text


def test_replies_of_servers_are_no_requests() -> None:
    server, events = make()
    channel = DhcpChannel(67, datagram(captured("dnsmasq.offer", MAC)))
    feed(server, channel)
    assert (channel.sent, events) == ([], [])


def test_an_interface_without_an_address_answers_nobody_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    server, events = make(interface=Interface(7, "eth0", True, False))
    packet = datagram(captured("plain-rom-bios.discover", MAC), own="")
    feed(server, DhcpChannel(67, packet, packet))
    assert (server.counts["no-address"], events) == (2, [])
    assert caplog.text.count("eth0, where it asks, has no IPv4 address") == 1


@pytest.mark.parametrize(
    ("config", "interface", "ifindex"),
    [
        (Config(server=Server(interfaces=("eth1",))), ETH, 7),
        (Config(), Interface(7, "eth0", False, False, ETH.addresses), 7),
        (Config(), Interface(7, "lo", True, True, ETH.addresses), 7),
        (Config(), ETH, 8),
    ],
    ids=["not named", "down", "loopback", "unknown"],
)
def test_other_interfaces_are_left_alone(config: Config, interface: Interface, ifindex: int) -> None:
    server, _ = make(config, interface)
    channel = DhcpChannel(67, datagram(captured("plain-rom-bios.discover", MAC), ifindex=ifindex))
    feed(server, channel)
    assert (channel.sent, server.counts["other-interface"]) == ([], 1)


@pytest.mark.parametrize(
    ("changes", "advertise", "told", "to", "source", "by"),
    [
        ({}, "auto", "10.77.0.1", ("255.255.255.255", 68), "10.77.0.1", 7),
        ({"giaddr": "10.78.0.9"}, "auto", "10.78.0.1", ("10.78.0.9", 67), "10.78.0.1", 0),
        ({"giaddr": "192.0.2.9"}, "auto", "10.77.0.1", ("192.0.2.9", 67), "10.77.0.1", 0),
        ({}, "198.51.100.1", "198.51.100.1", ("255.255.255.255", 68), "10.77.0.1", 7),
    ],
    ids=["broadcast", "relay of our subnet", "relay of another", "advertised"],
)
def test_which_address_is_told_and_which_one_answers(
    changes: dict[str, str], advertise: str, told: str, to: tuple[str, int], source: str, by: int
) -> None:
    server, events = make(Config(server=Server(advertise=advertise)))
    channel = DhcpChannel(67, datagram(captured("plain-rom-bios.discover", MAC, **changes)))
    feed(server, channel)
    packet, peer, ifindex, own = channel.sent[0]
    assert (packet.siaddr, peer, own, ifindex) == (told, to, source, by)
    assert events[0].data["own_ip"] == told


def test_an_answer_that_could_not_be_sent_is_not_recorded() -> None:
    server, events = make()
    channel = DhcpChannel(67, datagram(captured("plain-rom-bios.discover", MAC)))
    channel.works = False
    feed(server, channel)
    assert (server.counts["unsent"], events) == (1, [])


def test_an_address_that_the_machine_asks_its_server_for_is_learnt() -> None:
    server, _ = make()
    feed(server, DhcpChannel(67, datagram(captured("qemu-rom-ipxe1-bios.request", MAC))))
    wanted = captured("qemu-rom-ipxe1-bios.request", MAC).option(50)
    assert wanted is not None
    assert server._recorder.mac_of(".".join(map(str, wanted))) == MAC
