"""The TFTP server: read-only, one connected socket per transfer, answers from the address that was asked.

Whatever arrives costs at most itself: what is no request is counted and dropped, what may not be served gets one ERROR.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from pxeserver import config as configuration
from pxeserver.serve import udp
from pxeserver.serve.blocks import FrameCache, size_of, window_cap
from pxeserver.serve.express import express
from pxeserver.serve.transfer import Outcome, Transfer
from pxeserver.wire import tftp
from pxeserver.wire.reader import WireError

log = logging.getLogger("pxeserver.tftp")

_DRAIN = 64  # datagrams per turn of the loop
_SWEEP = 0.02  # seconds between looks for transfers that wait too long; less than half of the shortest wait
# IP, UDP and TFTP headers; the options that tell the path's MTU (ip(7), ipv6(7))
_OVERHEAD, _OVERHEAD6 = 32, 52
_IP_MTU, _IPV6_MTU = 14, 24

# A rack of one make asks in the same words, all at once; what they mean follows from nothing but them.
_parse = lru_cache(256)(tftp.parse)

Resolve = Callable[[str, udp.Datagram], bytes | Path | None]


@lru_cache(256)
def _terms(request: tftp.Request, size: int, blksize_max: int, windowsize_max: int) -> tftp.Terms:
    windowsize_max = window_cap(request, blksize_max, windowsize_max)
    return tftp.negotiate(request, size, blksize_max=blksize_max, windowsize_max=windowsize_max)


class TftpServer:
    """`resolve(path, request datagram)` gives the content of a name, None for no file; `report` hears every outcome."""

    def __init__(
        self,
        limits: configuration.Tftp,
        resolve: Resolve,
        report: Callable[[Outcome], None],
        *,
        serves: Callable[[int], bool] = lambda ifindex: True,
    ) -> None:
        self.limits = limits
        self.counts: Counter[str] = Counter()
        self._resolve = resolve
        self._report = report
        self._serves = serves
        self._cache = FrameCache()
        self._listening: list[socket.socket] = []
        self._transfers: dict[tuple[str, int], Transfer] = {}
        self._per_peer: Counter[str] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None

    def start(self, sock: socket.socket) -> None:
        """Serve a socket made by `udp.listen`; it belongs to the server from here on."""
        self._listening.append(sock)
        express().add_reader(sock, self._readable, sock)

    def close(self) -> None:
        loop = express()
        for sock in self._listening:
            loop.remove_reader(sock)
            sock.close()
        self._listening.clear()
        for transfer in list(self._transfers.values()):
            transfer.end("stopped", "the server stops")
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_DRAIN):
            arrived = udp.receive(sock)
            if arrived is None:
                return
            if not self._serves(arrived.ifindex):
                self.counts["other-interface"] += 1
                continue
            try:
                message = _parse(arrived.data)
            except WireError:
                self.counts["malformed"] += 1
                continue
            if not isinstance(message, tftp.Request):
                self.counts["stray"] += 1
                continue
            try:
                self._request(sock, arrived, message)
            except Exception:  # a fault of ours: it must not cost the requests behind this one
                self.counts["failed"] += 1
                if self.counts["failed"] == 1:
                    log.exception("no answer to %r", arrived.data)

    def _request(self, sock: socket.socket, arrived: udp.Datagram, request: tftp.Request) -> None:
        self.counts["requests"] += 1
        if request.write:
            self._refuse(sock, arrived, tftp.ACCESS_VIOLATION, "this server only gives files")
            return
        if request.mode != "octet":
            self._refuse(sock, arrived, tftp.ILLEGAL, "only mode octet")
            return
        running = self._transfers.get(arrived.peer)
        if running is not None and running.untouched and running.request == request:
            self.counts["repeated"] += 1  # our first packet is on its way, or its timeout runs
            return
        if running is not None:
            running.end("replaced", "the client asked anew from the same port")
        peer = arrived.peer[0]
        if len(self._transfers) >= self.limits.sessions_max or self._per_peer[peer] >= self.limits.sessions_per_peer:
            self.counts["full"] += 1  # no answer: the client asks again when there is room
            return
        path = request.path
        content = self._resolve(path, arrived) if path is not None else None
        try:
            if content is None or path is None:
                raise FileNotFoundError(request.filename)
            self._open(arrived, request, path, content)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            self.counts["not-found"] += 1
            log.info("%s asked for %r: no such file", peer, request.filename)
            self._refuse(sock, arrived, tftp.NOT_FOUND, "no such file")
        except OSError as error:
            self.counts["failed"] += 1
            log.warning("transfer of %s to %s not started: %s", request.filename, peer, error)

    def _refuse(self, sock: socket.socket, arrived: udp.Datagram, code: int, text: str) -> None:
        self.counts["refused"] += 1
        udp.send(sock, tftp.pack_error(code, text), arrived.peer, arrived.ifindex, arrived.own)

    def _open(self, arrived: udp.Datagram, request: tftp.Request, path: str, content: bytes | Path) -> None:
        size = size_of(content)
        family = socket.AF_INET6 if ":" in arrived.own else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.bind(udp.sockaddr((arrived.own, 0), arrived.ifindex))
            sock.connect(udp.sockaddr(arrived.peer, arrived.ifindex))
            terms = _terms(request, size, self._blksize_max(sock), self.limits.windowsize_max)
            transfer = Transfer(sock, path, request, self._cache.open(content, terms.blksize), terms, self._ended)
        except OSError:
            sock.close()
            raise
        self._transfers[arrived.peer] = transfer
        self._per_peer[arrived.peer[0]] += 1
        transfer.start()
        if self._sweeper is None:
            self._sweeper = express().call_later(_SWEEP, self._sweep)

    def _blksize_max(self, sock: socket.socket) -> int:
        """A block must cross the path in one piece: many ROMs cannot put fragments together."""
        if sock.family == socket.AF_INET6:
            room = sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU) - _OVERHEAD6
        else:
            room = sock.getsockopt(socket.IPPROTO_IP, _IP_MTU) - _OVERHEAD
        return max(tftp.DEFAULT_BLKSIZE, min(self.limits.blksize_max, room))

    def _sweep(self) -> None:
        """One timer for all transfers: setting one anew for every block would cost as much as the block."""
        loop = express()
        self._sweeper = loop.call_later(_SWEEP, self._sweep) if self._transfers else None
        now = loop.time()
        for transfer in [one for one in self._transfers.values() if one.overdue(now)]:
            transfer.expired(now)

    def _ended(self, transfer: Transfer, outcome: Outcome) -> None:
        peer = transfer.peer
        if self._transfers.get(peer) is transfer:
            del self._transfers[peer]
        self._per_peer[peer[0]] -= 1
        if self._per_peer[peer[0]] <= 0:
            del self._per_peer[peer[0]]
        self.counts[outcome.result] += 1
        self.counts["bytes"] += outcome.bytes
        express().call_soon(self._report, outcome)  # after the blocks that others wait for
