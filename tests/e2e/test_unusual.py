"""What does not go smoothly: nobody assigned, too little memory, a loader that gives up, clients that are not ours."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pxeserver.local import netlab, qemu
from pxeserver.model import Result, Stage

# A network boot program in 16-bit code that says so and returns to the firmware instead of booting anything.
RETURNS = (
    bytes.fromhex("be137c fc 2eac 84c0 7406 b40e cd10 ebf4 31c0 cb") + b"\r\nthis loader gives up\r\n\0" + bytes(64)
)


def mac_in(site: Any, role: str) -> str:
    """The MAC of a namespace's eth0."""
    return json.loads(site.lab.ip(role, "-j", "link", "show", "eth0"))[0]["address"]


def test_an_unassigned_machine_is_listed_waits_and_boots_the_moment_it_is_assigned(site: Any) -> None:
    machine = site.switch_on("waiting", qemu.Hardware(mac="52:54:00:77:02:01"))
    waiting = site.wait_for(machine, "script", lambda record: record.stage is Stage.SCRIPT)
    (row,) = site.cli("machines", "ls", "--all")
    assert (row["mac"], row["known"], row["state"]) == (machine.hardware.mac, False, "waiting")
    netlab.wait_until(lambda: machine.hardware.mac in machine.console, 30, "the script that shows its MAC")
    site.cli("assign", machine.hardware.mac.replace(":", "-").upper(), "web")
    up = site.wait_up(machine)
    assert up.id == waiting.id  # without a power cycle it is still the same boot
    assert machine.console.count("SeaBIOS (version") == 1
    assert "<" in site.page(machine)


def test_too_little_memory_is_reported_as_an_initrd_cut_short(site: Any) -> None:
    site.cli("machines", "add", "small", "52:54:00:77:02:02")
    site.cli("assign", "small", "web")
    machine = site.switch_on("small", qemu.Hardware(mac="52:54:00:77:02:02", memory_mib=256))
    record = site.wait_for(machine, "cause", lambda record: record.cause is not None)
    assert record.cause.slug == "initrd-cut-short"
    assert "initrd cut short" in record.cause.text
    assert record.result is not Result.UP


def test_a_loader_that_returns_is_named_within_two_cycles(site: Any, tmp_path: Path) -> None:
    (tmp_path / "returns.kpxe").write_bytes(RETURNS)
    site.cli("loaders", "add", str(tmp_path / "returns.kpxe"))
    site.cli("machines", "add", "loop", "52:54:00:77:02:03")
    site.cli("assign", "loop", "web")
    site.cli("pin", "loop", "loader=returns.kpxe")
    machine = site.switch_on("loop", qemu.Hardware(mac="52:54:00:77:02:03"))
    record = site.wait_for(machine, "cause", lambda record: record.cause is not None)
    assert record.cause.slug == "loader-loop"
    assert "returns.kpxe" in record.cause.text
    assert machine.console.count("this loader gives up") <= 2


def test_a_client_that_does_not_boot_from_the_network_sees_no_packet_of_ours(site: Any) -> None:
    site.lab.attach("cli")
    capture = site.lab.folder / "cli.pcap"
    sniffer = site.lab.spawn(
        "cli", ["tcpdump", "-i", "eth0", "-U", "-n", "-Z", "root", "-w", str(capture), "udp or arp"], "tcpdump"
    )
    netlab.wait_until(lambda: "listening on" in site.lab.log("tcpdump"), 20, "the capture")
    client = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-s", "/bin/true"]
    assert site.lab.spawn("cli", client, "udhcpc").wait(60) == 0, site.lab.log("udhcpc")
    time.sleep(2)  # longer than any answer of ours takes: an absence has no event to wait for
    netlab.stop(sniffer)
    seen = site.lab.spawn("cli", ["tcpdump", "-n", "-e", "-r", str(capture)], "seen")
    assert seen.wait(20) == 0
    lines = site.lab.log("seen").splitlines()
    ours = mac_in(site, "srv")
    assert [line for line in lines if "BOOTP/DHCP, Reply" in line], lines  # the foreign server's
    assert [line for line in lines if f" {ours} > " in line or f"{netlab.SERVER_ADDRESS}." in line] == []
    assert not site.knows(mac_in(site, "cli"))
