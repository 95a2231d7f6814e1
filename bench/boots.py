"""Seconds from power-on to each stage, for each way of booting: one JSON line per boot (root).

bench/boots.py [--repeat N] [--only CHAIN] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from pxeserver.config import Config, Server
from pxeserver.images.progress import Silent
from pxeserver.local import demo, qemu
from pxeserver.local.demo_prepare import prepare
from pxeserver.local.loaders_fetch import ensure

# name -> (hardware, loader that the machine is pinned to)
CHAINS: dict[str, tuple[qemu.Hardware, str]] = {
    "bios-rom": (qemu.Hardware(mac="52:54:00:77:03:01"), ""),
    "bios-undionly": (qemu.Hardware(mac="52:54:00:77:03:02"), "undionly.kpxe"),
    "uefi-snponly": (qemu.Hardware(mac="52:54:00:77:03:03", uefi=True, rom=""), ""),
    "uefi-ipxe": (qemu.Hardware(mac="52:54:00:77:03:04", uefi=True, rom=""), "ipxe.efi"),
}


def measure(data: Path, spec: str, chain: str) -> dict[str, object]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", choices=CHAINS)
    parser.add_argument("--data", type=Path, default=Path("var/data"))
    options = parser.parse_args()
    image = prepare(Config(server=Server(data=str(options.data))), "web", Silent())
    ensure(options.data)
    for _ in range(options.repeat):
        for chain in [options.only] if options.only else CHAINS:
            print(json.dumps(measure(options.data, image.spec, chain)), flush=True)


if __name__ == "__main__":
    main()
