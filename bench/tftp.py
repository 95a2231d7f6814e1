"""TFTP: throughput and CPU seconds per GiB beside dnsmasq and tftpd-hpa; a lossy path (root).

A loader of 1 MiB with blksize 1468 by every server in turn, round by round. The servers run side by side, each on its
own port, and only the one that is asked works. CPU is that of all the server's processes during the transfers; ours
counts its admin process too.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lab, peers
from bench.targets import Measured, Target, median_ratio

if TYPE_CHECKING:
    from bench.__main__ import Options

SIZE, BLKSIZE, NAME = 1 << 20, 1468, "loader"
OURS, PEERS = "pxeserver", ("dnsmasq", "tftpd-hpa")
PORTS = {OURS: 1069, "dnsmasq": 69, "tftpd-hpa": 2069}
ROUNDS, PLAIN_ROUNDS, LOSSY_ROUNDS = 15, 5, 3
DELAY_US, LOSS = 1000, 1.0  # one way; per cent, each way


@dataclass(frozen=True, slots=True)
class Case:
    """`clients` at a time until `files` are fetched, from each of `servers`."""

    name: str
    clients: int
    window: int
    files: int
    servers: tuple[str, ...] = (OURS, *PEERS)
    grouped: bool = False  # the client takes a batch as one (UDP_GRO)
    deadline: float = 120.0


WINDOW_1 = (Case("window 1, 1 client", 1, 1, 12), Case("window 1, 10 clients", 10, 1, 60))
# dnsmasq ignores windowsize: it is asked once, for the comparison. The kernel would cut our batches up for the client
# on the server's CPU, which happens behind no wire: with UDP_GRO it does not. PLAIN shows the difference.
WINDOWS = (
    Case("window 16, 200 clients", 200, 16, 400, (OURS, "dnsmasq"), grouped=True),
    Case("window 64, 200 clients", 200, 64, 400, (OURS,), grouped=True),
)
PLAIN = Case("window 16, 200 clients without UDP_GRO", 200, 16, 400, (OURS, "dnsmasq"))
LOSSY = Case("1 % loss", 8, 1, 16)

TARGETS = (
    *(Target(f"{case.name}: throughput / best peer", ">=", 1.0) for case in WINDOW_1),
    *(Target(f"{case.name}: CPU / dnsmasq", "<=", 2.0) for case in WINDOW_1),
    *(Target(f"{case.name}: throughput / dnsmasq", ">=", 4.0) for case in WINDOWS),
    *(Target(f"{case.name}: CPU s per GiB", "<=", 3.0) for case in WINDOWS),
    Target(f"{LOSSY.name}: complete", ">=", 1.0),
    Target(f"{LOSSY.name}: time of best peer / ours", ">=", 5.0),
    Target("blocks with wrong content, files not complete", "<=", 0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One server's answer to one case: what the load client said, and the CPU seconds of the server."""

    said: dict[str, Any]
    cpu: float

    @property
    def throughput(self) -> float:
        """MiB/s."""
        return float(self.said["bytes"] / self.said["seconds"]) / (1 << 20)

    @property
    def cpu_per_gib(self) -> float:
        return self.cpu * (1 << 30) / max(1, self.said["bytes"])

    @property
    def wrong(self) -> int:
        return int(self.said["bad"] + self.said["failed"] + self.said["unfinished"])


Runs = dict[str, list[Run]]  # by server, a run per round


def run(wire: lab.Wire, server: lab.Server, port: int, reference: Path, case: Case) -> Run:
    argv = [lab.load_client("tftpload"), "-h", lab.SERVER, "-p", str(port), "-f", NAME, "-c", str(reference)]
    argv += ["-b", str(BLKSIZE), "-w", str(case.window), "-n", str(case.clients), "-N", str(case.files)]
    argv += ["-g"] if case.grouped else []
    server.mark()
    said = json.loads(wire.client([*argv, "-T", str(case.deadline)], timeout=case.deadline + 30))
    return Run(said, server.cpu())


def rounds_of(case: Case, number: int, wire: lab.Wire, servers: dict[str, lab.Server], reference: Path) -> Runs:
    """Every round asks every server, beginning with another one each time."""
    runs: Runs = {name: [] for name in case.servers}
    for turn in range(number):
        start = turn % len(case.servers)
        for name in case.servers[start:] + case.servers[:start]:
            runs[name].append(run(wire, servers[name], PORTS[name], reference, case))
    return runs


