"""DNS over UDP and TCP. Most answers are prepared: a look-up by the query's bytes, and out again.

An answer is kept the first time that a query comes on a wire (names of ours have other addresses on others), for all
queries that differ from it in the ID alone; all are forgotten when anything changes. The arrival information of a query
(IP_PKTINFO) goes back with its answer as it came: out of the same interface, from the address that was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pxeserver.boot import zone
from pxeserver.boot.zone import Own
from pxeserver.config import Config
from pxeserver.errors import PxeServerError
from pxeserver.serve import listening, udp
from pxeserver.serve.dhcp import LOOPBACK
from pxeserver.serve.dnsforward import Forwarder, may_ask
from pxeserver.serve.names import NameTable
from pxeserver.serve.site import Site
from pxeserver.wire import dns
from pxeserver.wire.dns import Answer, Query
from pxeserver.wire.reader import WireError

log = logging.getLogger("pxeserver.dns")

_DRAIN, _SLOW = 256, 16  # datagrams of one turn, and those that are not prepared: then the other listeners
_SPACE = socket.CMSG_SPACE(20)
_PREPARED_MAX, _PREPARED_QUERY = 50_000, 300  # answers, and bytes of a query whose answer is kept
_NO_OPTIONS = (b"\0\1", b"\0\0")  # a query's end: class IN, or an OPT record that holds nothing
_QUERY_MAX = 992  # bytes of a datagram; more is no query with one name. Larger buffers cost malloc() longer ways
_WIRES_MAX = 1024
_STREAMS, _STREAM_IDLE, _STREAM_QUERIES = 128, 10.0, 1000
_REFUSED = Answer(dns.REFUSED, authoritative=False)

Prepared = dict[bytes, bytes]  # a query but for its ID -> its answer but for the ID


@dataclass(slots=True)
class _Wire:
    """Who asks by one interface of one own address."""

    own: Own
    prepared: Prepared
    serves: bool


def open_sockets(config: Config) -> tuple[list[socket.socket], list[socket.socket]]:
    """UDP and TCP listeners, of each family, one per named interface; none when DNS is off. Refused("port-taken").

    The loopback, where `doctor` asks, as well unless somebody has it (systemd-resolved).
    """
    if not config.dns.enabled:
        return [], []
    port, named = config.dns.port, config.server.interfaces
    families = ("", "::") if udp.has_ipv6() else ("",)
    by_udp: list[socket.socket] = []
    by_tcp: list[socket.socket] = []
    try:
        for device in named or ("",):
            for address in families:
                by_udp.append(udp.listen(port, what="dns", device=device, address=address))
                by_tcp.append(listening.tcp(address, port, "dns", device))
    except BaseException:
        for sock in (*by_udp, *by_tcp):
            sock.close()
        raise
    if named and LOOPBACK not in named:
        with contextlib.suppress(PxeServerError):
            by_udp.append(udp.listen(port, what="dns", device=LOOPBACK))
            by_tcp.append(listening.tcp("", port, "dns", LOOPBACK))
    return by_udp, by_tcp


class DnsServer:
    """Answers from `start` until `close`."""

    def __init__(self, site: Site, table: NameTable) -> None:
        self.counts: Counter[str] = Counter()
        self.forwarder = Forwarder(self.counts)
        self._site, self._table = site, table
        self._udp: list[socket.socket] = []
        self._tcp: list[socket.socket] = []
        self._streams: set[asyncio.Task[None]] = set()
        self._wires: dict[bytes, _Wire] = {}  # by the arrival information
        self.forget()
        table.changed = self.forget

    def start(self, by_udp: Sequence[socket.socket], by_tcp: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for sock in by_udp:
            self._udp.append(sock)
            loop.add_reader(sock, self._readable, sock)
        for sock in by_tcp:
            self._tcp.append(sock)
            loop.add_reader(sock, self._accept, sock)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in (*self._udp, *self._tcp):
            loop.remove_reader(sock)
            sock.close()
        tasks = [*self._streams, *self.forwarder.running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """Names, addresses or interfaces are others now."""
        self._wires.clear()

    # --- UDP ---

    def _readable(self, sock: socket.socket) -> None:
        """The hot path: no objects but bytes for what is prepared."""
        receive, send, wires = sock.recvmsg, sock.sendmsg, self._wires
        fast = slow = 0
        try:
            while fast < _DRAIN and slow < _SLOW:
                data, control, _, peer = receive(_QUERY_MAX, _SPACE)
                try:
                    rest = wires[control[0][2]].prepared[data[2:]]
                except (KeyError, IndexError):
                    slow += 1
                    self._unprepared(sock, data, control, peer)
                    continue
                fast += 1
                try:
                    send((data[:2], rest), control, 0, peer)
                except OSError:
                    self.counts["unsent"] += 1
        except OSError:  # nothing left, or a pending error of a peer that went away
            pass
        self.counts["prepared"] += fast
        self.counts["received"] += fast + slow

    def _unprepared(self, sock: socket.socket, data: bytes, control: list[tuple[int, int, bytes]], peer: Any) -> None:
        try:
            wire = self._wire(control, peer[0])
            if not wire.serves:
                self.counts["other-interface"] += 1
                return
            answer = self._answer(wire, data, peer[0], partial(self._send, sock, control, peer))
        except Exception:  # a fault of ours: it must not cost the queries behind this one
            self.counts["failed"] += 1
            if self.counts["failed"] == 1:
                log.exception("no answer to %s", data.hex())
            return
        if answer is not None:
            self._send(sock, control, peer, answer)

    def _send(self, sock: socket.socket, control: list[tuple[int, int, bytes]], peer: Any, answer: bytes) -> None:
        try:
            sock.sendmsg((answer,), control, 0, peer)
        except OSError:
            self.counts["unsent"] += 1

    def _wire(self, control: list[tuple[int, int, bytes]], peer: str) -> _Wire:
        """The wire that this arrival information stands for; made anew after every change."""
        ifindex, asked = udp.arrival(control)
        wire = _Wire(self._table.own(ifindex, asked, peer), {}, self._site.serves(ifindex, peer))
        if wire.serves and len(self._wires) < _WIRES_MAX:
            return self._wires.setdefault(control[0][2], wire)
        return wire

    # --- what is answered ---

    def _answer(self, wire: _Wire, data: bytes, peer: str, later: Any, stream: bool = False) -> bytes | None:
        """The answer's bytes; None when there is none, or when `later` will be called with them."""
        recursion = bool(self._site.config.dns.upstreams)
        try:
            query = dns.parse(data)
        except WireError:
            self.counts["malformed"] += 1
            return dns.formerr(data)
        limit = 0 if stream else query.size
        fault = _fault(query)
        if fault is not None:
            self.counts["not-answerable"] += 1
            return dns.reply(query, fault, recursion=recursion, limit=limit)
        names = self._table.names
        answer = zone.answer(query.labels, query.qtype, names, self._table.book, wire.own)
        if answer is None:
            if self._forward(query, data, peer, later, stream):
                return None
            self.counts["refused"] += 1
            return dns.reply(query, _REFUSED, recursion=recursion, limit=limit)
        self.counts["nxdomain" if answer.rcode == dns.NXDOMAIN else "answered"] += 1
        reply = dns.reply(query, answer, recursion=recursion, limit=limit)
        # names that are not there would fill it, and EDNS options: a cookie makes each query another
        lasting = answer.rcode == dns.NOERROR and data.endswith(_NO_OPTIONS)
        if lasting and len(data) <= _PREPARED_QUERY and not stream:
            if len(wire.prepared) >= _PREPARED_MAX:
                wire.prepared.clear()
            wire.prepared[data[2:]] = reply[2:]
        return reply

    def _forward(self, query: Query, data: bytes, peer: str, later: Any, stream: bool) -> bool:
        upstreams = self._site.config.dns.upstreams
        if not upstreams or not query.flags & dns.RD:
            return False
        if not may_ask(peer, self._site.interfaces.values()):
            self.counts["not-forwarded"] += 1
            return False
        self.forwarder.forward(query, data, upstreams, later, stream)
        return True

    # --- TCP (RFC 7766) ---

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(16):
            try:
                sock, address = listener.accept()
            except OSError:
                return
            if len(self._streams) >= _STREAMS:
                self.counts["streams-refused"] += 1
                sock.close()
                continue
            sock.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._converse(sock, address[0].partition("%")[0]))
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)

    async def _converse(self, sock: socket.socket, peer: str) -> None:
        """Queries one after the other, each behind its length."""
        asked = sock.getsockname()[0].partition("%")[0]
        named = self._site.named(asked)
        ifindex = next((i.index for i in self._site.interfaces.values() if i.name == named), 0)
        wire = _Wire(self._table.own(ifindex, asked, peer), {}, self._site.serves(ifindex, peer))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
        try:
            for _ in range(_STREAM_QUERIES if wire.serves else 0):
                async with asyncio.timeout(_STREAM_IDLE):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                self.counts["received"] += 1
                later: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                answer = self._answer(wire, data, peer, partial(_settle, later), stream=True)
                if answer is None:
                    if dns.formerr(data) is None:
                        return
                    answer = await later
                writer.write(len(answer).to_bytes(2, "big") + answer)
                async with asyncio.timeout(_STREAM_IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()


def _settle(later: asyncio.Future[bytes], answer: bytes) -> None:
    if not later.done():
        later.set_result(answer)


def _fault(query: Query) -> Answer | None:
    """What is wrong with a query that can be read."""
    if query.opcode != 0:
        return Answer(dns.NOTIMP, authoritative=False)
    if query.edns > 0:
        return Answer(dns.BADVERS, authoritative=False)
    if query.qclass != dns.IN or query.qtype in (dns.AXFR, dns.IXFR, dns.OPT):
        return _REFUSED
    return None
