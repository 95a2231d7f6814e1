"""A server with a leg in two networks and an alias, a relay to a third network, where one machine boots by PXE and one
an image without a loader, a machine with two cards.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pxeserver.boot.request import request_of
from pxeserver.fleet.values import BootRecord
from pxeserver.local import netlab, qemu
from pxeserver.model import STAGES, Event, Result, Stage
from pxeserver.wire import dhcp

BOOT_SECONDS = 480
ALIAS, RELAY, RELAY_BEHIND = "10.77.9.2", "10.77.9.254", "10.77.1.1"
SECOND_LAN, SECOND_LEG = "10.77.2.1", "10.77.2.2"
REMOTE, IDLE, BOOTS_FROM, WHOLE = (f"52:54:00:77:03:0{n}" for n in (1, 2, 3, 4))


class Campus(netlab.Lab):
    """br0 10.77.0.0/24 with the servers; br1 10.77.1.0/24 behind a router that relays DHCP, to the site's DHCP server
    and to the alias of ours; br2 10.77.2.0/24, where the server's eth1 is."""

    ports = {"remote": "br1", "whole": "br1", "two": "br2"}  # machine -> the bridge of its card; br0 for all others

    def _build(self) -> None:
        super()._build()
        self.ip("srv", "addr", "add", f"{ALIAS}/24", "dev", "eth0")
        self._leg("srv", "br2", "eth1", SECOND_LEG)
        self.attach("rel", "10.77.0.254")
        self.ip("rel", "addr", "add", f"{RELAY}/24", "dev", "eth0")
        self._leg("rel", "br1", "eth1", RELAY_BEHIND)
        forward = self.argv("rel", ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        subprocess.run(forward, check=True)
        for role in ("lan", "srv"):
            self.ip(role, "route", "add", "10.77.1.0/24", "via", "10.77.0.254")
        relays = [f"--dhcp-relay={RELAY_BEHIND},{server}" for server in (netlab.LAN_ADDRESS, ALIAS)]
        plain = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp")
        self.spawn("rel", [*plain, "--log-facility=-", f"--pid-file={self.folder}/rel.pid", *relays], "rel")
        netlab.wait_until(lambda: "DHCP relay from" in self.log("rel"), 10, "the start of the relay")

    def _leg(self, role: str, bridge: str, device: str, address: str) -> None:
        """Another card of a host, on another bridge."""
        if f" {bridge}:" not in self.ip("sw", "link"):
            self.ip("sw", "link", "add", bridge, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            self.ip("sw", "link", "set", bridge, "up")
        port = f"{role}-{bridge}"
        self.ip("sw", "link", "add", port, "type", "veth", "peer", "name", device, "netns", self.namespace(role))
        self.ip("sw", "link", "set", port, "master", bridge, "up")
        self.ip(role, "addr", "add", f"{address}/24", "dev", device)
        self.ip(role, "link", "set", device, "up")

    def _start_dhcp(self) -> None:
        """The site's DHCP server for all three networks."""
        self._leg("lan", "br2", "eth1", SECOND_LAN)
        ranges = [
            word
            for net, router in (("10.77.0", netlab.LAN_ADDRESS), ("10.77.1", RELAY_BEHIND), ("10.77.2", SECOND_LAN))
            for word in (
                f"--dhcp-range=set:{net},{net}.100,{net}.199,255.255.255.0,1h",
                f"--dhcp-option=tag:{net},3,{router}",
            )
        ]
        plain = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp")
        files = (f"--pid-file={self.folder}/lan.pid", f"--dhcp-leasefile={self.folder}/lan.leases")
        more = ("--log-facility=-", "--no-ping", "--dhcp-authoritative")
        self.spawn("lan", [*plain, *more, *files, *ranges])
        netlab.wait_until(lambda: "DHCP, IP range 10.77.2" in self.log("lan"), 10, "the start of the DHCP server")

    def tap(self, name: str) -> str:
        super().tap(name)
        self.ip("sw", "link", "set", name, "master", self.ports.get(name, "br0"))
        return name


class TwoCards(qemu.Machine):
    """A machine whose first card has a cable too, and no ROM to boot with."""

    def __enter__(self) -> TwoCards:
        first = self.lab.tap("first")
        netdev = f"tap,ifname={self.lab.tap(self.name)},script=no,downscript=no"
        serial = ["-serial", f"file:{self.lab.folder / self.name}.serial"]
        argv = qemu.command(self.hardware, netdev=netdev, serial=serial, folder=self.lab.folder)
        card = f"virtio-net-pci,netdev=n9,mac={IDLE},romfile="
        at = argv.index("-netdev")  # before the other one, so that the kernel calls it eth0
        argv[at:at] = ["-netdev", f"tap,ifname={first},script=no,downscript=no,id=n9", "-device", card]
        self.started = time.time()
        self._process = self.lab.spawn("sw", argv, self.name)
        return self


@dataclass(frozen=True)
class Seen:
    record: BootRecord
    events: tuple[Event, ...]
    page: str
    console: str
    leases: frozenset[str]

    @property
    def told(self) -> set[str]:
        """Addresses of ours that it was given."""
        return {event.data["own_ip"] for event in self.events if event.kind == "offer"}

    @property
    def peers(self) -> set[str]:
        files = [event for event in self.events if event.kind in ("loader", "script", "kernel", "initrd", "up")]
        return {event.peer.partition(":")[0] for event in files}


@pytest.fixture(scope="module")
def campus(open_site: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    """Two machines at once, then the third; each until it is up and shows its page."""
    with open_site(tmp_path_factory.mktemp("campus"), Campus, ()) as site:
        site.cli("machines", "add", "remote", REMOTE)
        site.cli("machines", "add", "two", IDLE, BOOTS_FROM)
        site.cli("machines", "add", "whole", WHOLE)
        for name, spec in (("remote", "web"), ("two", "web"), ("whole", "other")):
            site.cli("assign", name, spec)
        site.cli("images", "uki", "other")
        hardware = {
            name: qemu.Hardware(mac=mac, uefi=True, rom="", network=network)
            for name, mac, network in (("remote", REMOTE, ""), ("whole", WHOLE, "http"))
        }
        two = site.power.enter_context(TwoCards(site.lab, "two", qemu.Hardware(mac=BOOTS_FROM)))
        seen = {}
        with qemu.Machine(site.lab, "remote", hardware["remote"]) as remote:
            seen["remote"] = observe(site, remote)
        seen["two"] = observe(site, two)
        seen["whole"] = observe(site, site.switch_on("whole", hardware["whole"]))
        idle = frozenset(lease.address for lease in site.lab.leases() if lease.mac == IDLE)
        yield seen | {"idle": idle}


def observe(site: Any, machine: qemu.Machine) -> Seen:
    """What there is to see of a machine once it is up and shows its page."""
    record = site.wait_for(machine, "up", lambda record: record.stage is Stage.UP, BOOT_SECONDS)
    return Seen(
        record,
        site.fleet.events(boot=record.id, limit=1000),
        site.page(machine),
        machine.console,
        frozenset(lease.address for lease in site.lab.leases() if lease.mac == machine.hardware.mac),
    )


def test_a_machine_behind_a_relay_comes_up(campus: dict[str, Any]) -> None:
    remote = campus["remote"]
    assert remote.record.result is Result.UP
    assert set(remote.record.stages) == set(STAGES)
    assert remote.leases and all(address.startswith("10.77.1.") for address in remote.leases)
    assert remote.peers <= remote.leases
    assert "<" in remote.page


def test_it_is_told_the_address_that_its_relay_asked(campus: dict[str, Any]) -> None:
    """The relay knows us by an alias; the primary address of that card is another one."""
    assert campus["remote"].told == {ALIAS}
    offers = [dhcp.parse(bytes.fromhex(e.data["packet"])) for e in campus["remote"].events if e.kind == "offer"]
    relayed = [packet for packet in offers if packet.message == dhcp.DISCOVER]
    assert {packet.giaddr for packet in relayed} == {RELAY_BEHIND}
    firmware = request_of(relayed[0], 67)
    assert firmware is not None and firmware.arch.code == 7
    assert any(event.data.get("port") == "4011" for event in campus["remote"].events)


def test_an_image_without_a_loader_finds_its_server_through_the_relay(campus: dict[str, Any]) -> None:
    whole = campus["whole"]
    assert whole.record.result is Result.UP
    assert sorted(whole.record.stages, key=STAGES.index) == [
        stage for stage in STAGES if stage not in (Stage.LOADER, Stage.SCRIPT)
    ]
    assert whole.told == {ALIAS}
    assert f"server: http://{ALIAS}:" in whole.console  # nothing on its command line told it
    assert "pxeserver.url=" not in whole.console
    assert whole.leases and all(address.startswith("10.77.1.") for address in whole.leases)
    assert whole.peers <= whole.leases
    assert "the-other-one" in whole.page


def test_a_machine_with_two_cards_boots_from_the_second(campus: dict[str, Any]) -> None:
    two = campus["two"]
    assert two.record.result is Result.UP
    assert (two.record.name, two.record.mac) == ("two", BOOTS_FROM)
    assert "<" in two.page
    assert campus["idle"] == frozenset()  # the system took the card that it booted from


def test_each_network_is_told_the_servers_address_there(campus: dict[str, Any]) -> None:
    assert campus["two"].told == {SECOND_LEG}
    assert campus["two"].peers <= campus["two"].leases
    assert all(address.startswith("10.77.2.") for address in campus["two"].leases)
