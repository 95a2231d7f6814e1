"""A power cut ends: 5,000 synthetic machines go the whole way from DISCOVER to `up`, and again with dnsmasq and nginx.

Every loader, kernel and initrd is compared with what that machine should get: there are five images, dealt in turn. The
machines run on the other CPU (bench/stormload.py) and take more of it than any server does, so that the boots per
minute are a lower bound; they are switched on over a minute. Their clock stands still while that process is behind. The
offers' times include what it takes to read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lab, peers
from bench.targets import Measured, Target
from pxeserver.config import Config, Server
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Blob, Event, Image, Result

if TYPE_CHECKING:
    from bench.__main__ import Options

MACHINES, OVER = 5000, 60.0  # switched on over so many seconds
POOL, POOL_BITS = "10.77.128.0", 17
IMAGES, KERNEL, INITRD = 5, 64 << 10, 192 << 10  # bytes
MIX = ("bios", "edk2", "ipxe-rom", "edk2", "bios", "http", "edk2-2016")
PEER_MIX = ("bios", "edk2", "ipxe-rom", "edk2", "bios", "edk2", "edk2-2016")  # dnsmasq does not answer HTTP boot
PLACES = 500  # http.transfers_max: the rule of docs/storms.md is part of it

FAILED, WRONG = "machines that did not come up", "machines with a byte of another image"
NOT_RECORDED = "boots that the server did not record as up"
TARGETS = (Target(FAILED, "<=", 0), Target(WRONG, "<=", 0), Target(NOT_RECORDED, "<=", 0))


def program(size: int) -> bytes:
    """An x86-64 EFI program as far as a loader looks at it."""
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, 0xF0, 0)
    return (head.ljust(0x80, b"\0") + coff + bytes(0xF0)).ljust(size, b"\x90")


LOADERS = {"undionly.kpxe": b"\xea" * 70_001, "snponly.efi": program(230_000)}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Site:
    """Five images and who boots which; `machines` are (MAC, image)."""

    folder: Path
    images: tuple[tuple[bytes, bytes], ...]
    machines: tuple[tuple[str, int], ...]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def plan(self, mix: Sequence[str], *, limit: float) -> dict[str, Any]:
        """What bench.stormload reads."""
        return {
            "interface": "eth0",
            "server": lab.SERVER,
            "pool": POOL,
            "machines": [[mac, mix[n % len(mix)], str(image)] for n, (mac, image) in enumerate(self.machines)],
            "images": {str(n): {"kernel": sha(k), "initrd.img": sha(i)} for n, (k, i) in enumerate(self.images)},
            "loaders": {name: sha(content) for name, content in LOADERS.items()},
            "over": OVER * len(self.machines) / MACHINES,
            "patience": 3600.0,
            "tries": 3,  # firmware starts anew when it got nowhere
            "limit": limit,
            "seed": 1,
        }


def make(folder: Path, count: int) -> Site:
    """The site, for us as a fleet and a store, for the peers as a folder."""
    noise = random.Random(1)
    images = tuple((noise.randbytes(KERNEL), noise.randbytes(INITRD)) for _ in range(IMAGES))
    macs = [f"02:b1:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(count)]
    site = Site(folder, images, tuple((mac, n % IMAGES) for n, mac in enumerate(macs)))
    _for_us(site)
    _for_peers(site)
    return site


def _for_us(site: Site) -> None:
    (site.data / "loaders").mkdir(parents=True)
    for name, content in LOADERS.items():
        (site.data / "loaders" / name).write_bytes(content)
    store = Store(site.data / "store")
    for n, (kernel, initrd) in enumerate(site.images):
        blobs = [store.add_bytes(content) for content in (kernel, initrd)]
        k, i = (Blob(blob.digest, blob.size, blob.size) for blob in blobs)
        image = Image(f"sha256:{n:02x}" + "5a" * 31, f"storm{n}", k, i, "console=ttyS0 quiet", "amd64")
        Catalogue(store).add(image, spec_text=b"kernel:\n  image: kernel\n")
    fleet = open_fleet(Config(server=Server(data=str(site.data))))
    with contextlib.closing(fleet):
        # seen once on the wire: all in one transaction
        fleet.record([Event(time.time(), "note", mac) for mac, _ in site.machines])
        for n in range(IMAGES):
            fleet.assign([mac for mac, image in site.machines if image == n], AssignOrder(f"storm{n}"))


def _for_peers(site: Site) -> None:
    (site.root / "m").mkdir(parents=True)
    for name, content in LOADERS.items():
        (site.root / name).write_bytes(content)
    for n, (kernel, initrd) in enumerate(site.images):
        (site.root / str(n)).mkdir()
        (site.root / str(n) / "kernel").write_bytes(kernel)
        (site.root / str(n) / "initrd.img").write_bytes(initrd)
    (site.root / "boot.ipxe").write_text("#!ipxe\nchain m/${mac:hexhyp}.ipxe\n")
    for mac, image in site.machines:
        script = f"#!ipxe\nkernel /{image}/kernel quiet pxeserver.url=http://{lab.SERVER}/up\n"
        script += f"initrd /{image}/initrd.img\nboot\n"
        (site.root / "m" / f"{mac.replace(':', '-')}.ipxe").write_text(script)


@contextlib.contextmanager
def network() -> Iterator[lab.Wire]:
    """The machines' addresses are local in `cli` as a whole; to the server they lie behind it, without ARP for each."""
    with lab.Wire() as wire:
        wire.ip("cli", "route", "add", "local", f"{POOL}/{POOL_BITS}", "dev", "lo")
        wire.ip("srv", "route", "add", f"{POOL}/{POOL_BITS}", "via", lab.CLIENT)
        yield wire


