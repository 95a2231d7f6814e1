"""Real VLANs (802.1Q) in a virtual machine with the distribution's kernel: each is told the server's address there."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from e2e import vlanlab
from e2e.vlanguest import LATER, OWN, RAW

from pxeserver.images.store import Store
from pxeserver.local import qemu

SECONDS = 480


@pytest.fixture(scope="module")
def seen(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `vlanguest` saw, in one boot of the machine."""
    folder = tmp_path_factory.mktemp("vlan")
    store = Store(built / "store")
    base = store.resolve("docker.io/pxeserver/kernel-cloud", "amd64")
    assert base is not None
    for layer in store.read_json(base.digest)["layers"]:
        with tarfile.open(store.blob_path(layer["digest"])) as archive:
            archive.extractall(folder / "kernel", filter="data")
    kernel_tar = (folder / "kernel/kernel.tar").read_bytes()
    vlanlab.write_initrd(folder / "initrd", folder / "stage", kernel_tar, "e2e.vlanguest")
    argv = qemu.command(
        qemu.Hardware(memory_mib=1536, cpus=2, rom=""),
        netdev="user,restrict=on",
        serial=["-serial", f"file:{folder}/console", "-serial", f"file:{folder}/result"],
        folder=folder,
        kernel=qemu.Kernel(folder / "kernel/kernel", folder / "initrd", "console=ttyS0 quiet panic=-1 mitigations=off"),
    )
    subprocess.run([*argv, "-no-reboot"], timeout=SECONDS, check=True)
    console = (folder / "console").read_text(errors="replace")
    result = (folder / "result").read_text()
    assert result, console[-5000:]
    found: dict[str, Any] = json.loads(result)
    assert "broken" not in found, found["broken"] + console[-5000:]
    return found


def test_the_server_names_the_address_of_each_vlan_and_the_one_without(seen: dict[str, Any]) -> None:
    for tag, own in OWN.items():
        assert f"eth0{f'.{tag}' if tag else ''}: machines are told {own};" in seen["started"]
    assert "eth0.30: machines are told nothing (it has no IPv4 address)" in seen["started"]


@pytest.mark.parametrize(("machine", "tag"), [("untagged", 0), ("access", 10), ("tagged", 20)])
def test_a_machine_boots_from_the_servers_address_in_its_vlan(seen: dict[str, Any], machine: str, tag: int) -> None:
    found = seen[machine]
    assert found["exit"] == 0, found["said"]
    assert found["told"] == [OWN[tag]]
    assert found["peers"] and all(peer.startswith(f"10.77.{tag}.1") for peer in found["peers"])
    for name in ("kernel", "initrd.img"):
        assert name in found["said"]


def test_a_vlan_without_an_address_is_not_answered_and_named(seen: dict[str, Any]) -> None:
    assert seen["offers"]["30"] == []
    assert "eth0.30, where it asks, has no IPv4 address" in seen["log"]
    warned = [check["text"] for check in seen["doctor"] if check["status"] == "warn"]
    assert any(text.startswith("eth0.30 has no IPv4 address") for text in warned)


def test_a_vlan_that_comes_while_the_server_runs_is_answered(seen: dict[str, Any]) -> None:
    assert seen["offers"]["40"] == []
    told = {int(tag): [(one["server"], one["next_server"]) for one in offers] for tag, offers in seen["later"].items()}
    assert told == {tag: [(own, own)] for tag, own in LATER.items()}


def test_a_capture_answers_once_and_in_its_own_vlans(seen: dict[str, Any]) -> None:
    """`dhcp.mode: raw` on eth0 and eth0.10: the kernel shows eth0's listener all that is on the trunk."""
    told = {int(tag): [(one["server"], one["next_server"]) for one in offers] for tag, offers in seen["offers"].items()}
    servers = {tag: sorted(own[tag] for own in (OWN, RAW) if tag in own) for tag in told}
    assert told == {tag: [(own, own) for own in servers[tag]] for tag in told}
    assert seen["captured"]["answered"] == len(RAW)  # an answer into the wrong VLAN would be heard by nobody
