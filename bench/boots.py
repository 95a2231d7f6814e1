"""Seconds from power-on to each stage, for each way of booting (root). No peer, so no target; see the details."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.targets import Measured, Target
from pxeserver.config import Config, Server
from pxeserver.images.progress import Silent
from pxeserver.local import demo, qemu
from pxeserver.local.demo_prepare import prepare
from pxeserver.local.loaders_fetch import ensure

if TYPE_CHECKING:
    from bench.__main__ import Options

TARGETS: tuple[Target, ...] = ()
DATA = Path("var/data")

# name -> (hardware, loader that the machine is pinned to)
CHAINS: dict[str, tuple[qemu.Hardware, str]] = {
    "bios-rom": (qemu.Hardware(mac="52:54:00:77:03:01"), ""),
    "bios-undionly": (qemu.Hardware(mac="52:54:00:77:03:02"), "undionly.kpxe"),
    "uefi-snponly": (qemu.Hardware(mac="52:54:00:77:03:03", uefi=True, rom=""), ""),
    "uefi-ipxe": (qemu.Hardware(mac="52:54:00:77:03:04", uefi=True, rom=""), "ipxe.efi"),
}


def boot(data: Path, spec: str, chain: str) -> dict[str, object]:
    """Boot one machine to `up`; its stages in seconds since power-on."""
    hardware, loader = CHAINS[chain]
    with tempfile.TemporaryDirectory(prefix="pxeserver-bench-") as temporary:
        own = Path(temporary) / "data"
        own.mkdir()
        for name in ("store", "loaders"):
            (own / name).symlink_to(data.absolute() / name)
        with demo.running(own, spec, hardware, loader=loader) as site:
            for _ in site.follow():
                pass
            record = site.record()
            assert record is not None, "follow() ends when the record says up"
            stages = {stage.value: round(entry.at - site.started, 2) for stage, entry in record.stages.items()}
            load = Path("/proc/loadavg").read_text().split()[0]
            return {"chain": chain, "spec": spec, **stages, "loadavg": float(load)}


def measure(options: Options) -> Measured:
    image = prepare(Config(server=Server(data=str(DATA))), "web", Silent())
    ensure(DATA)
    rounds = options.rounds or 1
    boots = [boot(DATA, image.spec, chain) for _ in range(rounds) for chain in CHAINS]
    return Measured(rounds=rounds, details={"boots": boots})
