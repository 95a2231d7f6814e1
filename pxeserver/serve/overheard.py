"""Other DHCP servers on our wires that tell machines what to boot: overheard while they do it.

Offers are broadcast to port 68 when the client asks for that, as UEFI does; nobody listens there on a server, so they
are captured (packet(7)), and never answered. `doctor` asks for such offers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable

from pxeserver.boot.request import mac_of
from pxeserver.config import Config
from pxeserver.local.doctor_dhcp import offer_of
from pxeserver.serve.rawdhcp import RawChannel
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Once, Site
from pxeserver.wire import dhcp
from pxeserver.wire.reader import WireError

log = logging.getLogger("pxeserver.dhcp")

CLIENT_PORT = 68
SERVERS_MAX = 64  # remembered by address
_SETTLE = 1.0  # seconds; our own answer to the same DISCOVER, which begins the boot, may come after the other's
_DRAIN = 32


def open_ears(config: Config) -> list[RawChannel]:
    """Nothing where another server is meant to give boot options, or without the right to capture."""
    if config.dhcp.mode == "off":
        return []
    opened: list[RawChannel] = []
    with contextlib.suppress(OSError):
        for device in config.server.interfaces or ("",):
            opened.append(RawChannel(CLIENT_PORT, device))
    return opened


class Overheard:
    """`servers` maps the address of each other server to what it says, for people."""

    def __init__(self, site: Site, recorder: Recorder, clock: Callable[[], float] = time.time) -> None:
        self.counts: Counter[str] = Counter()
        self.servers: dict[str, str] = {}
        self._site, self._recorder, self._clock = site, recorder, clock
        self._once = Once(log.warning)
        self._ears: list[RawChannel] = []

    def start(self, ears: list[RawChannel]) -> None:
        loop = asyncio.get_running_loop()
        for ear in ears:
            self._ears.append(ear)
            loop.add_reader(ear.sock, self._readable, ear)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for ear in self._ears:
            loop.remove_reader(ear.sock)
            ear.sock.close()
        self._ears.clear()

    def _readable(self, ear: RawChannel) -> None:
        for _ in range(_DRAIN):
            arrived = ear.receive()
            if arrived is None:
                return
            if not self._site.serves(arrived.ifindex) or arrived.peer[0] in self._ours():
                continue
            try:
                packet = dhcp.parse(arrived.data)
            except WireError:
                self.counts["malformed"] += 1
                continue
            self.hear(packet, arrived.peer[0])

    def hear(self, packet: dhcp.Packet, sender: str) -> None:
        """An answer to a machine, from `sender`."""
        mac, offer = mac_of(packet), offer_of(packet)
        what = offer.says
        if packet.op != dhcp.BOOTREPLY or packet.message not in (dhcp.OFFER, dhcp.ACK) or mac is None or not what:
            return
        server = sender if offer.server in ("", "0.0.0.0") else offer.server
        if server in self._ours():
            return
        self.counts["other-servers"] += 1
        if server in self.servers or len(self.servers) < SERVERS_MAX:
            self.servers[server] = what
        self._once(server, f"another DHCP server, {server}, {what}: some firmware prefers it to us")
        asyncio.get_running_loop().call_later(_SETTLE, self._note, mac, server, what)

    def _note(self, mac: str, server: str, what: str) -> None:
        self._recorder.other_server(mac, server, what, self._clock())

    def _ours(self) -> set[str]:
        own = {str(address.ip) for one in self._site.interfaces.values() for address in one.addresses}
        return own | {self._site.config.server.advertise}
