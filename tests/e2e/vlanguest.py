"""Runs inside the virtual machine of `vlanlab`, whose kernel knows VLANs: a switch, a trunk to the server, machines.

    sw   a bridge that filters VLANs: 1 untagged, 10, 20, 30, 40
    srv  the server, on a trunk: eth0 10.77.0.2, eth0.10, eth0.20, eth0.30 up without an address; none for VLAN 40
    raw  another one, which captures what comes to its eth0 and eth0.10
    lan  the site's DHCP server, on a trunk, an address in every VLAN
    cli  a host on a trunk, an interface of each VLAN: where simulated machines say they are
    m10  a host on an access port of VLAN 10: it knows of no tags

What was seen goes to the file named by the argument, as JSON; the tests judge it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servelab import within
from simnet import Boots, Host

from pxeserver import config
from pxeserver.config import Config, Dhcp, Server
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder
from pxeserver.local import netlab
from pxeserver.local.doctor_dhcp import ask

TAGS = (10, 20, 30, 40)
UNTAGGED = 0
OWN = {UNTAGGED: "10.77.0.2", 10: "10.77.10.2", 20: "10.77.20.3"}
RAW = {UNTAGGED: "10.77.0.6", 10: "10.77.10.6"}
LATER = {30: "10.77.30.2", 40: "10.77.40.2"}  # what the server is given while it runs
MACS = {tag: f"52:54:00:77:05:{tag:02}" for tag in (UNTAGGED, 10, 20, 30)}


def device(tag: int) -> str:
    return f"eth0.{tag}" if tag else "eth0"


class Trunks(netlab.Lab):
    """The network above, in place of the plain one."""

    dhcp = tuple(f"--dhcp-range=10.77.{tag}.100,10.77.{tag}.199,255.255.255.0,1h" for tag in (UNTAGGED, *TAGS))

    def _build(self) -> None:
        for role in netlab.ROLES:
            subprocess.run(["ip", "netns", "add", self.namespace(role)], check=True)
            self.ip(role, "link", "set", "lo", "up")
        bridge = ("type", "bridge", "forward_delay", "0", "mcast_snooping", "0", "vlan_filtering", "1")
        self.ip("sw", "link", "add", "br0", *bridge)
        self.ip("sw", "link", "set", "br0", "up")
        for role, tags in (("srv", TAGS[:3]), ("raw", TAGS[:1]), ("lan", TAGS), ("cli", TAGS)):
            self.attach(role)
            for tag in TAGS:
                self.vlan("add", role, tag)
            for tag in tags:
                self.tagged(role, tag)
        self.attach("m10", "10.77.10.4")
        self.vlan("del", "m10", 1)
        self.vlan("add", "m10", 10, "pvid", "untagged")
        every = (UNTAGGED, *TAGS)
        hosts = {"lan": {tag: f"10.77.{tag}.1" for tag in every}, "cli": {tag: f"10.77.{tag}.9" for tag in every}}
        for role, addresses in {**hosts, "srv": OWN, "raw": RAW}.items():
            for tag, address in addresses.items():
                self.ip(role, "addr", "add", f"{address}/24", "dev", device(tag))
        self._start_dhcp()

    def vlan(self, verb: str, port: str, tag: int, *how: str) -> None:
        words = ["bridge", "-n", self.namespace("sw"), "vlan", verb, "dev", port, "vid", str(tag), *how]
        subprocess.run(words, check=True)

    def tagged(self, role: str, tag: int) -> None:
        """An interface of its own for the frames of a VLAN."""
        self.ip(role, "link", "add", "link", "eth0", "name", device(tag), "type", "vlan", "id", str(tag))
        self.ip(role, "link", "set", device(tag), "up")

    def ns(self, name: str) -> str:
        """As `simnet` asks for it; its `srv` is whatever server is to be started."""
        return self.namespace(name)

    def offers(self, *tags: int) -> dict[str, list[dict[str, Any]]]:
        """What a machine's DISCOVER brings in each of these VLANs, asked at once: tag -> offers without an address."""

        def one(tag: int) -> list[dict[str, Any]]:
            found = within(self.namespace("cli"), lambda: ask(device(tag)))
            return sorted((asdict(offer) for offer in found if not offer.hands_out), key=lambda one: one["server"])

        with ThreadPoolExecutor() as pool:
            return dict(zip(map(str, tags), pool.map(one, tags), strict=True))


