"""The proxyDHCP listeners: sockets on 67 and 4011, one packet at a time through parse, decide, answer.

Nothing is decided here. Whatever makes no sense is counted and dropped; who is not booting from the network is only
heard: its address, and that a booted system shows up.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from pxeserver import config as configuration
from pxeserver.boot import find
from pxeserver.boot.answer import NOWHERE, Arrival, answer, boot_url, by_url
from pxeserver.boot.decide import SEEN, BootRequest, decide, request_of
from pxeserver.boot.request import mac_of
from pxeserver.config import Config
from pxeserver.errors import PxeServerError, Refused
from pxeserver.mac import Mac
from pxeserver.serve import udp
from pxeserver.serve.express import express
from pxeserver.serve.forms import First, Forms
from pxeserver.serve.rawdhcp import RawChannel
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.repeats import Repeats, Sent
from pxeserver.serve.site import Basis, Once, Site
from pxeserver.wire import dhcp
from pxeserver.wire.reader import WireError

log = logging.getLogger("pxeserver.dhcp")

LOOPBACK = "lo"
_DRAIN = 64  # packets per turn of the loop
_REQUESTED_IP = 50
_WAY = itemgetter(1, 2, 3)  # of an answer: peer, ifindex and our address


class Channel(Protocol):
    """A port that datagrams come in by and leave from."""

    port: int
    sock: socket.socket

    def receive(self) -> udp.Datagram | None: ...
    def send(self, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool: ...
    def send_all(self, answers: Sequence[udp.Answer]) -> list[udp.Answer]: ...  # those that could not be sent


class UdpChannel:
    """An ordinary bound socket."""

    def __init__(self, port: int, device: str = "") -> None:
        self.sock = udp.listen(port, what="dhcp", device=device, share=True)
        self.port = port

    def receive(self) -> udp.Datagram | None:
        return udp.receive(self.sock)

    def send(self, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool:
        return udp.send(self.sock, data, peer, ifindex, own)

    def send_all(self, answers: Sequence[udp.Answer]) -> list[udp.Answer]:
        """What is alike by one call, which costs an eighth for each, or one by one if the kernel refuses that."""
        unsent: list[udp.Answer] = []
        for (peer, ifindex, own), group in groupby(answers, _WAY):
            for size, of_size in groupby((payload for payload, *_ in group), len):
                alike = list(of_size)
                step = min(udp.SEGMENTS_MAX, udp.UDP_MAX // size)
                for start in range(0, len(alike), step):
                    some = alike[start : start + step]
                    if len(some) == 1 or not udp.send_alike(self.sock, some, peer, ifindex, own):
                        unsent += [(one, peer, ifindex, own) for one in some if not self.send(one, peer, ifindex, own)]
        return unsent


def open_channels(configured: Config) -> list[Channel]:
    """The listeners that the configuration asks for; one per named interface, so that other interfaces stay free.

    Raises Refused("port-taken") and the like. In raw mode only port 67 is left to its holder, unless 4011 is taken too.
    The loopback, where `selftest` poses as a relay, is listened to as well unless somebody has it.
    """
    config = configured.dhcp
    if config.mode == "off":
        return []
    named = configured.server.interfaces
    channels: list[Channel] = []
    try:
        for device in named or ("",):
            channels += [_channel(config, port, device) for port in (config.port, config.pxe_port)]
    except BaseException:
        for channel in channels:
            channel.sock.close()
        raise
    if named and LOOPBACK not in named:
        for port in (config.port, config.pxe_port):
            with contextlib.suppress(PxeServerError):
                channels.append(_channel(config, port, LOOPBACK))
    return channels


def _channel(config: configuration.Dhcp, port: int, device: str) -> Channel:
    if config.mode != "raw":
        return UdpChannel(port, device)
    if port != config.port:
        with contextlib.suppress(Refused):
            return UdpChannel(port, device)
    return RawChannel(port, device)


class DhcpServer:
    """Answers what comes in by `channels`; they belong to the server from `start` on."""

    def __init__(self, site: Site, recorder: Recorder, clock: Callable[[], float] = time.time) -> None:
        self.counts: Counter[str] = Counter()
        self.system: Callable[[str, str, float], None] = lambda mac, address, now: None  # told of such requests
        self._site = site
        self._recorder = recorder
        self._basis = Basis(site)
        self._repeats, self._forms = Repeats(recorder), Forms(site, recorder)
        self._clock = clock
        self._channels: list[Channel] = []
        self._once = Once(log.warning)

    def start(self, channels: Sequence[Channel]) -> None:
        loop = express()
        for channel in channels:
            self._channels.append(channel)
            loop.watch(channel.sock.fileno(), partial(self._ready, channel))
            loop.call_soon(self._ready, channel)  # what came before somebody watched

    def close(self) -> None:
        loop = express()
        for channel in self._channels:
            loop.unwatch(channel.sock.fileno())
            channel.sock.close()
        self._channels.clear()

    def _ready(self, channel: Channel, now: float = 0.0) -> None:
        """An express handler: others have their turn before what one turn leaves unread."""
        if channel in self._channels and not self._readable(channel):
            express().call_soon(self._ready, channel)

    def _readable(self, channel: Channel) -> bool:
        """Answer what has come, at most `_DRAIN` of it; True when that was all."""
        if self._basis.moved():
            self._repeats.clear()
            self._forms.clear()
        clock, port = self._clock, channel.port
        again, keep, first = self._repeats.again, self._repeats.keep, self._forms.first
        answers: list[udp.Answer] = []
        firsts: list[First] = []
        received = 0
        while received < _DRAIN and (arrived := channel.receive()) is not None:
            received += 1
            now = clock()
            if (repeated := again(port, arrived, now)) is not None:
                answers.append(repeated)
            elif (made := first(port, arrived, now)) is not None:
                answers.append(made[0][1:])
                firsts.append(made)
                keep(port, arrived, made[0], now)
            else:
                self._heard(channel, arrived, now)
        self.counts["received"] += received
        if answers:
            self._send(channel, answers, firsts)
        return received < _DRAIN

    def _send(self, channel: Channel, answers: Sequence[udp.Answer], firsts: Sequence[First]) -> None:
        """What needed no decision, together; first answers are written down when they went out."""
        unsent = channel.send_all(answers)
        if unsent:
            lost = {payload for payload, *_ in unsent}
            for sent in [sent for sent, _ in firsts if sent.payload in lost]:
                self._recorder.forget(sent.mac)
                self._unsent(sent)
            firsts = [first for first in firsts if first[0].payload not in lost]
        if firsts:
            self._recorder.offers([offer for _, offer in firsts])
        self.counts["answered"] += len(firsts)
        self.counts["repeated"] += len(answers) - len(firsts) - len(unsent)

    def _heard(self, channel: Channel, arrived: udp.Datagram, now: float) -> None:
        if not self._site.serves(arrived.ifindex, arrived.peer[0]):
            self.counts["other-interface"] += 1
            return
        try:
            packet = dhcp.parse(arrived.data)
        except WireError:
            self.counts["malformed"] += 1
            return
        if packet.op == dhcp.BOOTREQUEST:
            try:
                self._packet(channel, arrived, packet, now)
            except Exception:  # a fault of ours: it must not cost the packets behind this one
                self.counts["failed"] += 1
                if self.counts["failed"] == 1:
                    log.exception("no answer to %s", arrived.data.hex())

    def _packet(self, channel: Channel, arrived: udp.Datagram, packet: dhcp.Packet, now: float) -> None:
        request = request_of(packet, channel.port)
        mac = request.mac if request is not None else mac_of(packet)
        address = _address_of(packet)
        if mac is None:
            self.counts["no-mac"] += 1
            return
        self._recorder.addressed(mac, address)
        if request is not None:
            self._request(channel, arrived, packet, request, now)
        elif find.asks(packet):
            self._tell(channel, arrived, packet, mac, now)
        elif packet.message == dhcp.REQUEST:
            self.counts["heard"] += 1
            self._recorder.system_heard(mac, address, now)
            self.system(mac, address, now)

    def _request(
        self, channel: Channel, arrived: udp.Datagram, packet: dhcp.Packet, request: BootRequest, now: float
    ) -> None:
        site, recorder = self._site, self._recorder
        relay = packet.giaddr if packet.giaddr != NOWHERE else ""
        source = site.source(arrived.ifindex, arrived.own, relay, arrived.peer[0])
        own = site.told(source)
        if not own:
            self.counts["no-address"] += 1
            name = site.interfaces[arrived.ifindex].name
            self._once(f"no-address {name}", f"{request.mac} not answered: {name}, where it asks, has no IPv4 address")
            return
        recent = recorder.before(request, now)
        decision = decide(request, site.view, recent, site.config, now, site.quirks)
        if decision.action == "ignore":
            self.counts[f"ignored-{decision.why}"] += 1
            if decision.why in SEEN:
                recorder.ignored(request, decision, now)
            return
        arrival = Arrival(own, arrived.ifindex, channel.port, *arrived.peer)
        url = ""
        if by_url(request, decision):  # a signature takes a while
            token = recorder.seal(recent.boot, request.mac, decision.image, decision.revision)
            url = boot_url(own, site.http_port, token)
        try:
            reply = answer(packet, request, decision, arrival, url)
        except WireError as error:
            self.counts["unanswerable"] += 1
            self._once("unanswerable", f"no answer fits {request.mac}: {error}")
            return
        out = 0 if relay else arrived.ifindex  # a relay is reached by the routing table
        sent = Sent(request.mac, reply.payload, (reply.address, reply.port), out, source)
        if channel.send(sent.payload, sent.peer, sent.ifindex, sent.source):
            self.counts["answered"] += 1
            recorder.answered(request, decision, recent, arrived.data, arrival, now)
            if request.opening:
                self._repeats.keep(channel.port, arrived, sent, now)
                self._forms.keep(arrived, packet, request, decision, recent, arrival, sent)
        else:
            self._unsent(sent)

    def _unsent(self, sent: Sent) -> None:
        self.counts["unsent"] += 1
        self._once("unsent", f"the answer to {sent.mac} could not be sent to {sent.peer[0]}")

    def _tell(self, channel: Channel, arrived: udp.Datagram, packet: dhcp.Packet, mac: Mac, now: float) -> None:
        """A booted system that asks whose it is; it may ask by another card than the one that it was booted by."""
        relay = packet.giaddr if packet.giaddr != NOWHERE else ""
        source = self._site.source(arrived.ifindex, arrived.own, relay, arrived.peer[0])
        own = self._site.told(source)
        machine = self._site.view.machine(mac)
        macs = (mac, *(machine.macs if machine is not None else ()))
        token = self._recorder.current(macs, now, known=machine is not None)
        if not own or not token:
            self.counts["unknown-system"] += 1
            return
        arrival = Arrival(own, arrived.ifindex, channel.port, *arrived.peer)
        reply = find.tell(packet, arrival, boot_url(own, self._site.http_port, token))
        out = 0 if relay else arrived.ifindex
        if channel.send(reply.payload, (reply.address, reply.port), out, source):
            self.counts["told"] += 1


def _address_of(packet: dhcp.Packet) -> str:
    """The address that the client has, or asks its DHCP server for; "" if it shows none."""
    if packet.ciaddr != NOWHERE:
        return packet.ciaddr
    wanted = packet.option(_REQUESTED_IP) if packet.message == dhcp.REQUEST else None
    return socket.inet_ntoa(wanted) if wanted is not None and len(wanted) == 4 else ""
