"""Own addresses, neighbours and port holders, as /proc and netlink tell them."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from pxeserver.local.interfaces import Interface, neighbour, own_address, own_address6, read_interfaces, serving
from pxeserver.local.ports import holder_of, port_taken

ETH = Interface(2, "eth0", True, False, (IPv4Interface("10.0.0.1/24"), IPv4Interface("10.1.0.1/24")))
ARP = """IP address       HW type     Flags       HW address            Mask     Device
10.0.0.7         0x1         0x2         52:54:00:00:00:01     *        eth0
10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0
"""


def test_the_loopback_is_there_with_its_address() -> None:
    lo = next(interface for interface in read_interfaces().values() if interface.name == "lo")
    assert lo.loopback
    assert lo.index == socket.if_nametoindex("lo")
    assert IPv4Interface("127.0.0.1/8") in lo.addresses
    assert IPv6Interface("::1/128") in lo.addresses6


@pytest.mark.parametrize(
    ("asked", "relay", "client", "own"),
    [
        ("", "", "", "10.0.0.1"),
        ("", "", "0.0.0.0", "10.0.0.1"),
        ("10.1.0.1", "", "10.0.0.9", "10.1.0.1"),
        ("10.9.9.9", "", "192.0.2.9", "10.0.0.1"),
        ("10.0.0.1", "10.1.0.254", "", "10.1.0.1"),
        ("10.1.0.1", "192.0.2.1", "", "10.1.0.1"),
        ("", "", "10.1.0.9", "10.1.0.1"),
        ("10.1.255.255", "", "10.1.0.9", "10.1.0.1"),
    ],
)
def test_which_address_is_ours_towards_a_machine(asked: str, relay: str, client: str, own: str) -> None:
    assert own_address(ETH, asked=asked, relay=relay, client=client) == own


@pytest.mark.parametrize(
    ("addresses", "asked", "own"),
    [
        (("fe80::1/64", "fd77::1/64", "2001:db8::1/64"), "", "2001:db8::1"),
        (("fe80::1/64", "fd77::1/64", "2001:db8::1/64"), "fd77::1", "fd77::1"),
        (("fe80::1/64", "fd77::1/64"), "ff02::1:2", "fd77::1"),
        (("fe80::1/64",), "fe80::1", ""),
    ],
)
def test_which_ipv6_address_a_url_names(addresses: tuple[str, ...], asked: str, own: str) -> None:
    eth = Interface(2, "eth0", True, False, (), tuple(map(IPv6Interface, addresses)))
    assert own_address6(eth, asked=asked) == own


def test_an_interface_without_addresses_has_none() -> None:
    assert own_address(Interface(2, "eth0", True, False)) == ""


def test_which_interfaces_are_served() -> None:
    down, lo = Interface(3, "eth1", False, False), Interface(1, "lo", True, True)
    found = {interface.index: interface for interface in (lo, ETH, down)}
    assert serving(found, ()) == [ETH]
    assert serving(found, ("eth1", "lo")) == [lo, down]


@pytest.mark.parametrize(
    ("address", "mac"), [("10.0.0.7", "52:54:00:00:00:01"), ("10.0.0.8", None), ("10.0.0.9", None)]
)
def test_neighbours(tmp_path: Path, address: str, mac: str | None) -> None:
    table = tmp_path / "arp"
    table.write_text(ARP)
    assert neighbour(address, table) == mac
    assert neighbour(address, tmp_path / "missing") is None


def test_a_new_neighbour_is_seen_at_once(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(ARP)
    assert neighbour("10.0.0.8", table) is None
    table.write_text(ARP.replace("0x0         00:00:00:00:00:00", "0x2         52:54:00:00:00:02"))
    assert neighbour("10.0.0.8", table) == "52:54:00:00:00:02"


@pytest.mark.parametrize(("protocol", "kind"), [("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)])
def test_who_holds_a_port(protocol: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        if protocol == "tcp":
            assert holder_of(protocol, port) == "", "bound, but not listening"
            sock.listen()
        assert holder_of(protocol, port).endswith(f"(pid {os.getpid()})")
        error = port_taken(protocol, port, "http")
        assert f"{protocol} port {port} (http) is taken by " in error.message
        assert str(os.getpid()) in error.message
    assert holder_of(protocol, port) == ""


def test_an_ipv6_address_that_nobody_has_is_no_neighbour() -> None:
    assert neighbour("fd77::dead") is None
