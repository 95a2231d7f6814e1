"""Machines of every kind boot beside a foreign DHCP server, two at a time, from power-on to their service's page."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pxeserver.fleet.values import BootRecord
from pxeserver.local import netlab, qemu
from pxeserver.mac import mac_from_bytes
from pxeserver.model import STAGES, Event, Result, Stage
from pxeserver.wire import dhcp

BOOT_SECONDS = 420
AT_ONCE = 2  # QEMU in software takes a core each


@dataclass(frozen=True)
class Case:
    """A machine of the module's site, the spec it is given and the loader it is pinned to."""

    name: str
    hardware: qemu.Hardware
    spec: str = "web"
    loader: str = ""


CASES = (
    Case("bios", qemu.Hardware(mac="52:54:00:77:01:01")),
    Case("other", qemu.Hardware(mac="52:54:00:77:01:02"), spec="other"),
    Case("uefi", qemu.Hardware(mac="52:54:00:77:01:03", uefi=True, rom="")),
    Case("chain", qemu.Hardware(mac="52:54:00:77:01:04"), loader="undionly.kpxe"),
)


@dataclass(frozen=True)
class Outcome:
    record: BootRecord
    events: tuple[Event, ...]
    page: str
    console: str


@dataclass(frozen=True)
class Day:
    """What happened on the site, each machine having been up once."""

    outcomes: dict[str, Outcome]
    leases: dict[str, set[str]]  # MAC -> addresses
    switched_on: dict[str, float]
    sent: list[dhcp.Packet]  # what our server answered by DHCP


@pytest.fixture(scope="module")
def day(open_site: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Power the machines on in turn, AT_ONCE of them at a time; each goes off when it is up and showed its page."""
    with open_site(tmp_path_factory.mktemp("day")) as site:
        for case in CASES:
            site.cli("machines", "add", case.name, case.hardware.mac)
            site.cli("assign", case.name, case.spec)
            if case.loader:
                site.cli("pin", case.name, f"loader={case.loader}")
        capture = site.lab.folder / "sent.pcap"
        ours = f"src host {netlab.SERVER_ADDRESS} and udp and (src port 67 or src port 4011)"
        sniffer = site.lab.spawn(
            "srv", ["tcpdump", "-U", "-Z", "root", "-i", "eth0", "-w", str(capture), ours], "tcpdump"
        )
        netlab.wait_until(lambda: "listening on" in site.lab.log("tcpdump"), 20, "the capture")
        outcomes: dict[str, Outcome] = {}
        switched_on: dict[str, float] = {}
        waiting, on = list(CASES), dict[str, qemu.Machine]()
        while waiting or on:
            while waiting and len(on) < AT_ONCE:
                case = waiting.pop(0)
                on[case.name] = qemu.Machine(site.lab, case.name, case.hardware).__enter__()
                switched_on[case.name] = on[case.name].started
            for name, machine in list(on.items()):
                record = site.boot_of(machine)
                if record is not None and record.stage is Stage.UP:
                    page = site.page(machine)
                    outcomes[name] = Outcome(
                        record, site.fleet.events(boot=record.id, limit=1000), page, machine.console
                    )
                    on.pop(name).__exit__()
                elif time.time() - machine.started > BOOT_SECONDS:
                    pytest.fail(f"{name} did not come up\n{site.story(machine)}", pytrace=False)
            time.sleep(0.2)
        netlab.stop(sniffer)
        leases = defaultdict(set)
        for lease in site.lab.leases():
            leases[lease.mac].add(lease.address)
        yield Day(outcomes, leases, switched_on, [dhcp.parse(raw[42:]) for raw in frames(capture)])


def frames(capture: Path) -> Iterator[bytes]:
    """The frames of a pcap file; 42 bytes of Ethernet, IP and UDP stand before the payload."""
    data, at = capture.read_bytes(), 24
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], sys.byteorder)
        yield data[at + 16 : at + 16 + size]
        at += 16 + size


def stages(record: BootRecord) -> list[Stage]:
    return sorted(record.stages, key=STAGES.index)


def test_bios_with_the_card_s_own_rom(day: Day) -> None:
    record = day.outcomes["bios"].record
    assert record.result is Result.UP
    assert stages(record) == [s for s in STAGES if s is not Stage.LOADER]  # its ROM is an iPXE: no loader needed
    times = [record.stages[s].at for s in stages(record)]
    assert times == sorted(times)


def test_bios_chained_to_our_own_ipxe(day: Day) -> None:
    outcome = day.outcomes["chain"]
    assert outcome.record.result is Result.UP
    assert stages(outcome.record) == list(STAGES)
    assert outcome.record.loader == "undionly.kpxe"
    assert outcome.record.stages[Stage.LOADER].count == 1  # recognised when it came back: no loop


def test_uefi_by_pxe(day: Day) -> None:
    outcome = day.outcomes["uefi"]
    assert outcome.record.result is Result.UP
    assert stages(outcome.record) == list(STAGES)
    assert outcome.record.loader == "snponly.efi"


def test_two_machines_at_once_get_each_their_own_spec(day: Day) -> None:
    bios, other = day.outcomes["bios"], day.outcomes["other"]
    assert (bios.record.spec, other.record.spec) == ("web", "other")
    assert bios.record.image != other.record.image
    assert bios.page != other.page
    assert "<h1>other</h1>" in other.page
    # they were on at the same time
    assert day.switched_on["other"] < bios.record.stages[Stage.UP].at


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_service_answers_over_the_network(day: Day, name: str) -> None:
    assert "<" in day.outcomes[name].page


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_every_file_is_an_event_with_bytes_and_peer(day: Day, name: str) -> None:
    record = day.outcomes[name].record
    for stage in (Stage.SCRIPT, Stage.KERNEL, Stage.INITRD):
        entry = record.stages[stage]
        assert entry.bytes > 0, stage
        assert entry.peer.startswith("10.77.0.1"), stage


def test_every_address_is_the_foreign_server_s(day: Day) -> None:
    for case in CASES:
        record = day.outcomes[case.name].record
        peers = {entry.peer.partition(":")[0] for stage, entry in record.stages.items() if stage is not Stage.OFFER}
        assert peers <= day.leases[case.hardware.mac], case.name


def test_nothing_that_we_sent_carries_an_address(day: Day) -> None:
    assert {mac_from_bytes(packet.chaddr) for packet in day.sent} == {case.hardware.mac for case in CASES}
    assert {packet.yiaddr for packet in day.sent} == {"0.0.0.0"}
