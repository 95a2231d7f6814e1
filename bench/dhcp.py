"""proxyDHCP beside dnsmasq: offers a second, 5,000 DISCOVERs at once, offers while the fleet page is rendered (root).

Our server has a fleet of 2,000 machines with an image each; 3,000 of the burst's MACs it has never heard of. It and
dnsmasq get one CPU, which our two processes share; the client has another. `cpu_us` is CPU time per offer.
Offers a second are counted with a MAC in each DISCOVER that was never heard before; `repeated` are those to 2,000
machines that ask again at once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lab, peers
from bench.targets import Measured, Target, median_ratio
from pxeserver.config import Config, Server
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Blob, Image

if TYPE_CHECKING:
    from bench.__main__ import Options

TARGETS = (
    Target("offers_per_second.to_dnsmasq", ">=", 1.0),
    Target("lost_of_5000_at_once", "<=", 0),
    Target("offer_p99_ms.while_the_page_is_rendered", "<=", 50.0),
)
ROUNDS, MACHINES, BURST = 5, 2000, 5000
NEW = 1 << 20  # number of the first MAC that no fleet has, and how many more there are
_PAGE_LOOP = """
import json, signal, sys, time, urllib.request
pages, began = 0, time.monotonic()
def end(*_):
    print(json.dumps({"pages": pages, "seconds": time.monotonic() - began}), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    assert urllib.request.urlopen("http://127.0.0.1:8081/", timeout=60).read().count(b"bench-") >= 100
    pages += 1
"""


def measure(options: Options) -> Measured:
    rounds, machines = options.rounds or ROUNDS, int(MACHINES * options.scale)
    measured = Measured(rounds=rounds, versions=peers.versions("dnsmasq"))
    with tempfile.TemporaryDirectory(prefix="pxeserver-bench-") as temporary:
        data = Path(temporary) / "data"
        _fleet(data, machines)
        found = _turns(rounds, machines, data)
        with lab.Wire() as wire:
            lab.ours(wire, data, {})
            busy = _while_rendering(wire, machines)
    rates = {name: [run["per_second"] for run in found[name]] for name in ("ours", "dnsmasq")}
    measured.values = {
        "offers_per_second.to_dnsmasq": median_ratio(rates["ours"], rates["dnsmasq"]),
        "lost_of_5000_at_once": max(run["lost"] for run in found["ours_burst"]),
        "offer_p99_ms.while_the_page_is_rendered": busy["p99_ms"],
    }
    measured.details = {name: _medians(runs) for name, runs in found.items()}
    measured.details |= {"while_rendering": busy}
    return measured


def _turns(rounds: int, machines: int, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Both have port 67, so they run one after the other, ours each time with the fleet as it was at first."""
    found: dict[str, list[dict[str, Any]]] = {}
    with lab.Wire(realtime=True) as wire:
        for number in range(rounds):
            for name in ("ours", "dnsmasq"):
                fresh = data.with_name(f"{name}-{number}")
                shutil.copytree(data, fresh)
                server = lab.ours(wire, fresh, {}) if name == "ours" else peers.dnsmasq_proxy(wire, fresh / "loaders")
                for what, run in (("repeated", _repeated(wire, server, machines)), ("", _firsts(wire, server))):
                    found.setdefault("_".join(filter(None, (name, what))), []).append(run)
                wire.stop(server)
                server = lab.ours(wire, data, {}) if name == "ours" else peers.dnsmasq_proxy(wire, data / "loaders")
                found.setdefault(f"{name}_burst", []).append(_burst(wire))
                wire.stop(server)
                shutil.rmtree(fresh)
    return found


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def _load(wire: lab.Wire, *argv: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(wire.client([lab.load_client("dhcpload"), "-i", "eth0", *argv]))
    assert result["bad"] == 0, f"answers that are no offers: {result}"
    return result


def _firsts(wire: lab.Wire, server: lab.Server) -> dict[str, Any]:
    """As many first offers as there can be, 32 DISCOVERs in flight, each of a machine that nobody has heard of."""
    return _loop(wire, server, "-o", str(NEW), "-n", str(NEW))


def _repeated(wire: lab.Wire, server: lab.Server, macs: int) -> dict[str, Any]:
    """The same with machines that ask again as soon as they were answered."""
    _load(wire, "-n", str(macs), "-w", "32", "-d", "0.5")
    return _loop(wire, server, "-n", str(macs))


def _loop(wire: lab.Wire, server: lab.Server, *who: str) -> dict[str, Any]:
    server.mark()
    result = _load(wire, *who, "-w", "32", "-d", "3")
    return result | {"cpu_us": server.cpu() / max(1, result["offers"]) * 1e6}


def _burst(wire: lab.Wire) -> dict[str, Any]:
    return _load(wire, "-n", str(BURST), "-b", "-T", "5")


def _while_rendering(wire: lab.Wire, machines: int) -> dict[str, Any]:
    """200 DISCOVERs a second beside somebody who does nothing but reload the fleet page (it shows 100 of them)."""
    inside = ["ip", "netns", "exec", wire.namespace("srv"), sys.executable, "-c", _PAGE_LOOP]
    loop = subprocess.Popen(["taskset", "-c", "1", *inside], stdout=subprocess.PIPE, text=True)
    try:
        result = _load(wire, "-n", str(machines), "-r", "200", "-d", "20")
    finally:
        loop.terminate()
        said, _ = loop.communicate(timeout=120)
    pages = json.loads(said)
    return result | {"pages": pages["pages"], "seconds_per_page": round(pages["seconds"] / max(1, pages["pages"]), 2)}


def _fleet(data: Path, machines: int) -> None:
    """Machines that have an image; nobody fetches it here."""
    (data / "loaders").mkdir(parents=True)
    for name in ("undionly.kpxe", "snponly.efi"):
        (data / "loaders" / name).write_bytes(b"MZ" + bytes(1000))
    store = Store(data / "store")
    kernel, initrd = (store.add_bytes(name.encode()) for name in ("kernel", "initrd"))
    k, i = (Blob(blob.digest, blob.size, blob.size) for blob in (kernel, initrd))
    image = Image("sha256:" + "5a" * 32, "bench", k, i, "console=ttyS0 quiet", "amd64")
    Catalogue(store).add(image, spec_text=b"kernel:\n  image: kernel\n")
    macs = [f"02:b1:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(machines)]
    with contextlib.closing(open_fleet(Config(server=Server(data=str(data))))) as fleet:
        for n, mac in enumerate(macs):
            fleet.add_machine(MachineEdit(name=f"bench-{n}", macs=(mac,)))
        fleet.assign(macs, AssignOrder("bench"))
