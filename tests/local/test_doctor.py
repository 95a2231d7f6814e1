"""Each check of `doctor`, on made-up hosts."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tftpy
from fleetlab import build

from pxeserver.config import Boot, Config, Dhcp, Dhcp6, Server, Tftp
from pxeserver.images.store import Store
from pxeserver.local import doctor
from pxeserver.local.doctor import Status
from pxeserver.local.doctor_dhcp import Offer, discover, offer_of
from pxeserver.local.interfaces import Interface
from pxeserver.local.loaders import LoaderSet
from pxeserver.wire import dhcp

NBP = bytes.fromhex("ea0500c007669c66600fa80fa0061e66") * 200
ETH0 = Interface(2, "eth0", True, False, (ipaddress.IPv4Interface("10.0.0.2/24"),))
BARE = Interface(3, "eth1", True, False)
DOWN = Interface(4, "eth2", False, False, (ipaddress.IPv4Interface("10.1.0.2/24"),))


def statuses(checks: Iterator[doctor.Check]) -> list[tuple[str, Status]]:
    return [(c.name, c.status) for c in checks]


def test_interfaces_that_are_missing_down_or_bare_are_named() -> None:
    config = Config(server=Server(interfaces=("eth0", "eth1", "eth2", "eth9")))
    found = list(doctor.check_interfaces(config, [ETH0, BARE, DOWN], [ETH0, BARE, DOWN]))
    assert [(c.status, c.text.split()[0]) for c in found] == [
        (Status.FAIL, "eth9"),
        (Status.OK, "eth0"),
        (Status.WARN, "eth1"),
        (Status.FAIL, "eth2"),
    ]
    assert found[0].fix == "server.interfaces: eth0, eth1, eth2"


def test_no_interface_at_all() -> None:
    (check,) = doctor.check_interfaces(Config(), [], [])
    assert (check.status, check.text) == (Status.FAIL, "no interface is up")


def test_ports_are_free_ours_or_another_s() -> None:
    holders = {("udp", 67): "dnsmasq (pid 812)", ("tcp", 8080): "pxeserver (pid 900)"}
    found = list(doctor.check_ports(Config(), lambda protocol, port: holders.get((protocol, port), "")))
    assert {c.name: c.status for c in found} == {
        "udp 67": Status.FAIL,
        "udp 4011": Status.OK,
        "udp 69": Status.OK,
        "tcp 8080": Status.OK,
        "tcp 8081": Status.OK,
    }
    assert found[0].text == "proxyDHCP cannot have it: dnsmasq (pid 812) does"
    assert "dhcp.mode: off" in found[0].fix


def test_with_proxydhcp_off_its_ports_do_not_matter() -> None:
    names = [c.name for c in doctor.check_ports(Config(dhcp=Dhcp(mode="off")), lambda *_: "dnsmasq (pid 1)")]
    assert names == ["udp 69", "tcp 8080", "tcp 8081"]


def test_the_port_of_dhcpv6_matters_where_we_answer_it() -> None:
    found = {c.name: c for c in doctor.check_ports(Config(dhcp6=Dhcp6(mode="proxy")), lambda *_: "dnsmasq (pid 1)")}
    assert (found["udp 547"].status, found["udp 547"].fix) == (Status.FAIL, "stop it, or set dhcp6.mode: off")


def test_loaders_missing_changed_and_whole(tmp_path: Path) -> None:
    loaders = LoaderSet(tmp_path)
    config = Config(boot=Boot(bios_loader="undionly.kpxe", efi_loader="mine.efi"))
    assert [(c.status, c.fix) for c in doctor.check_loaders(config, loaders)] == [
        (Status.FAIL, "pxeserver loaders fetch"),
        (Status.FAIL, "pxeserver loaders add FILE"),
    ]
    for name in ("undionly.kpxe", "mine.efi"):
        loaders.add(NBP, name)
    assert [c.status for c in doctor.check_loaders(config, loaders)] == [Status.OK, Status.OK]
    (tmp_path / "mine.efi").write_bytes(NBP + b"!")
    assert [c.status for c in doctor.check_loaders(config, loaders)] == [Status.OK, Status.FAIL]


@pytest.fixture
def tftp_server(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """tftpy's own server on a free port of the loopback: (its folder, the port)."""
    folder = tmp_path / "served"
    folder.mkdir()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = tftpy.TftpServer(str(folder))
    thread = threading.Thread(target=server.listen, args=("127.0.0.1", port, 1))
    thread.start()
    server.is_running.wait(10)
    yield folder, port
    server.stop(now=True)
    thread.join(10)