class Raw:
    """The other server's place in the network, where `simnet` looks for the one."""

    def __init__(self, lab: Trunks) -> None:
        self.lab = lab

    def ns(self, name: str) -> str:
        return self.lab.namespace("raw" if name == "srv" else name)


def captures(data: Path) -> Config:
    """The configuration of the server that shares port 67 with whoever has it."""
    names = ("eth0", device(10))
    return Config(server=Server(data=str(data), interfaces=names), dhcp=Dhcp(mode="raw"))


def boots(lab: Trunks, host: Host, tag: int, firmware: str, where: str, interface: str) -> dict[str, Any]:
    """One simulated machine, from power-on to its kernel, and what the server told it."""
    words = ["simulate", "--firmware", firmware, "--mac", MACS[tag], "--interface", interface, "--lease", "--up"]
    done = host.run(*words, where=where)
    with closing(open_fleet(config.load(host.file, environ={}))) as fleet:

        def known() -> tuple[Any, ...]:
            events = fleet.events(MACS[tag], limit=1000)
            return events if any(event.kind == "up" for event in events) else ()

        # what happened is written down behind the machine's back
        events = netlab.wait_until(known, 30, "the record of a boot") if done.returncode == 0 else ()
    return {
        "exit": done.returncode,
        "said": done.stdout + done.stderr,
        "told": sorted({event.data["own_ip"] for event in events if event.kind == "offer"}),
        "peers": sorted({event.peer.partition(":")[0] for event in events if event.kind in ("script", "kernel")}),
    }


def see(lab: Trunks) -> Iterator[tuple[str, Any]]:
    """Everything the tests want to know, in the order in which it happens."""
    (lab.folder / "srv").mkdir()
    host = Host(lab, lab.folder / "srv", server={"data": str(lab.folder / "srv/data")})
    with closing(host):
        yield "started", (host.folder / "serve.log").read_text()
        with closing(Boots(Raw(lab), captures(lab.folder / "raw"))) as raw:
            yield "offers", lab.offers(UNTAGGED, *TAGS)
            yield "captured", dict(raw.server.dhcp.counts)
        with closing(open_fleet(config.load(host.file, environ={}))) as fleet:
            fleet.assign(tuple(MACS.values()), AssignOrder("web"))
        yield "untagged", boots(lab, host, UNTAGGED, "bios", "cli", "eth0")
        yield "access", boots(lab, host, 10, "edk2", "m10", "eth0")
        yield "tagged", boots(lab, host, 20, "http", "cli", device(20))
        yield "log", (host.folder / "serve.log").read_text()
        yield "doctor", json.loads(host.run("doctor", "-o", "json").stdout)
        lab.tagged("srv", 40)
        for tag, address in LATER.items():
            lab.ip("srv", "addr", "add", f"{address}/24", "dev", device(tag))
        time.sleep(2)  # the server hears of it by netlink
        yield "later", lab.offers(*LATER)


def main(out: str) -> None:
    seen: dict[str, Any] = {}
    try:
        with Trunks(Path("/lab")) as lab:
            for what, value in see(lab):
                seen[what] = value
                print(time.monotonic(), what, flush=True)
    except BaseException:
        seen["broken"] = traceback.format_exc()
        for log in sorted(Path("/lab").rglob("*.log")):
            seen["broken"] += f"\n{log}:\n{log.read_text(errors='replace')[-2000:]}"
    Path(out).write_text(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
