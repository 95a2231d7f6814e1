"""HTTP beside nginx: files whole and in ranges, scripts while hundreds of slow machines download, scripts alone (root).

Both servers run side by side on one CPU, each on its own port, and only the one that is asked works. CPU is that of all
the server's processes; ours counts its admin process too. nginx serves one machine's script as a static file.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lab, peers
from bench.targets import Measured, Target, median_ratio
from pxeserver.boot import facts, script, token
from pxeserver.boot.profile import profile
from pxeserver.config import Config, Server
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.fleet.values import AssignOrder
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Blob, Event, Image

if TYPE_CHECKING:
    from bench.__main__ import Options

MIB = 1 << 20
BIG, SMALL = 60 * MIB, 8 * MIB
PORTS = {"pxeserver": 8080, "nginx": 80}
MACHINES = 2000
SLOW, SLOW_RATE, SLOW_WARM, PROBE_SECONDS = 500, 125_000, 3.0, 5.0  # 1 Mbit/s each
SOURCES = ("10.77.1.1", 100)  # the slow machines' addresses
FILE_ROUNDS, SLOW_ROUNDS, SCRIPT_ROUNDS = 51, 7, 7  # many short ones: the machine is not the same for long
BASE = f"http://{lab.SERVER}:{PORTS['pxeserver']}"
SCRIPTS = "scripts per second, 2000 machines"


@dataclass(frozen=True, slots=True)
class Case:
    """`connections` at once fetch `requests` files of `size` bytes, or ranges of `step` bytes of it."""

    name: str
    size: int
    connections: int
    requests: int
    step: int = 0


CASES = (
    Case("60 MiB x 10", BIG, 10, 20),
    Case("60 MiB x 50", BIG, 50, 50),
    Case("8 MiB x 200", SMALL, 200, 800),
    Case("60 MiB x 10 in ranges", BIG, 10, 300, 4 * MIB),
)
TARGETS = (
    *(Target(f"{case.name}: throughput / nginx", ">=", 0.9) for case in CASES),
    *(Target(f"{case.name}: CPU / nginx", "<=", 1.3) for case in CASES),
    Target("script p50 under 500 slow downloads / nginx", "<=", 2.0),
    Target("script p99 under 500 slow downloads / nginx", "<=", 2.0),
    Target(SCRIPTS, ">=", 7000),
    Target("failed requests, wrong contents", "<=", 0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a load client said, and the CPU seconds of the server meanwhile."""

    said: dict[str, Any]
    cpu: float

    @property
    def throughput(self) -> float:
        """MiB/s."""
        return float(self.said["bytes"] / self.said["seconds"] / MIB)

    @property
    def cpu_per_gib(self) -> float:
        return self.cpu * 1024 * MIB / max(1, self.said["bytes"])

    @property
    def rate(self) -> float:
        """Requests per second."""
        return float(self.said["ok"] / self.said["seconds"])

    @property
    def us_each(self) -> float:
        """Microseconds of the server's CPU per request."""
        return self.cpu * 1e6 / max(1, self.said["ok"])

    @property
    def p50(self) -> float:
        return float(self.said["p50_ms"])

    @property
    def p99(self) -> float:
        return float(self.said["p99_ms"])

    @property
    def wrong(self) -> int:
        return int(self.said["bad"] + self.said["failed"])


Runs = dict[str, list[Run]]  # by server, a run per round