def test_a_loader_is_fetched_and_compared(tmp_path: Path, tftp_server: tuple[Path, int]) -> None:
    folder, port = tftp_server
    loaders = LoaderSet(tmp_path / "loaders")
    loaders.add(NBP, "undionly.kpxe")
    loopback = Interface(1, "lo", True, True, (ipaddress.IPv4Interface("127.0.0.1/8"),))
    config = Config(tftp=Tftp(port=port))
    (folder / "undionly.kpxe").write_bytes(NBP)
    (check,) = doctor.check_tftp(config, loaders, [loopback])
    assert (check.status, check.text) == (Status.OK, "undionly.kpxe from 127.0.0.1, 3200 bytes")
    (folder / "undionly.kpxe").write_bytes(NBP[1:])
    (check,) = doctor.check_tftp(config, loaders, [loopback])
    assert (check.status, check.text) == (Status.FAIL, "undionly.kpxe from 127.0.0.1 is another file")
    (folder / "undionly.kpxe").unlink()
    (check,) = doctor.check_tftp(config, loaders, [loopback])
    assert check.status is Status.FAIL


@pytest.mark.parametrize(
    ("now", "synchronised", "expected"),
    [(1e9, True, Status.FAIL), (2e9, False, Status.WARN), (2e9, True, Status.OK), (2e9, None, Status.OK)],
)
def test_the_clock(now: float, synchronised: bool | None, expected: Status) -> None:
    assert doctor.check_clock(now, synchronised).status is expected


def test_the_data_folder_and_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert statuses(doctor.check_data(tmp_path / "new"))[0] == ("data", Status.OK)
    for free, expected in ((100 << 20, Status.FAIL), (1 << 30, Status.WARN), (100 << 30, Status.OK)):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        assert statuses(doctor.check_data(tmp_path))[1] == ("disk", expected)


def test_offers_of_other_servers() -> None:
    site = Offer("10.0.0.1", "10.0.0.50", "", False)
    ours = Offer("10.0.0.2", "", "undionly.kpxe", True)
    rogue = Offer("10.0.0.9", "10.0.0.60", "pxelinux.0", False)
    proxy = Offer("10.0.0.8", "", "", True)
    own = {"10.0.0.2"}
    assert [c.status for c in doctor.check_offers("eth0", [site, ours], own)] == [Status.OK]
    assert [c.status for c in doctor.check_offers("eth0", [ours], own)] == [Status.WARN]
    found = list(doctor.check_offers("eth0", [site, rogue, proxy], own))
    assert [c.status for c in found] == [Status.OK, Status.WARN, Status.WARN]
    assert found[1].text == '10.0.0.9 tells machines to load "pxelinux.0"'
    assert found[2].text == "10.0.0.8 calls itself a PXE server"


def test_the_question_is_what_a_uefi_machine_asks() -> None:
    packet = dhcp.parse(discover(b"abcd", b"\x02\0\0\0\0\1").pack())
    assert packet.message == dhcp.DISCOVER
    assert packet.option(dhcp.OPT_ARCH) == b"\0\7"
    assert packet.flags == dhcp.BROADCAST


def test_the_facts_of_an_offer() -> None:
    options = ((dhcp.OPT_MESSAGE_TYPE, b"\2"), (dhcp.OPT_SERVER_ID, bytes((10, 0, 0, 9))), (60, b"PXEClient"))
    packet = dhcp.Packet(dhcp.BOOTREPLY, b"abcd", bytes(6), options, siaddr="10.0.0.7", file=b"pxelinux.0")
    assert offer_of(packet) == Offer("10.0.0.9", "", "pxelinux.0", True, "10.0.0.7")


def test_a_signed_grub_needs_the_site_s_next_server() -> None:
    ours = Offer("10.0.0.2", "", "shimx64.efi", True, "10.0.0.2")

    def told(next_server: str) -> list[doctor.Check]:
        return list(doctor.check_next_server(ETH0, [Offer("10.0.0.1", "10.0.0.50", "", False, next_server), ours]))

    assert told("10.0.0.2") == []
    for other, named in (("", "no server"), ("10.0.0.1", "10.0.0.1")):
        (found,) = told(other)
        assert (found.status, found.text) == (Status.WARN, f"10.0.0.1 names {named} as next-server")
        assert "set next-server to 10.0.0.2" in found.fix


def test_a_kernel_without_a_signature_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    build(tmp_path, "web")
    (found,) = doctor.check_signatures(store)
    assert (found.status, found.text.startswith("the kernel of web@")) == (Status.WARN, True)