def start(wire: lab.Wire, data: Path) -> dict[str, lab.Server]:
    root = data / "loaders"
    limits = {"port": PORTS[OURS], "sessions_per_peer": 1000}  # all clients have one address here
    off = {"dhcp": {"mode": "off"}, "tftp": limits, "server": {"user": ""}}
    return {
        "dnsmasq": peers.dnsmasq_tftp(wire, root, PORTS["dnsmasq"]),
        "tftpd-hpa": peers.tftpd_hpa(wire, root, PORTS["tftpd-hpa"]),
        OURS: lab.ours(wire, data, off),
    }


def against(runs: Runs, names: Sequence[str], figure: str) -> list[float]:
    """The median of the ratios ours / theirs, for each of the peers."""
    mine = [getattr(one, figure) for one in runs[OURS]]
    return [median_ratio(mine, [getattr(one, figure) for one in runs[name]]) for name in names]


def judge(case: Case, runs: Runs, dnsmasq: list[Run]) -> dict[str, float]:
    """What the targets ask of a case without loss. `dnsmasq`: its runs with as many clients."""
    cpu = statistics.median(one.cpu_per_gib for one in runs[OURS])
    with_dnsmasq = {**runs, "dnsmasq": dnsmasq}
    if case in WINDOWS:
        ratio = against(with_dnsmasq, ["dnsmasq"], "throughput")[0]
        return {f"{case.name}: throughput / dnsmasq": ratio, f"{case.name}: CPU s per GiB": cpu}
    return {
        f"{case.name}: throughput / best peer": min(against(runs, PEERS, "throughput")),
        f"{case.name}: CPU / dnsmasq": against(runs, ["dnsmasq"], "cpu_per_gib")[0],
    }


def judge_lossy(runs: Runs) -> dict[str, float]:
    """A peer's time ends with its last transfer, done or given up: that is in the peer's favour."""
    mine = [one.said["seconds"] for one in runs[OURS]]
    ratios = [median_ratio([one.said["seconds"] for one in runs[name]], mine) for name in PEERS]
    complete = min(one.said["done"] / LOSSY.files for one in runs[OURS])
    return {f"{LOSSY.name}: complete": complete, f"{LOSSY.name}: time of best peer / ours": min(ratios)}


def shown(runs: Runs) -> dict[str, dict[str, float]]:
    """Medians per server, for the report."""
    rows = {}
    for name, all_of in runs.items():
        figures = {
            "MiB_per_s": [one.throughput for one in all_of],
            "cpu_s_per_gib": [one.cpu_per_gib for one in all_of],
            "done": [one.said["done"] for one in all_of],
            "seconds": [one.said["seconds"] for one in all_of],
            "p50_s": [one.said["p50"] for one in all_of],
            "client_busy": [one.said["cpu"] / one.said["seconds"] for one in all_of],
        }
        rows[name] = {key: round(statistics.median(values), 3) for key, values in figures.items()}
    return rows


def measure(options: Options) -> Measured:
    rounds = options.rounds or ROUNDS
    found = Measured(rounds=rounds, versions={**peers.versions(*PEERS), "python": platform.python_version()})
    found.versions["linux"] = platform.release()
    wrong = 0

    def note(case: Case, runs: Runs) -> None:
        nonlocal wrong
        found.details[case.name] = shown(runs)
        wrong += sum(one.wrong for one in runs[OURS])
        wrong += sum(one.said["bad"] for name in PEERS for one in runs.get(name, []))

    with tempfile.TemporaryDirectory(prefix="pxeserver-bench-") as temporary:
        data = Path(temporary)
        data.chmod(0o755)
        (data / "loaders").mkdir()
        reference = data / "loaders" / NAME
        reference.write_bytes(hashlib.shake_128(NAME.encode()).digest(SIZE))
        with lab.Wire(realtime=True) as wire:
            servers = start(wire, data)
            windowless: list[Run] = []
            for case in (*WINDOW_1, *WINDOWS):
                runs = rounds_of(scaled(case, options.scale), rounds, wire, servers, reference)
                windowless = runs.get("dnsmasq", windowless)
                note(case, runs)
                found.values.update(judge(case, runs, windowless))
            note(PLAIN, rounds_of(scaled(PLAIN, options.scale), min(rounds, PLAIN_ROUNDS), wire, servers, reference))
        with lab.Wire(delay_us=DELAY_US, loss=LOSS, realtime=True) as wire:
            runs = rounds_of(LOSSY, min(rounds, LOSSY_ROUNDS), wire, start(wire, data), reference)
            note(LOSSY, runs)
            found.values.update(judge_lossy(runs))
    found.details["loadavg"] = Path("/proc/loadavg").read_text().split()[:3]
    found.values["blocks with wrong content, files not complete"] = wrong
    return found


def scaled(case: Case, scale: float) -> Case:
    return replace(case, files=max(case.clients, int(case.files * scale)))
