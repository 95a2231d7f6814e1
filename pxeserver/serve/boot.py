"""The boot process: proxyDHCP, TFTP and boot HTTP around one recorder and one view of the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pxeserver.boot import grub, script
from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config
from pxeserver.errors import PxeServerError
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.local.interfaces import neighbour, read_interfaces, serving, watch
from pxeserver.model import Event
from pxeserver.serve import dns, listening, udp
from pxeserver.serve.devices import Devices
from pxeserver.serve.dhcp import Channel, DhcpServer, open_channels
from pxeserver.serve.dhcp6 import Dhcp6Server, open_sockets
from pxeserver.serve.handout import grub_config
from pxeserver.serve.http import Front
from pxeserver.serve.loaderfiles import find_loader, is_autoexec
from pxeserver.serve.metadata import MetadataRoutes
from pxeserver.serve.names import NameTable
from pxeserver.serve.overheard import Overheard, open_ears
from pxeserver.serve.rawdhcp import RawChannel
from pxeserver.serve.recorder import Delivery, File, Recorder
from pxeserver.serve.recording import Recording
from pxeserver.serve.routes import BootRoutes
from pxeserver.serve.site import Site
from pxeserver.serve.tftp import TftpServer
from pxeserver.serve.transfer import Outcome
from pxeserver.serve.writer import Writer

log = logging.getLogger("pxeserver.boot")

POLL = 0.2  # seconds between looks at the fleet's generation
REST = 4  # times as long as a look took: thousands of machines take a while, and must not be read all the time
REMEMBER = 30  # seconds between looks at the addresses that other servers of the fleet heard of
_SETTLE = 0.05  # links and addresses change in bursts


@dataclass(frozen=True, slots=True)
class BootSockets:
    """Everything that needs privileges, opened before they are dropped."""

    dhcp: list[Channel]
    tftp: list[socket.socket]
    http: list[socket.socket]
    links: socket.socket
    ears: list[RawChannel]
    dns: tuple[list[socket.socket], list[socket.socket]]  # UDP, TCP
    dhcp6: list[socket.socket]
    metadata: list[socket.socket]

    @property
    def by_device(self) -> list[socket.socket]:
        """Those that may be bound to one interface."""
        return [*(channel.sock for channel in (*self.dhcp, *self.ears)), *self.dhcp6, *self.dns[0], *self.dns[1]]


def bind(config: Config) -> BootSockets:
    """All listeners or none. Refused("port-taken") names who has the port."""
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context
        http = [keep(listening.tcp("", config.http.port, "http"))]
        tftp = [keep(udp.listen(config.tftp.port, what="tftp"))]
        if udp.has_ipv6():
            http.append(keep(listening.tcp("::", http[0].getsockname()[1], "http")))
            tftp.append(keep(udp.listen(tftp[0].getsockname()[1], what="tftp", address="::")))
        for sock in http:
            listening.congestion_control(sock, config.http.congestion_control)
        names = dns.open_sockets(config)
        for sock in (*names[0], *names[1]):
            keep(sock)
        dhcp6 = [keep(sock) for sock in open_sockets(config)]
        facts = [keep(listening.tcp("", config.metadata.port, "metadata"))] if config.metadata.enabled else []
        bound = BootSockets(open_channels(config), tftp, http, watch(), open_ears(config), names, dhcp6, facts)
        stack.pop_all()
        return bound


class BootServer:
    """Serves on `sockets` from `start` until `close`. `clock` gives Unix seconds; with `recording` events go there."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        sockets: BootSockets,
        clock: Callable[[], float] = time.time,
        recording: Recording | None = None,
    ) -> None:
        port = config.http.advertise_port or sockets.http[0].getsockname()[1]
        self.site = Site(config, load_quirks(), http_port=port)
        self._fleet = fleet
        self._sockets = sockets
        self._clock = clock
        self._recording = recording
        self._writer = Writer(recording.record if recording else lambda events: self._fleet.record(events))
        self.recorder = Recorder(fleet.secret(), config, self._emit, emit_offers=self._writer.put_offers)
        self.names = NameTable(self.site)
        self.dhcp = DhcpServer(self.site, self.recorder, clock)
        self.dhcp.system = self._moved
        self.dns = dns.DnsServer(self.site, self.names)
        self.dhcp6 = Dhcp6Server(self.site, self.recorder, clock)
        self.overheard = Overheard(self.site, self.recorder, clock)
        self.tftp = TftpServer(config.tftp, self._resolve, self._delivered, serves=self.site.serves)
        routes = BootRoutes(self.site, self.recorder, self.health, clock)
        self.gate, self._files = routes.gate, routes.files
        self.http = Front(routes, proxies=routes.proxies)
        self.metadata = MetadataRoutes(self.site, self.recorder, self.names, clock)
        self.facts = Front(self.metadata)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._follower: asyncio.Task[None] | None = None
        self._named = 0.0

    async def start(self) -> list[str]:
        """Answer from now on; returns a line for a person per interface and listener."""
        loop = asyncio.get_running_loop()
        self.site.interfaces = read_interfaces()
        self._devices = Devices(self._sockets.by_device, self.site.interfaces)
        self.site.see(await loop.run_in_executor(self._pool, self._fleet.view))
        loop.add_reader(self._sockets.links, self._links_changed)
        self.dhcp.start(self._sockets.dhcp)
        self.dhcp6.start(self._sockets.dhcp6)
        self.overheard.start(self._sockets.ears)
        for sock in self._sockets.tftp:
            self.tftp.start(sock)
        self.http.start(self._sockets.http)
        await self._name()
        self.dns.start(*self._sockets.dns)
        self.facts.start(self._sockets.metadata)
        self._follower = loop.create_task(self._follow())
        return self.describe()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._follower is not None:
            self._follower.cancel()
        self.dhcp.close()
        self.dhcp6.close()
        self.overheard.close()
        self.tftp.close()
        await self.dns.close()
        await self.http.close()
        self._files.close()
        await self.facts.close()
        loop.remove_reader(self._sockets.links)
        self._sockets.links.close()
        await asyncio.to_thread(self._writer.close)
        if self._recording is not None:
            await asyncio.to_thread(self._recording.close)
        self._pool.shutdown()
        self._fleet.close()

    async def reload(self, config: Config) -> None:
        """Decide by `config` from now on; what it says about ports is left for the next start."""
        loop = asyncio.get_running_loop()
        fleet = await loop.run_in_executor(self._pool, open_fleet, config)
        view = await loop.run_in_executor(self._pool, fleet.view)
        self._fleet, old = fleet, self._fleet
        if self._recording is not None:
            self._recording.config = config
        self.site.config = self.recorder.config = config
        self.tftp.limits = config.tftp
        self.site.see(view)
        await self._name()
        await loop.run_in_executor(self._pool, old.close)

    def health(self) -> dict[str, object]:
        return {
            "status": "ok",
            "generation": self.site.view.generation,
            "events_waiting": self._writer.waiting,
            "events_dropped": self._writer.dropped,
            **self.gate.health(self._clock()),
            "dns": dict(self.dns.counts),
            "metadata": dict(self.metadata.counts),
            "other_servers": dict(self.overheard.servers),
        }

    def describe(self) -> list[str]:
        """What is listened on, by interface."""
        config = self.site.config
        dhcp = f"proxyDHCP udp {config.dhcp.port} and {config.dhcp.pxe_port}" if self._sockets.dhcp else "no DHCP"
        tftp, http = (socks[0].getsockname()[1] for socks in (self._sockets.tftp, self._sockets.http))
        ports = f"{dhcp}, TFTP udp {tftp}, HTTP tcp {http}"
        if config.dns.enabled:
            ports += f", DNS udp and tcp {config.dns.port}"
        if config.metadata.enabled:
            ports += f", metadata tcp {config.metadata.port}"
        lines = []
        interfaces = serving(self.site.interfaces, config.server.interfaces)
        for interface in interfaces:
            own = self.site.own(interface.index)
            lines.append(f"{interface.name}: machines are told {own or 'nothing (it has no IPv4 address)'}; {ports}")
            if self._sockets.dhcp6:
                own = self.site.own6(interface.index) or "nothing (it has no IPv6 address that a URL can name)"
                lines.append(f"{interface.name}: by DHCPv6 udp {config.dhcp6.port} they are told {own}")
        if not interfaces:
            lines.append("no interface is up to answer on")
        wanted = {config.boot.bios_loader, config.boot.efi_loader, *config.boot.loaders.values()}
        missing = [name for name in sorted(wanted) if find_loader(config.data / "loaders", name) is None]
        if missing:
            lines.append(f"missing loaders: {', '.join(missing)} (get them with: pxeserver loaders fetch)")
        return lines

    # --- following the fleet and the host ---

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        told, took = False, 0.0
        while True:
            await asyncio.sleep(max(POLL, took * REST))
            began = loop.time()
            self._files.sweep()
            try:
                generation = await loop.run_in_executor(self._pool, self._fleet.generation)
                if generation != self.site.view.generation:
                    self.site.see(await loop.run_in_executor(self._pool, self._fleet.view))
                    await self._name()
                elif self._named and loop.time() - self._named > REMEMBER:
                    await self._name()
            except PxeServerError as error:  # machines go on to be served by what is known
                if not told:
                    log.warning("the fleet cannot be read now, the last view stays in force: %s", error)
                told = True
            else:
                told = False
            took = loop.time() - began

    async def _name(self) -> None:
        """Names and addresses as the fleet has them now, if anybody may ask for them."""
        config = self.site.config
        if not config.dns.enabled and not config.metadata.enabled:
            return
        loop = asyncio.get_running_loop()
        self.names.see(await loop.run_in_executor(self._pool, self.names.made))
        self.names.load(await loop.run_in_executor(self._pool, self._fleet.addresses))
        self._named = loop.time()

    def _moved(self, mac: str, address: str, now: float) -> None:
        event = self.names.moved(mac, address, now)
        if event is not None:
            self._emit(event)

    def _links_changed(self) -> None:
        try:
            while self._sockets.links.recv(1 << 16):
                pass
        except OSError:
            pass
        asyncio.get_running_loop().call_later(_SETTLE, self._read_links)

    def _read_links(self) -> None:
        try:
            self.site.interfaces = read_interfaces()
            self.dns.forget()
            for name in self._devices.follow(self.site.interfaces):
                log.warning("%s came back as another interface; to hear it again, restart pxeserver", name)
        except OSError as error:
            log.warning("interfaces cannot be read: %s", error)
        self.dhcp6.join()

    # --- TFTP ---

    def _resolve(self, path: str, arrived: udp.Datagram) -> bytes | Path | None:
        if is_autoexec(path):
            own = self.site.own6(arrived.ifindex, arrived.own) if ":" in arrived.own else arrived.own
            base, poll = self.site.base_url(own), self.site.config.boot.poll_seconds
            try:
                return script.autoexec(base, poll_seconds=poll, templates=self.site.templates).encode()
            except PxeServerError as error:  # a fault in a user's template
                log.warning("no %s: %s", path, error)
                return None
        blob = self._blob(path)
        found = blob[0] if blob is not None else find_loader(self.site.config.data / "loaders", path)
        if found is not None or ":" in arrived.own:
            return found
        own = self.site.own(arrived.ifindex, arrived.own)
        return grub_config(self.site, self.recorder, path, arrived.peer[0], own, self._clock())

    def _blob(self, path: str) -> tuple[Path, File] | None:
        """b/HEX/NAME, as by HTTP."""
        match path.split("/"):
            case ["b", hex_digest, _]:
                return self.site.blob(hex_digest)
        return None

    def _delivered(self, outcome: Outcome) -> None:
        """TFTP shows only an address: the MAC follows from DHCP, or from the neighbour table."""
        peer = outcome.peer[0]
        mac = self.recorder.mac_of(peer) or neighbour(peer)
        generated = is_autoexec(outcome.name) or grub.asked(outcome.name) is not None
        if mac is None or self.recorder.recent(mac) is None or generated:
            log.info("%s to %s: %s %s", outcome.name, peer, outcome.result, outcome.text)
            return
        moved = Delivery(outcome.name, peer, outcome.bytes, outcome.size, outcome.seconds, outcome.text)
        blob = self._blob(outcome.name)
        file: File = blob[1] if blob is not None else "loader"
        if outcome.result == "done":
            self.recorder.sent(mac, "", file, moved, self._clock())
        elif outcome.result in ("aborted", "lost", "unreadable"):
            self.recorder.stopped(mac, "", file, moved, self._clock())

    def _emit(self, event: Event) -> None:
        self.names.heard(event)
        self._writer.put(event)