def blow(wire: lab.Wire, plan: dict[str, Any], servers: Sequence[lab.Server]) -> dict[str, Any]:
    """The storm; what the machines say of it, with the servers' CPU and memory."""
    file = wire.folder / "plan.json"
    file.write_text(json.dumps(plan))
    with contextlib.ExitStack() as stack:
        for server in servers:
            server.mark()
            stack.enter_context(server.group.watching(every=0.1))
        said = wire.client([sys.executable, "-m", "bench.stormload", str(file)], timeout=plan["limit"] + 120)
    found: dict[str, Any] = json.loads(said)
    found["boots_per_minute"] = round(found["booted"] / found["seconds"] * 60)
    found["server_cpu_s"] = round(sum(server.cpu() for server in servers), 1)
    found["server_memory_mib"] = round(sum(server.group.peak for server in servers) / (1 << 20), 1)
    return found


def ours(site: Site, limit: float) -> dict[str, Any]:
    with network() as wire:
        server = lab.ours(wire, site.data, {"http": {"transfers_max": PLACES}})
        found = blow(wire, site.plan(MIX, limit=limit), [server])
        health = "import urllib.request as r; print(r.urlopen('http://%s:8080/healthz').read().decode())"
        told = json.loads(wire.client([sys.executable, "-c", health % lab.SERVER]))
    found["told_to_wait"] = told["told_to_wait"]
    fleet = open_fleet(Config(server=Server(data=str(site.data))))
    with contextlib.closing(fleet):  # the server has written everything when it ended
        boots = fleet.boots(limit=3 * len(site.machines))
        found["recorded_up"] = len({boot.mac for boot in boots if boot.result is Result.UP})
    return found


def theirs(site: Site, limit: float) -> dict[str, Any]:
    url = f"http://{lab.SERVER}/boot.ipxe"
    kinds = (("x86PC", "undionly.kpxe"), ("X86-64_EFI", "snponly.efi"), ("BC_EFI", "snponly.efi"))
    with network() as wire:
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--log-facility=-"]
        argv += ["--port=0", "--quiet-dhcp", "--pid-file=", "--dhcp-leasefile=/dev/null", "--interface=eth0"]
        argv += ["--dhcp-userclass=set:ipxe,iPXE", "--dhcp-range=10.77.0.0,proxy,255.255.0.0"]
        argv += ["--enable-tftp", f"--tftp-root={site.root.absolute()}", "--quiet-tftp", "--tftp-max=10000"]
        argv += [f"--pxe-service=tag:!ipxe,{kind},net,{file}" for kind, file in kinds]
        argv += [f"--pxe-service=tag:ipxe,{kind},net,{url}" for kind, _ in kinds]
        dnsmasq = wire.serve(argv, wire.udp_bound(67), "dnsmasq")
        nginx = peers.nginx(wire, site.root, extra="location /up { return 204; }")
        return blow(wire, site.plan(PEER_MIX, limit=limit), [dnsmasq, nginx])


def measure(options: Options) -> Measured:
    count = max(10, int(MACHINES * options.scale))
    limit = 600.0
    found: dict[str, dict[str, Any]] = {}
    runs: tuple[tuple[str, Callable[[Site, float], dict[str, Any]]], ...] = (
        ("pxeserver", ours),
        ("dnsmasq + nginx", theirs),
    )
    with tempfile.TemporaryDirectory(dir=lab.WORK if lab.WORK.is_dir() else None) as folder:
        os.chmod(folder, 0o755)  # nobody's nginx reads it too
        site = make(Path(folder), count)
        for name, run in runs:
            found[name] = run(site, limit)
            print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    mine = found["pxeserver"]
    values = {FAILED: mine["failed"], WRONG: mine["wrong"], NOT_RECORDED: count - mine["recorded_up"]}
    details = {"machines": count, "over_seconds": OVER * count / MACHINES, **found}
    return Measured(values, 1, peers.versions("dnsmasq", "nginx"), details)
