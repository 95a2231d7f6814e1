"""Queries a second for the names of a fleet, against dnsmasq with the same names, in alternation (root)."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import peers
from bench.lab import SERVER, Server, Wire, load_client, ours
from bench.targets import Measured, Target, median_ratio
from pxeserver.config import Config
from pxeserver.config import Server as ServerConfig
from pxeserver.fleet.fleet import open_fleet
from pxeserver.model import Event

if TYPE_CHECKING:
    from bench.__main__ import Options

MACHINES, SECONDS, ROUNDS = 1000, 2.0, 15
OUR_PORT = 5353  # dnsmasq has 53
SOCKETS, WINDOW = 4, 32
DOMAIN = "pxe.internal"

TARGETS = (
    Target("dns queries/s to dnsmasq", ">=", 0.75),
    Target("dns answers wrong or lost", "<=", 0),
)


def fill(data: Path, count: int) -> str:
    """Machines that were heard of, in a new fleet; the same as lines of a hosts file."""
    events, lines = [], []
    for n in range(count):
        address = f"10.77.{100 + n // 250}.{n % 250 + 1}"
        mac = f"52:54:00:de:{n >> 8:02x}:{n & 255:02x}"
        events.append(Event(time.time(), "note", mac, data={"ip": address}))
        lines.append(f"{address} {mac.replace(':', '-')}.{DOMAIN}\n")
    fleet = open_fleet(Config(server=ServerConfig(data=str(data))))
    try:
        fleet.record(events)
    finally:
        fleet.close()
    return "".join(lines)


def load(wire: Wire, server: Server, port: int, hosts: Path, seconds: float) -> dict[str, Any]:
    """One run of the load client; with the server's CPU seconds per 100,000 queries."""
    argv = [load_client("dnsload"), SERVER, str(port), str(hosts), f"{seconds:g}", str(SOCKETS), str(WINDOW)]
    server.mark()
    found: dict[str, Any] = json.loads(wire.client(argv))
    found["cpu_100k"] = round(server.cpu() * 100_000 / max(1, found["right"]), 3)
    return found


def measure(options: Options) -> Measured:
    """Both run all the time on one CPU and are asked in turn, the other one first in each round."""
    rounds, seconds = options.rounds or ROUNDS, max(0.5, SECONDS * options.scale)
    runs: dict[str, list[dict[str, Any]]] = {"pxeserver": [], "dnsmasq": []}
    with Wire(realtime=True) as wire:
        data = wire.folder / "data"
        data.mkdir()
        hosts = wire.folder / "hosts"
        hosts.write_text(fill(data, max(10, int(MACHINES * options.scale))))
        settings = {"dns": {"enabled": True, "port": OUR_PORT, "domain": DOMAIN}}
        servers = {
            "pxeserver": (ours(wire, data, settings), OUR_PORT),
            "dnsmasq": (peers.dnsmasq_dns(wire, hosts), 53),
        }
        for server, port in servers.values():
            load(wire, server, port, hosts, 1.0)  # everything asked for once
        for number in range(rounds):
            for name in list(runs) if number % 2 == 0 else list(runs)[::-1]:
                runs[name].append(load(wire, *servers[name], hosts, seconds))
    rates = {name: [run["rate"] for run in found] for name, found in runs.items()}
    faults = sum(run["wrong"] + run["lost"] for run in runs["pxeserver"])
    values = {
        "dns queries/s to dnsmasq": median_ratio(rates["pxeserver"], rates["dnsmasq"]),
        "dns answers wrong or lost": float(faults),
    }
    details = {name: {"median_rate": round(statistics.median(rates[name])), "runs": runs[name]} for name in runs}
    return Measured(values, rounds, peers.versions("dnsmasq"), details)