class Site:
    """One image with a small kernel and a big initrd, and `machines` that it is assigned to; the same for nginx."""

    def __init__(self, folder: Path, machines: int) -> None:
        self.data, self.root = folder / "data", folder / "root"
        self.data.mkdir()
        self.root.mkdir()
        self.config = Config(server=Server(data=str(self.data)))
        store = Store(self.data / "store")
        noise = random.Random(1)
        kernel = store.add_bytes(noise.randbytes(SMALL))
        initrd = store.add_bytes(noise.randbytes(BIG))
        self.files = {SMALL: store.blob_path(kernel.digest), BIG: store.blob_path(initrd.digest)}
        self.targets: dict[str, dict[int, str]] = {"pxeserver": {}, "nginx": {}}
        for size, digest, name in ((SMALL, kernel.digest, "kernel"), (BIG, initrd.digest, "initrd.img")):
            (self.root / name).hardlink_to(self.files[size])
            self.targets["nginx"][size] = f"/{name}"
            self.targets["pxeserver"][size] = f"/b/{digest.removeprefix('sha256:')}/{name}"
        image = Image(
            digest="sha256:" + "ab" * 32,
            spec="web",
            kernel=Blob(kernel.digest, kernel.size, kernel.size),
            initrd=Blob(initrd.digest, initrd.size, initrd.size),
            cmdline="console=tty0 console=ttyS0 page_poison=1 panic=10",
            arch="amd64",
        )
        self.image = Catalogue(store).add(image, spec_text=b"kernel:\n  image: kernel\n")
        self.fleet = open_fleet(self.config)
        self.macs = [f"52:54:00:77:{n >> 8:02x}:{n & 255:02x}" for n in range(machines)]
        # seen on the wire first: one transaction for all of them
        self.fleet.record([Event(time.time(), "note", mac) for mac in self.macs])
        self.fleet.assign(self.macs, AssignOrder("web"))
        self.queries = {mac: _query(mac, n) for n, mac in enumerate(self.macs)}

    def scripts(self, fleet: Fleet, name: str) -> Path:
        """A list for the load client: each machine's script in a boot of its own, as iPXE asks with its facts."""
        view, key, rng = fleet.view(), fleet.secret(), random.Random(name)
        lines = []
        for mac in self.macs:
            revision = view.assignments[view.by_mac[mac]].revision
            sealed = token.seal(
                key, token.Token(rng.randbytes(8).hex(), mac, token.image_prefix(self.image.digest), revision)
            )
            lines.append(f"/boot/{sealed}/script.ipxe?{self.queries[mac]}\tBOOTIF=01-{mac.replace(':', '-')} ")
        rng.shuffle(lines)
        path = self.data / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def expected(self, target: str) -> str:
        """The script that a target of `scripts` must give, rendered without the server."""
        view, key = self.fleet.view(), self.fleet.secret()
        path, _, query = target.partition("?")
        sealed = path.split("/")[2]
        opened, told = token.open(key, sealed), facts.parse(query)
        assert opened is not None and told is not None
        machine = view.machine(opened.mac)
        found = profile(machine, opened.mac, view, self.config, opened)
        poll = self.config.boot.poll_seconds
        context = script.ScriptContext(BASE, sealed, opened.mac, told.platform, poll, told.data)
        return script.render(found, machine, context)


def _query(mac: str, n: int) -> str:
    """What iPXE fills in for templates/ipxe/facts.j2 on a machine with one card."""
    mac = mac.replace(":", "%3A")
    return (
        f"mac={mac}&mac={mac}" + "&mac=" * 7 + f"&ip=10.77.2.{n % 250}&uuid=4c4c4544-0042-3510-8052-{n:012x}"
        f"&serial=J{n:07}&manufacturer=Dell%20Inc.&product=PowerEdge%20R640&platform=efi&buildarch=x86_64"
        f"&version=1.21.1+%28g83449702e%29&memsize=32768&range0=&range1="
    )


class Lab:
    """Both servers on one wire, over one site."""

    def __init__(self, wire: lab.Wire, site: Site) -> None:
        self.wire, self.site = wire, site
        # no machine loads its image here: all of them get their script, however many ask
        settings = {"dhcp": {"mode": "off"}, "http": {"transfers_max": 100_000}}
        self.servers = {
            "nginx": peers.nginx(wire, site.root, PORTS["nginx"]),
            "pxeserver": lab.ours(wire, site.data, settings),
        }
        first, count = SOURCES
        base = first.rpartition(".")[0]
        for n in range(1, count + 1):
            wire.ip("cli", "addr", "add", f"{base}.{n}/{lab.BITS}", "dev", "eth0")

    def argv(self, name: str, *more: str) -> list[str]:
        return [lab.load_client("httpload"), "-a", lab.SERVER, "-p", str(PORTS[name]), *more]

    def run(self, name: str, *more: str) -> Run:
        self.servers[name].mark()
        said = json.loads(self.wire.client(self.argv(name, *more)))
        return Run(said, self.servers[name].cpu())

    def files(self, name: str, case: Case, *more: str) -> Run:
        argv = ["-u", self.site.targets[name][case.size], "-n", str(case.connections), "-N", str(case.requests)]
        argv += ["-k", "-c", str(self.site.files[case.size])]
        return self.run(name, *argv, *(("-R", str(case.step)) if case.step else ()), *more)

    def script_argv(self, name: str, targets: Path) -> list[str]:
        return ["-f", str(targets)] if name == "pxeserver" else ["-u", "/script"]

    def under_load(self, name: str, targets: Path, scale: float) -> tuple[Run, dict[str, Any]]:
        """Scripts on fresh connections, as iPXE makes them, while slow machines download."""
        seconds, warm = PROBE_SECONDS * scale, SLOW_WARM * scale
        slow = [
            "-u",
            self.site.targets[name][BIG],
            "-n",
            str(SLOW),
            "-r",
            str(SLOW_RATE),
            "-T",
            str(seconds + warm + 1),
        ]
        # behind the client that asks for scripts: what is measured is the server, not one client waiting for the other
        behind = ["chrt", "--rr", "9", *self.argv(name, *slow, "-s", f"{SOURCES[0]}/{SOURCES[1]}")]
        argv = self.wire.argv("cli", behind)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as load:
            time.sleep(warm)
            probe = ["-n", "2", "-N", "0", "-T", str(seconds), "-w", "0.003"]
            run = self.run(name, *self.script_argv(name, targets), *probe)
            said = json.loads(load.communicate(timeout=60)[0])
        return run, said


