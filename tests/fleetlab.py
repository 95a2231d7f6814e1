"""A real fleet in a temporary folder, for the tests of fleet/, web/ and cli/."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pxeserver.config import Admin, Boot, Config, Dhcp, Images, Server
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Blob, Event, Image, Policy, Stage

NOW = 1_800_000_000.0
MAC, MAC2, MAC3 = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
BOOT, BOOT2 = "0123456789abcdef", "fedcba9876543210"


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_config(data: Path, *, unknown: Policy = Policy.WAIT, token: str = "", **boot: Any) -> Config:
    """Specs `web`, `db` and `rescue` exist; nothing is built."""
    specs = data / "specs"
    specs.mkdir(parents=True, exist_ok=True)
    for name in ("web", "db", "rescue"):
        (specs / f"{name}.yml").write_text(f"kernel:\n  image: kernel\n  cmdline: {name}\n")
    return Config(
        server=Server(data=str(data), advertise="10.0.0.1"),
        dhcp=Dhcp(unknown=unknown),
        admin=Admin(socket=str(data / "api.sock"), token=token),
        boot=Boot(**boot),
        images=Images(specs=(str(specs),)),
    )


def make_fleet(data: Path, clock: Clock | None = None, **config: Any) -> Fleet:
    return open_fleet(make_config(data, **config), clock or Clock())


def build(data: Path, spec: str = "web", version: str = "1", **more: Any) -> Image:
    """A built image in the store, small but whole. Another `version` is another image."""
    store = Store(data / "store")
    kernel, initrd = store.add_bytes(f"kernel {spec}".encode()), store.add_bytes(f"initrd {spec} {version}".encode())
    image = Image(
        digest="sha256:" + hashlib.sha256(f"{spec} {version}".encode()).hexdigest(),
        spec=spec,
        kernel=Blob(kernel.digest, kernel.size, kernel.size),
        initrd=Blob(initrd.digest, initrd.size, more.pop("raw_size", initrd.size)),
        cmdline=more.pop("cmdline", "console=ttyS0 quiet"),
        arch=more.pop("arch", "amd64"),
    )
    return Catalogue(store).add(image, spec_text=b"kernel:\n  image: kernel\n", **more)


def stage(kind: Stage, at: float = 0.0, mac: str = MAC, boot: str = BOOT, **more: Any) -> Event:
    """An event of a boot that reached a stage, `at` seconds after NOW."""
    return Event(NOW + at, str(kind), mac, boot, kind, **more)
