"""`pxeserver simulate` and `pxeserver selftest` as a person runs them beside a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator

import pytest
from click.testing import CliRunner
from simnet import SERVER, Host, Net

from pxeserver.cli.main import cli
from pxeserver.sim.firmware import NAMES
from pxeserver.sim.selftest import PREFIX, mac_for

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def host(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Generator[Host, None, None]:
    made = Host(net, tmp_path_factory.mktemp("host"))
    yield made
    made.close()


def test_selftest_says_what_each_firmware_got(host: Host) -> None:
    done = host.run("selftest", "-o", "json")
    rows = {row["firmware"]: row for row in json.loads(done.stdout)}
    assert list(rows) == list(NAMES)
    assert done.returncode == 0, done.stdout + done.stderr
    x86 = ("edk2", "edk2-2016", "http", "bios", "ipxe-rom", "ipxe")
    assert {name: rows[name]["result"] for name in x86} == dict.fromkeys(x86, "ok")
    assert [got.split()[0] for got in rows["bios"]["got"]] == ["undionly.kpxe", "kernel", "initrd.img", "config.cpio"]
    for name in ("edk2-arm64", "http-arm64", "uboot", "rpi"):
        assert (rows[name]["result"], rows[name]["got"]) == ("not set up", [])
        assert "set boot.loaders." in rows[name]["why"]
    machines = json.loads(host.run("machines", "ls", "--all", "-o", "json").stdout)
    assert not [row for row in machines if row["name"].startswith(PREFIX)], "taken away again"
    boots = json.loads(host.run("boots", "-o", "json").stdout)
    assert {boot["result"] for boot in boots if boot["mac"] == mac_for_name("bios")} == {"up"}


def mac_for_name(name: str) -> str:
    from pxeserver.sim.firmware import FIRMWARE

    return mac_for(FIRMWARE[name])


def test_a_table_for_people_and_steps_for_the_curious(host: Host) -> None:
    done = host.run("selftest", "bios", "ipxe", "-v")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["FIRMWARE", "RESULT", "SECONDS", "GOT", "WHY"]
    assert lines[1].split()[:2] == ["bios", "ok"] and lines[2].split()[:2] == ["ipxe", "ok"]
    assert "bios: loader: undionly.kpxe: 70001 bytes by TFTP" in done.stderr


def test_a_broken_server_is_a_failure_with_its_reason(host: Host) -> None:
    loader = host.folder / "data/loaders/snponly.efi"
    whole = loader.read_bytes()
    loader.write_bytes(b"<html>404</html>")
    try:
        done = host.run("selftest", "edk2-2016", "bios", "-o", "json")
    finally:
        loader.write_bytes(whole)
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)
    assert (good["result"], bad["result"]) == ("ok", "failed")
    assert bad["why"] == "loader: snponly.efi would not start: it is no EFI program"


def test_from_another_host_behind_a_relay(host: Host) -> None:
    """No fleet there to put machines into: an unknown machine waits for an image."""
    done = host.run("selftest", "bios", "ipxe-rom", "--server", SERVER, "-o", "json", where="cli")
    rows = json.loads(done.stdout)
    assert (done.returncode, [row["result"] for row in rows]) == (0, ["waits", "waits"]), done.stdout + done.stderr
    assert "waits for an image" in rows[0]["why"]


def test_nobody_answers(host: Host) -> None:
    done = host.run("selftest", "bios", "--server", "10.77.0.9", where="cli")
    assert done.returncode == 1
    assert "nobody answers at 10.77.0.9" in done.stderr


def test_simulate_prints_each_step(host: Host) -> None:
    mac = "02:51:4d:aa:00:01"
    assert host.run("machines", "add", "sim-1", mac).returncode == 0
    assert host.run("assign", "sim-1", "web").returncode == 0
    done = host.run("simulate", "--firmware", "bios", "--mac", mac, "--tries", "3", "--loss", "5", "--up")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *steps, last = done.stdout.splitlines()
    assert first == f"{mac}: PXE ROM without iPXE, BIOS, behind a relay, from 127.0.0.1"
    assert last.startswith("booted with undionly.kpxe 68.4 KiB, kernel 10 B, initrd.img 12 B")
    stages = [step.split()[2] for step in steps]
    assert [stage for stage in dict.fromkeys(stages) if stage != "note"][:3] == ["discover", "offer", "loader"]
    assert stages[-3:] == ["network", "containerd", "up"]
    assert any("digest right" in step for step in steps)


def test_simulate_on_a_wire_takes_no_lease_without_saying_so(host: Host, net: Net) -> None:
    mac = "02:51:4d:aa:00:02"
    done = host.run("simulate", "--firmware", "ipxe-rom", "--mac", mac, "--interface", "eth0", where="cli")
    assert done.returncode == 1 and "told to wait" in done.stdout, done.stdout + done.stderr
    assert "takes no lease" in done.stdout and mac not in net.leases.read_text()
    words = ("simulate", "--firmware", "ipxe-rom", "--mac", mac, "--interface", "eth0", "--lease")
    done = host.run(*words, where="cli")
    assert "takes a lease: 10.77.0." in done.stdout and "back to 10.77.0.1" in done.stdout
    addresses = subprocess.run(["ip", "-n", net.ns("cli"), "address"], capture_output=True, text=True, check=True)
    assert "/32" not in addresses.stdout


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (("--interface", "nosuch0"), "no-interface"),
        (("--server", "example"), "bad-address"),
        (("--lease",), "lease-where"),
        (("--mac", "x"), "bad-mac"),
    ],
)
def test_what_cannot_be_simulated_says_why(words: tuple[str, ...], slug: str) -> None:
    done = CliRunner().invoke(cli, ["simulate", *words])
    assert done.exit_code == 2 and f"error[{slug}]" in done.stderr
