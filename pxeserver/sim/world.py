"""Plays a machine over real sockets: UDP through the faults of its network, HTTP from the machine's address."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import socket
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx

from pxeserver.sim import faults as bad
from pxeserver.sim.dialogue import CLIENT
from pxeserver.sim.effects import (
    Broadcast,
    Clock,
    Close,
    Effect,
    Fetch,
    Fetched,
    Heard,
    Listen,
    Open,
    Peer,
    Play,
    Say,
    Send,
    Sleep,
    T,
    Use,
)
from pxeserver.sim.links import Link

HTTP_TIMEOUT = 30.0
_PORTS = range(20_000, 60_000)
Watch = Callable[[float, Say], None]


class World:
    """One machine's surroundings. `pace` 10 makes its clock run ten times as fast as ours."""

    def __init__(
        self,
        link: Link,
        *,
        rng: random.Random,
        faults: bad.Faults = bad.NONE,
        watch: Watch = lambda at, say: None,
        pace: float = 1.0,
    ) -> None:
        self._link, self._rng, self._faults, self._watch, self._pace = link, rng, faults, watch, pace
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._address = ""
        self._ports: dict[int, socket.socket] = {}
        self._inboxes: defaultdict[int, asyncio.Queue[Heard]] = defaultdict(asyncio.Queue)
        self._http: httpx.AsyncClient | None = None

    async def play(self, play: Play[T]) -> T:
        """The generator's result, all its wishes granted. Closes everything at the end."""
        answer: Any = None
        self._link.start(partial(self._arrived, CLIENT), self._note)
        try:
            while True:
                try:
                    effect = play.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer = await self._do(effect)
        finally:
            play.close()
            await self._close()

    def _note(self, text: str) -> None:
        self._watch(self.now(), Say("note", text))

    async def _close(self) -> None:
        self._link.close()
        for port in list(self._ports):
            self._close_port(port)
        if self._http is not None:
            await self._http.aclose()

    def now(self) -> float:
        """The machine's seconds since it was switched on."""
        return (self._loop.time() - self._began) * self._pace

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Clock():
                return self.now()
            case Listen(port, until):
                return await self._listen(port, until)
            case Send(payload, to, port):
                self._throw(partial(self._send, payload, to, port))
            case Broadcast(payload):
                self._throw(partial(self._link.broadcast, payload))
            case Open(port):
                return self._open(port)
            case Close(port):
                self._close_port(port)
            case Use(address, server):
                self._address = self._link.use(address, server)
                return self._address
            case Sleep(seconds):
                await asyncio.sleep(seconds / self._pace)
            case Fetch():
                return await self._fetch(effect)
            case Say():
                self._watch(self.now(), effect)
        return None

    # --- UDP ---

    def _throw(self, deliver: Callable[[], None]) -> None:
        """Hand a datagram to the network, which may lose, delay or double it."""
        for after in self._faults.fate(self._rng):
            if after:
                self._loop.call_later(after / self._pace, deliver)
            else:
                deliver()

    def _arrived(self, port: int, payload: bytes, peer: Peer) -> None:
        self._throw(lambda: self._inboxes[port].put_nowait(Heard(payload, peer, self.now())))

    async def _listen(self, port: int, until: float) -> Heard | None:
        try:
            async with asyncio.timeout_at(self._began + until / self._pace):
                return await self._inboxes[port].get()
        except TimeoutError:
            return None

    def _open(self, port: int) -> int:
        """Bind at the machine's address. A well-known port that this host uses itself is replaced behind the scenes."""
        if port in self._ports:
            return port
        for _ in range(50):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            number = port or self._rng.choice(_PORTS)
            if port:  # beside a boot server that has the port of all addresses
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((self._address, number))
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                if not port:
                    continue
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                sock.bind((self._address, 0))
                self._note(f"port {port} is in use on this host: asks from another one")
            self._ports[number] = sock
            self._loop.add_reader(sock, self._readable, number, sock)
            return number
        raise OSError(errno.EADDRINUSE, "no free port")

    def _close_port(self, port: int) -> None:
        sock = self._ports.pop(port, None)
        if sock is not None:
            self._loop.remove_reader(sock)
            sock.close()
        self._inboxes.pop(port, None)

    def _readable(self, port: int, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                payload, peer = sock.recvfrom(65535)
            except OSError:
                return
            self._arrived(port, payload, peer)

    def _send(self, payload: bytes, to: Peer, port: int) -> None:
        sock = self._ports.get(port)
        try:
            if sock is not None:
                sock.sendto(payload, to)
        except OSError:
            pass  # a lost datagram

    # --- HTTP ---

    async def _fetch(self, wanted: Fetch) -> Fetched:
        if self._http is None:
            transport = httpx.AsyncHTTPTransport(local_address=self._address or None)
            self._http = httpx.AsyncClient(transport=transport, timeout=HTTP_TIMEOUT, trust_env=False)
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        headers = {"accept-encoding": "identity", **wanted.headers}
        try:
            async with self._http.stream(
                wanted.method, wanted.url, headers=headers, data=dict(wanted.form) or None
            ) as answer:
                async for part in answer.aiter_raw():
                    digest.update(part)
                    size += len(part)
                    kept += part[: max(0, wanted.keep - len(kept))]
                found = {name.lower(): value for name, value in answer.headers.items()}
                return Fetched(answer.status_code, found, size, digest.hexdigest(), bytes(kept))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            text = _plain(error)
            return Fetched(0, size=size, why=f"{text} after {size} bytes" if size else text)


def _plain(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    if isinstance(error, httpx.TimeoutException):
        return f"nothing for {HTTP_TIMEOUT:g} s"
    return str(error) or type(error).__name__
