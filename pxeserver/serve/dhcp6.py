"""The DHCPv6 listeners: 547 by multicast and 4011 for PXE, one message at a time through parse, decide, answer.

As serve/dhcp.py does for DHCPv4: nothing is decided here, what makes no sense is counted and dropped, who is not
booting from the network is only heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence

from pxeserver.boot.answer import Arrival, boot_url
from pxeserver.boot.answer6 import answer6
from pxeserver.boot.decide import SEEN, decide
from pxeserver.boot.request6 import mac_of6, request_of6
from pxeserver.config import Config
from pxeserver.local.interfaces import neighbour, serving
from pxeserver.mac import Mac
from pxeserver.serve import udp
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Once, Site
from pxeserver.wire import dhcp6
from pxeserver.wire.reader import WireError

log = logging.getLogger("pxeserver.dhcp6")

GROUPS = ("ff02::1:2", "ff05::1:3")  # all relay agents and servers on the link; all servers, for relay agents
_HEARD = frozenset({dhcp6.SOLICIT, dhcp6.REQUEST, dhcp6.INFORMATION_REQUEST})
_DRAIN = 64  # messages per turn of the loop


def open_sockets(configured: Config) -> list[socket.socket]:
    """The listeners that the configuration asks for; one per named interface and port. Refused("port-taken")."""
    if configured.dhcp6.mode == "off":
        return []
    opened: list[socket.socket] = []
    try:
        for device in configured.server.interfaces or ("",):
            for port in (configured.dhcp6.port, configured.dhcp.pxe_port):
                opened.append(udp.listen(port, what="dhcp6", device=device, address="::", share=True))
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


class Dhcp6Server:
    """Answers what comes in by `sockets`; they belong to the server from `start` on."""

    def __init__(self, site: Site, recorder: Recorder, clock: Callable[[], float] = time.time) -> None:
        self.counts: Counter[str] = Counter()
        self._site, self._recorder, self._clock = site, recorder, clock
        self._sockets: list[socket.socket] = []
        self._once = Once(log.warning)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._sockets.append(sock)
            loop.add_reader(sock, self._readable, sock)
        self.join()

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def join(self) -> None:
        """Hear the groups on every interface that is served now; again after each change of the interfaces."""
        for interface in serving(self._site.interfaces, self._site.config.server.interfaces):
            for sock in self._sockets:
                for group in GROUPS:
                    self._join(sock, group, interface.index)

    def _join(self, sock: socket.socket, group: str, ifindex: int) -> None:
        where = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", ifindex)
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # joined already
                self._once("join", f"DHCPv6 cannot be heard on interface {ifindex}: {error.strerror}")

    def _readable(self, sock: socket.socket) -> None:
        port = sock.getsockname()[1]
        for _ in range(_DRAIN):
            arrived = udp.receive(sock)
            if arrived is None:
                return
            self.counts["received"] += 1
            if not self._site.serves(arrived.ifindex):
                self.counts["other-interface"] += 1
                continue
            try:
                packet = dhcp6.parse(arrived.data)
            except WireError:
                self.counts["malformed"] += 1
                continue
            try:
                self._packet(sock, port, arrived, packet)
            except Exception:  # a fault of ours: it must not cost the messages behind this one
                self.counts["failed"] += 1
                if self.counts["failed"] == 1:
                    log.exception("no answer to %s", arrived.data.hex())

    def _packet(self, sock: socket.socket, port: int, arrived: udp.Datagram, packet: dhcp6.Packet) -> None:
        now, site = self._clock(), self._site
        if packet.message not in _HEARD:
            self.counts["not-ours"] += 1
            return
        mac = mac_of6(packet, arrived.peer[0], lambda address: self._recorder.mac_of(address) or neighbour(address))
        if mac is None:
            self.counts["no-mac"] += 1
            return
        self._learn(mac, arrived.peer[0], packet)
        own = site.own6(arrived.ifindex, arrived.own)
        request = request_of6(packet, port, mac, own)
        if request is None:
            if packet.message == dhcp6.REQUEST:
                self.counts["heard"] += 1
                self._recorder.system_heard(mac, next(iter(_addresses(packet)), arrived.peer[0]), now)
            return
        if not own:
            self.counts["no-address"] += 1
            self._once("no-address", f"{mac} not answered: its interface has no IPv6 address that a URL can name")
            return
        recent = self._recorder.before(request, now)
        decision = decide(request, site.view, recent, site.config, now, site.quirks)
        if decision.action == "ignore":
            self.counts[f"ignored-{decision.why}"] += 1
            if decision.why in SEEN:
                self._recorder.ignored(request, decision, now)
            return
        token = self._recorder.seal(recent.boot, mac, decision.image, decision.revision)
        arrival = Arrival(own, arrived.ifindex, port, *arrived.peer)
        try:
            reply = answer6(packet, request, decision, arrival, boot_url(own, site.http_port, token))
        except WireError as error:
            self.counts["unanswerable"] += 1
            self._once("unanswerable", f"no answer fits {mac}: {error}")
            return
        # to a multicast the kernel answers from what fits the target: link-local on the link
        source = "" if arrived.own.startswith("ff") else arrived.own
        routed = packet.relays and not reply.address.startswith("fe80:")
        ifindex = 0 if routed else arrived.ifindex
        if udp.send(sock, reply.payload, (reply.address, reply.port), ifindex, source):
            self.counts["answered"] += 1
            self._recorder.answered(request, decision, recent, arrived.data, arrival, now)
        else:
            self.counts["unsent"] += 1
            self._once("unsent", f"the answer to {mac} could not be sent to {reply.address}")

    def _learn(self, mac: Mac, peer: str, packet: dhcp6.Packet) -> None:
        """Whose addresses these are: TFTP shows nothing else of a machine."""
        if not packet.relays:
            self._recorder.addressed(mac, peer)
        if packet.message == dhcp6.REQUEST:
            for address in _addresses(packet):
                self._recorder.addressed(mac, address)


def _addresses(packet: dhcp6.Packet) -> tuple[str, ...]:
    with contextlib.suppress(WireError):
        return dhcp6.addresses(packet)
    return ()
