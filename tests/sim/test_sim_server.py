"""Simulated machines on a real wire: from our own server, whole and with loss, from dnsmasq, from broken servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from fleetlab import build
from servelab import Loop
from simlab import DIRECT, Proxy, Tftp, program
from simnet import CLIENT, SERVER, Behind, Boots, Net, Web

from pxeserver.checked import replace
from pxeserver.config import Boot, Config, Dhcp, Http, Server
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Result, Stage
from pxeserver.sim.effects import Say
from pxeserver.sim.faults import Faults
from pxeserver.sim.firmware import FIRMWARE, NAMES
from pxeserver.sim.machine import Machine, Outcome
from pxeserver.sim.packets import Card
from pxeserver.sim.run import Way, simulate

pytestmark = pytest.mark.server

LOADERS = {
    "undionly.kpxe": b"\xea" * 70_001,
    "snponly.efi": program(size=150_000),
    "snponly-arm64.efi": program(0xAA64, 150_001),
    "start4.elf": b"\x7fELF" * 500,
    "config.txt": b"armstub=RPI_EFI.fd\n",
    "RPI_EFI.fd": b"efi" * 700,
}
ARM = ("edk2-arm64", "http-arm64", "uboot", "rpi")
PACE = 4.0  # the machines' clocks run faster than ours


def card(name: str) -> Card:
    return Card.of(f"{FIRMWARE[name].oui}:00:00:{list(FIRMWARE).index(name) + 1:02x}")


Booted = dict[str, tuple[Outcome, str]]


def switch_on(net: Net, names: tuple[str, ...], way: Way, where: str = "cli", **machine: Any) -> Booted:
    """All at once; outcome and story of each. They try three times: U-Boot waits 100 ms for a proxy, here 25."""
    machine.setdefault("tries", 3)
    faults, pace = machine.pop("faults", Faults()), machine.pop("pace", PACE)

    async def one(name: str) -> tuple[Outcome, str]:
        story: list[str] = []

        def watch(at: float, say: Say) -> None:
            story.append(f"{at:6.2f} {say.stage}: {say.text}")

        made = Machine(FIRMWARE[name], card(name), **machine)
        outcome = await simulate(made, way, faults=faults, watch=watch, pace=pace)
        return outcome, "\n".join(story)

    async def all_of_them() -> Booted:
        if not way.parallel and not way.interface:
            return {name: await one(name) for name in names}
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    booted: Booted = net.within(where, lambda: asyncio.run(all_of_them()))
    return booted


@pytest.fixture
def boots(net: Net, tmp_path: Path) -> Generator[Boots, None, None]:
    """Our server, with a machine and an image for every firmware."""
    config = Config(
        server=Server(data=str(tmp_path), interfaces=("eth0",)),
        boot=Boot(loaders={"arm64": "snponly-arm64.efi", "rpi": "start4.elf"}),
    )
    (tmp_path / "loaders").mkdir()
    for name, content in LOADERS.items():
        (tmp_path / "loaders" / name).write_bytes(content)
    build(tmp_path, "web")
    build(tmp_path, "db", arch="arm64")
    made = Boots(net, config)
    for name in FIRMWARE:
        made.fleet.add_machine(MachineEdit(name=name, macs=(card(name).mac,)))
        made.fleet.assign([name], AssignOrder("db" if name in ARM or name == "ipxe-arm64" else "web"))
    until(lambda: made.server.site.view.generation == made.fleet.generation())
    yield made
    made.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def check(booted: Booted) -> None:
    for name, (outcome, story) in booted.items():
        assert outcome.result == "booted", f"{name}\n{story}"
        kernel, initrd, own = outcome.got[-3:]
        assert (kernel.stage, initrd.stage) == ("kernel", "initrd"), story
        assert own.name.endswith("config.cpio"), story  # the machine has a name
        assert kernel.digest and initrd.digest, story
        assert "pxeserver.url=" in outcome.cmdline


def test_every_firmware_boots_from_our_server_with_a_lease_of_its_own(net: Net, boots: Boots) -> None:
    names = tuple(FIRMWARE)
    booted = switch_on(net, names, Way(interface="eth0", lease=True), report=True)
    check(booted)
    leased = net.leases.read_text()
    for name, (_, story) in booted.items():
        assert "takes a lease" in story and "back to" in story
        assert card(name).mac not in leased, "the lease was given back"
    until(lambda: len([b for b in boots.fleet.boots(limit=99) if b.result is Result.UP]) == len(names))
    stages = {record.name: set(record.stages) for record in boots.fleet.boots(limit=99)}
    assert all(stages[name] >= {Stage.OFFER, Stage.SCRIPT, Stage.KERNEL, Stage.INITRD} for name in names)
    assert Stage.LOADER in stages["bios"] and Stage.LOADER in stages["edk2"] and Stage.LOADER in stages["http"]


def test_every_firmware_boots_over_a_network_that_loses_one_of_twenty(net: Net, boots: Boots) -> None:
    faults = Faults(loss=0.05, duplicate=0.02, reorder=0.05, delay=0.002)
    check(switch_on(net, NAMES, Way(interface="eth0", lease=True), faults=faults))


def test_without_a_lease_no_address_is_taken_and_that_is_said(net: Net, boots: Boots) -> None:
    booted = switch_on(net, ("bios", "edk2"), Way(interface="eth0"))
    check(booted)
    for _, story in booted.values():
        assert "takes no lease: 10.77.0.1" in story and f"goes on as {CLIENT}" in story
    assert "02:51:4d" not in net.leases.read_text()


def test_every_firmware_boots_from_behind_a_relay(net: Net, boots: Boots) -> None:
    check(switch_on(net, NAMES, Way(server=SERVER)))


@pytest.mark.parametrize("mode", ["proxy", "raw"])
def test_every_firmware_boots_by_the_servers_own_loopback(net: Net, boots: Boots, mode: str) -> None:
    """Named interfaces do not shut it out; in raw mode neither."""
    if mode == "raw":
        config = replace(boots.config, dhcp=Dhcp(mode="raw"))
        boots.close()
        boots.__init__(net, config)  # type: ignore[misc]
    check(switch_on(net, NAMES, Way(), "srv"))


def test_a_storm_is_let_in_by_turns_and_everybody_boots(net: Net, boots: Boots) -> None:
    """Twelve machines, two places: who is told to wait asks again by itself, until all are up."""
    config = replace(boots.config, http=Http(transfers_max=2))
    boots.close()
    boots.__init__(net, config)  # type: ignore[misc]
    names = ("bios", "edk2", "ipxe-rom", "http") * 3
    cards = [Card.of(f"02:51:4d:00:01:{n:02x}") for n in range(len(names))]
    for n, one in enumerate(cards):
        boots.fleet.add_machine(MachineEdit(name=f"storm-{n}", macs=(one.mac,)))
        boots.fleet.assign([f"storm-{n}"], AssignOrder("web"))
    until(lambda: boots.server.site.view.generation == boots.fleet.generation())

    async def everybody() -> list[Outcome]:
        pairs = zip(names, cards, strict=True)
        machines = [Machine(FIRMWARE[name], one, 3, 600.0, report=True) for name, one in pairs]
        return await asyncio.gather(*(simulate(machine, Way(), pace=PACE) for machine in machines))

    outcomes = net.within("srv", lambda: asyncio.run(everybody()))
    assert [outcome.result for outcome in outcomes] == ["booted"] * len(names), outcomes
    until(lambda: sum(boot.result is Result.UP for boot in boots.fleet.boots(limit=99)) == len(names))
    assert boots.server.gate.counts["let-in"] == len(names)
    assert boots.server.gate.counts["told-to-wait"] > 0
    told = [event for event in boots.fleet.events(limit=1000) if event.kind == "queued"]
    assert told and all(int(event.data["seconds"]) >= 1 for event in told)


# --- a real peer ---


@pytest.fixture
def peer(net: Net, tmp_path: Path) -> Generator[Path, None, None]:
    """dnsmasq as proxyDHCP and TFTP server, as its manual shows it, and files by plain HTTP."""
    for name, content in LOADERS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "vmlinuz").write_bytes(b"kernel" * 500)
    (tmp_path / "initrd.img").write_bytes(b"initrd" * 5000)
    (tmp_path / "boot.ipxe").write_text("#!ipxe\nkernel vmlinuz quiet || exit 1\ninitrd initrd.img\nboot\n")
    web = Web(net, tmp_path)
    url = f"http://{SERVER}/boot.ipxe"
    kinds = ("x86PC", "X86-64_EFI", "BC_EFI")
    files = ("undionly.kpxe", "snponly.efi", "snponly.efi")
    dnsmasq = net.dnsmasq(
        *("srv", "--dhcp-userclass=set:ipxe,iPXE", "--dhcp-range=10.77.0.0,proxy,255.255.255.0"),
        *("--enable-tftp", f"--tftp-root={tmp_path}", "--dhcp-leasefile=/dev/null"),
        *(f"--pxe-service=tag:!ipxe,{kind},net,{file}" for kind, file in zip(kinds, files, strict=True)),
        *(f"--pxe-service=tag:ipxe,{kind},net,{url}" for kind in kinds),
    )
    yield tmp_path
    net.stop(dnsmasq)
    web.close()


def test_firmware_boots_from_dnsmasq_too(net: Net, peer: Path) -> None:
    booted = switch_on(net, ("bios", "ipxe-rom", "ipxe", "edk2", "edk2-2016"), Way(interface="eth0", lease=True))
    for name, (outcome, story) in booted.items():
        assert (outcome.result, outcome.cmdline) == ("booted", "quiet"), f"{name}\n{story}"
        assert [got.size for got in outcome.got[-2:]] == [3000, 30_000]
    assert "menu" in booted["bios"][1] and "4011" in booted["edk2"][1]


def test_dnsmasq_never_answers_http_boot(net: Net, peer: Path) -> None:
    outcome, story = switch_on(net, ("http",), Way(interface="eth0", lease=True), pace=60, tries=1)["http"]
    assert (outcome.result, outcome.stage) == ("failed", "dhcp"), story
    assert "nothing about booting" in outcome.why


# --- servers broken on purpose ---

FILES = {"bios": "undionly.kpxe", "efi": "snponly.efi", "ipxe": f"http://{SERVER}/boot.ipxe", "http": ""}
BROKEN: list[tuple[str, str, dict[str, Any], dict[str, bytes], str, str]] = [
    ("no 60", "ipxe-rom", {"no": frozenset({"60"})}, {}, "dhcp", "no PXEClient"),
    ("no 54", "edk2", {"no": frozenset({"54"})}, {}, "dhcp", "no option 54"),
    ("nobody on 4011", "edk2", {"silent_4011": True}, {}, "4011", "no answer"),
    ("option 43", "edk2-2016", {"vendor": DIRECT}, {}, "dhcp", "drops proxy offers"),
    ("4011 from another port", "ipxe-rom", {"only_4011": True, "port_4011": 4040}, {}, "4011", "not 4011"),
    ("no loader", "bios", {}, {"undionly.kpxe": b""}, "loader", "empty"),
    ("the wrong loader", "edk2", {}, {"snponly.efi": program(0xAA64)}, "loader", "ARM 64-bit"),
    ("no script", "bios", {}, {}, "script", "no connection"),
]


@pytest.mark.parametrize(
    ("firmware", "proxy", "files", "stage", "words"), [pytest.param(*row[1:], id=row[0]) for row in BROKEN]
)
def test_a_broken_server_is_told_what_is_broken(
    net: Net, firmware: str, proxy: dict[str, Any], files: dict[str, bytes], stage: str, words: str
) -> None:
    server = Behind(net, Proxy(files=FILES, own=SERVER, **proxy), Tftp({**LOADERS, **files}, own=SERVER))
    pace = 30 if stage in ("dhcp", "4011") else PACE
    try:
        outcome, story = switch_on(net, (firmware,), Way(interface="eth0", lease=True), pace=pace, tries=1)[firmware]
    finally:
        server.close()
    assert (outcome.result, outcome.stage) == ("failed", stage), story
    assert words in outcome.why, story


def test_loops_of_tests_run_in_namespaces(net: Net) -> None:
    """What the other tests rely on: `within` sees the namespace, and only there."""
    loop = Loop(net.ns("srv"))
    loop.stop()
    names = net.within("cli", lambda: Path("/proc/net/dev").read_text())
    assert "eth0" in names
