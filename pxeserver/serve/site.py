"""What every listener of the boot process looks at: configuration, fleet and interfaces as they are now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pxeserver.boot.answer import NOWHERE, url_host
from pxeserver.boot.quirks import Quirks
from pxeserver.config import Config
from pxeserver.images.layout import Layout
from pxeserver.local.interfaces import Interface, own_address, own_address6, serves
from pxeserver.model import Digest, FleetView, Machine

log = logging.getLogger("pxeserver.boot")


@dataclass
class Site:
    """Lives on the loop; its values are immutable and replaced whole."""

    config: Config
    quirks: Quirks
    view: FleetView = field(default_factory=FleetView)
    interfaces: Mapping[int, Interface] = field(default_factory=dict)
    http_port: int = 0  # that machines are told; the real one, where the configuration says 0
    blobs: Mapping[Digest, Literal["kernel", "initrd", "uki"]] = field(default_factory=dict)
    _names: tuple[object, Mapping[str, str]] = (None, {})  # of these interfaces: name by address

    def see(self, view: FleetView) -> None:
        """Decide on this view from now on; only its images' files are served."""
        self.view = view
        kernels = {image.kernel.digest: "kernel" for image in view.images.values()}
        initrds = {image.initrd.digest: "initrd" for image in view.images.values()}
        ukis = {image.uki.digest: "uki" for image in view.images.values() if image.uki is not None}
        self.blobs = {**kernels, **initrds, **ukis}  # type: ignore[dict-item]

    def blob(self, hex_digest: str) -> tuple[Path, Literal["kernel", "initrd", "uki"]] | None:
        """A file of a built image and what it is, None for any other digest."""
        kind = self.blobs.get("sha256:" + hex_digest)
        if kind is None:
            return None
        return _blob_path(self.config.server.data, "sha256:" + hex_digest), kind

    def serves(self, ifindex: int, peer: str = "") -> bool:
        """True for an interface that we answer on, and on the loopback for `doctor` and `selftest`.

        There nobody is without an address (`peer` 0.0.0.0): a broadcast would reach no machine.
        """
        interface = self.interfaces.get(ifindex)
        if interface is None:
            return False
        return (interface.loopback and peer != NOWHERE) or serves(interface, self.config.server.interfaces)

    def source(self, ifindex: int, asked: str = "", relay: str = "", client: str = "") -> str:
        """The address of ours to answer from, for what came in by this interface; "" if there is none."""
        interface = self.interfaces.get(ifindex)
        if interface is None:
            return ""
        return own_address(interface, asked=asked, relay=relay, client=client)

    def own(self, ifindex: int, asked: str = "", relay: str = "", client: str = "") -> str:
        """The address of ours to give to a machine that came in by this interface; "" if there is none."""
        return self.told(self.source(ifindex, asked, relay, client))

    def told(self, source: str) -> str:
        """The address of ours to give to a machine that is answered from this one."""
        advertise = self.config.server.advertise
        return source if advertise == "auto" else advertise

    def named(self, own: str) -> str:
        """The interface that has this address of ours, "" if none has."""
        known, names = self._names
        if known is not self.interfaces:
            found: dict[str, str] = {}
            for interface in self.interfaces.values():
                for address in interface.own:
                    found.setdefault(str(address.ip), interface.name)
            names = found
            self._names = self.interfaces, names
        return names.get(own, "")

    def own6(self, ifindex: int, asked: str = "") -> str:
        """As `own`, for what came in by IPv6: no link-local address, a URL cannot say on which link."""
        advertise = self.config.server.advertise6
        interface = self.interfaces.get(ifindex)
        if advertise != "auto":
            return advertise
        return own_address6(interface, asked=asked) if interface is not None else ""

    def base_url(self, own: str) -> str:
        """`http://ADDR:PORT` as the machine that reached us at `own` should use it."""
        server = self.config.server
        advertise = server.advertise6 if ":" in own else server.advertise
        return f"http://{url_host(own if advertise == 'auto' else advertise)}:{self.http_port}"

    @property
    def templates(self) -> tuple[Path, ...]:
        return tuple(Path(folder) for folder in self.config.images.templates)

    def machine(self, *macs: str) -> Machine | None:
        """The first known machine with one of these MACs, else the first that was ever seen."""
        found = [machine for mac in macs if (machine := self.view.machine(mac)) is not None]
        return next((machine for machine in found if machine.known), found[0] if found else None)


@lru_cache(maxsize=256)  # a rack asks for few files, each machine for many parts of them
def _blob_path(data: str, digest: Digest) -> Path:
    return Layout(Path(data) / "store").blob_path(digest)


class Basis:
    """Tells when anything that answers follow from was replaced; each of these is replaced whole."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen = site.view, site.config, site.interfaces

    def moved(self) -> bool:
        """True if that has happened since it was asked last."""
        site, (view, config, interfaces) = self._site, self._seen
        if site.view is view and site.config is config and site.interfaces is interfaces:
            return False
        self._seen = site.view, site.config, site.interfaces
        return True


class Once:
    """Says each kind of trouble once, however many packets show it."""

    def __init__(self, say: Callable[[str], None] = log.warning) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._say(text)