def alternate(number: int, what: Any) -> Runs:
    """`what(server)` for both, the other one first each time."""
    runs: Runs = {name: [] for name in PORTS}
    for turn in range(number):
        for name in (sorted(PORTS), sorted(PORTS, reverse=True))[turn % 2]:
            runs[name].append(what(name))
    return runs


def ratio(runs: Runs, figure: str) -> float:
    return median_ratio(*([getattr(one, figure) for one in runs[name]] for name in ("pxeserver", "nginx")))


def medians(runs: Runs, *figures: str) -> dict[str, dict[str, float]]:
    rows = {}
    for name, all_of in runs.items():
        rows[name] = {figure: round(statistics.median(getattr(one, figure) for one in all_of), 4) for figure in figures}
        rows[name]["client_busy"] = round(max(one.said["cpu"] / one.said["seconds"] for one in all_of), 2)
    return rows


def check_scripts(lab_: Lab, targets: Path, number: int = 25) -> int:
    """How many of some machines' scripts differ from what rendering gives without the server."""
    wrong = 0
    for line in random.Random(7).sample(targets.read_text().splitlines(), number):
        target = line.partition("\t")[0]
        wrong += lab_.wire.client(["curl", "-gsS", f"{BASE}{target}"]) != lab_.site.expected(target)
    return wrong


def measure(options: Options) -> Measured:
    measured = Measured(versions=peers.versions("nginx"))
    machines = max(100, int(MACHINES * min(1.0, options.scale)))
    with tempfile.TemporaryDirectory(prefix="pxeserver-bench-") as temporary, lab.Wire(realtime=True) as wire:
        site = Site(Path(temporary), machines)
        (site.root / "script").write_text(
            site.expected(site.scripts(site.fleet, "first").read_text().partition("\t")[0])
        )
        both = Lab(wire, site)
        wrong = _measure_files(both, options, measured) + _measure_scripts(both, options, measured)
        site.fleet.close()
    measured.values["failed requests, wrong contents"] = wrong
    return measured


def _measure_files(both: Lab, options: Options, measured: Measured) -> int:
    number = options.rounds or FILE_ROUNDS
    wrong = 0
    for case in CASES:
        wrong += both.files(
            "pxeserver", Case(case.name, case.size, case.connections, case.connections, case.step), "-v"
        ).wrong
        runs = alternate(number, lambda name, case=case: both.files(name, case))
        measured.values[f"{case.name}: throughput / nginx"] = ratio(runs, "throughput")
        measured.values[f"{case.name}: CPU / nginx"] = ratio(runs, "cpu_per_gib")
        measured.details[case.name] = medians(runs, "throughput", "cpu_per_gib")
        wrong += sum(one.wrong for one in runs["pxeserver"])
    measured.rounds = number
    return wrong


def _measure_scripts(both: Lab, options: Options, measured: Measured) -> int:
    fresh, steady = (both.site.scripts(both.site.fleet, name) for name in ("fresh", "steady"))
    wrong = check_scripts(both, fresh)
    # every machine's very first script: its boot is opened, its facts are learnt
    machines = str(len(both.site.macs))
    cold = both.run("pxeserver", "-f", str(steady), "-n", "20", "-N", machines, "-k")
    time.sleep(3 * options.scale)  # until all that is written down
    runs = alternate(
        options.rounds or SCRIPT_ROUNDS,
        lambda name: both.run(
            name, *both.script_argv(name, steady), "-n", "20", "-N", "0", "-T", str(3 * options.scale), "-k"
        ),
    )
    measured.values[SCRIPTS] = statistics.median(one.rate for one in runs["pxeserver"])
    measured.details["scripts"] = {
        **medians(runs, "rate", "us_each"),
        "first of each boot": {"rate": round(cold.rate), "us_each": round(cold.us_each)},
        "loadavg": float(Path("/proc/loadavg").read_text().split()[0]),
    }
    wrong += cold.wrong + sum(one.wrong for one in runs["pxeserver"])
    slow: dict[str, list[dict[str, Any]]] = {name: [] for name in PORTS}

    def probe(name: str) -> Run:
        run, said = both.under_load(name, steady, options.scale)
        slow[name].append(said)
        return run

    runs = alternate(options.rounds or SLOW_ROUNDS, probe)
    for figure in ("p50", "p99"):
        measured.values[f"script {figure} under 500 slow downloads / nginx"] = ratio(runs, figure)
    measured.details["script under 500 slow downloads"] = {
        **medians(runs, "p50", "p99"),
        "slow_MiB_per_s": {
            name: [round(s["bytes"] / s["seconds"] / MIB, 1) for s in said] for name, said in slow.items()
        },
    }
    return wrong + sum(one.wrong for one in runs["pxeserver"]) + sum(said["failed"] for said in slow["pxeserver"])
