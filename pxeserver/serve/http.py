"""The HTTP front: one loop, many connections, files by sendfile, a handler for everything else.

It never redirects and always sends a Content-Length (firmware and iPXE need both), except to listeners of a stream.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pxeserver.serve.connection import Connection
from pxeserver.serve.exchange import Handler, Limits, Request, Response, Sent
from pxeserver.serve.express import ExpressLoop, express
from pxeserver.serve.filepump import FilePump
from pxeserver.serve.proxies import Network, trusted

__all__ = ["Front", "Handler", "Limits", "Request", "Response", "Sent"]

log = logging.getLogger("pxeserver.http")

ACCEPTS = 64  # new connections in a turn of the loop
_LOOK = 1.0  # seconds between looks at the deadlines, or less where limits are shorter
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_EXHAUSTED_PAUSE = 0.2
_GRACE_STEP = 0.02
_TCP_USER_TIMEOUT = 18


@dataclass
class Front:
    """`start(sockets)` on the running loop, then `await close()`. One handler answers everything."""

    handler: Handler
    limits: Limits = field(default_factory=Limits)
    counts: Counter[str] = field(default_factory=Counter)
    pump: FilePump = field(default_factory=FilePump)
    proxies: Sequence[Network] = ()  # may have as many connections as they want
    _connections: set[Connection] = field(default_factory=set)
    _per_peer: dict[str, int] = field(default_factory=dict)
    _listening: dict[int, socket.socket] = field(default_factory=dict)
    _look: asyncio.TimerHandle | None = None
    _loop: ExpressLoop = field(init=False)
    _work: list[tuple[Callable[..., None], tuple[object, ...]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on listening, non-blocking sockets; they belong to the front from here on."""
        self._loop = loop = express()
        self.pump.open()
        for sock in sockets:
            if sock.family != socket.AF_UNIX:  # connections inherit both
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(self.limits.stall * 1000))
            self._listening[sock.fileno()] = sock
            accept = partial(self._accept, sock, sock.family)
            loop.watch(sock.fileno(), accept)
            loop.call_soon(accept)  # who came before somebody watched
        if self._look is None:
            self._look_at_deadlines()

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, give running responses `grace` seconds, end the rest."""
        for number, sock in self._listening.items():
            self._loop.unwatch(number)
            sock.close()
        self._listening.clear()
        for _ in range(round(grace / _GRACE_STEP)):
            if not any(connection.busy for connection in self._connections):
                break
            await asyncio.sleep(_GRACE_STEP)
        for connection in list(self._connections):
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self.pump.close()
        await asyncio.sleep(0)  # tasks that were cancelled end

    @property
    def connections(self) -> int:
        return len(self._connections)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of a connection; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def failed(self, request: Request) -> Response:
        """What is answered when the handler raised; called where the exception is handled."""
        self.counts["failed"] += 1
        log.exception("%s %s failed", request.method, request.path)
        return Response(500, b"internal error\n")

    def tell(self, sent: Callable[[Sent], None], what: Sent) -> None:
        """Pass on what went out; a fault there is no reason to lose the connection."""
        try:
            sent(what)
        except Exception:
            self.counts["failed"] += 1
            log.exception("a delivery was not noted")

    def later(self, work: Callable[..., None], *given: object) -> None:
        """Call that when everybody who waits to be accepted is answered: no machine waits for what another one left."""
        if not self._work:
            self._loop.call_soon(self._work_off)
        self._work.append((work, given))

    def _work_off(self) -> None:
        due, self._work = self._work, []
        for work, given in due:
            work(*given)

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        peer = connection.peer
        left = self._per_peer.pop(peer) - 1
        if left:
            self._per_peer[peer] = left

    def _accept(self, listening: socket.socket, family: int, now: float = 0.0) -> None:
        """An express handler: accept, and answer what comes with the connections."""
        for _ in range(ACCEPTS):
            if listening.fileno() not in self._listening:
                return
            try:  # accept() and a socket without detours by enums: those take longer than the system call
                number, address = listening._accept()  # type: ignore[attr-defined]
                sock = socket.SocketType(family, socket.SOCK_STREAM, 0, number)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.counts["accept-failed"] += 1
                if error.errno in _EXHAUSTED:
                    self._loop.call_later(_EXHAUSTED_PAUSE, self._accept, listening, family)
                    return
                continue  # the one that left before its turn
            self._begin(sock, address[0] if isinstance(address, tuple) else "")
        self._loop.call_soon(self._accept, listening, family)  # the others have a turn

    def _begin(self, sock: socket.SocketType, peer: str) -> None:
        number = self._per_peer.get(peer, 0)
        full = peer != "" and number >= self.limits.per_peer and not trusted(peer, self.proxies)
        if full or len(self._connections) >= self.limits.connections:
            self.counts["refused"] += 1
            sock.close()
            return
        sock.setblocking(False)
        try:
            connection = Connection(self, self._loop, sock, peer)
        except OSError:  # reset before it was looked at
            sock.close()
            return
        self._connections.add(connection)
        self._per_peer[peer] = number + 1
        connection.begin()

    def _look_at_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one in self._connections if one.overdue(now)]:
            connection.close()
        shortest = min(self.limits.first, self.limits.idle, self.limits.stall)
        self._look = loop.call_later(min(_LOOK, shortest / 4), self._look_at_deadlines)
