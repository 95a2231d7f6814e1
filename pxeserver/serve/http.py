"""The HTTP front: one loop, many connections, files by sendfile, a handler for everything else.

It never redirects and always sends a Content-Length (firmware and iPXE need both), except to listeners of a stream.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO
from urllib.parse import parse_qsl

from pxeserver.serve.connection import Connection, Gone
from pxeserver.serve.httpwire import HEAD_MAX, BadRequest, Head, pack_head, parse_head, parse_range

log = logging.getLogger("pxeserver.http")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request and the connection's two ends ("10.0.0.5", our own "10.0.0.1"; "" on a Unix socket)."""

    head: Head
    body: bytes
    peer: str
    own: str
    port: int = 0  # our own

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def query(self) -> dict[str, str]:
        """The query's last value of each name."""
        return dict(parse_qsl(self.head.query, keep_blank_values=True, errors="replace", max_num_fields=100))

    @property
    def form(self) -> dict[str, str]:
        """The body read as a form."""
        text = self.body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=100))


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a response's body."""

    first: int  # offset of the first byte within the file
    sent: int  # bytes that went out
    wanted: int  # bytes that should have
    size: int  # of the whole file or body
    seconds: float

    @property
    def to_the_end(self) -> bool:
        """Everything wanted was sent, and the last byte of the file is part of it."""
        return self.sent == self.wanted and self.first + self.wanted == self.size


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler gives: `body`, or `file` (by sendfile; closed afterwards), or `stream` (until the peer leaves)."""

    status: int = 200
    body: bytes = b""
    type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()
    file: BinaryIO | None = None
    etag: str = ""  # without quotes; only for files
    stream: AsyncGenerator[bytes, None] | None = None
    sent: Callable[[Sent], None] | None = None  # told once the body is out, or cut short


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer and all of them may take; seconds and bytes."""

    connections: int = 4000
    per_peer: int = 256
    first: float = 15.0  # until the first request is whole
    idle: float = 75.0  # between requests of one connection
    stall: float = 60.0  # a body that does not move at all
    body: int = 1 << 20


@dataclass
class Front:
    """`await start(sockets)`, then `await close()`. One handler answers everything."""

    handler: Handler
    limits: Limits = field(default_factory=Limits)
    counts: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _per_peer: Counter[str] = field(default_factory=Counter)
    _listening: list[socket.socket] = field(default_factory=list)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on listening, non-blocking sockets; they belong to the front from here on."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._listening.append(sock)
            loop.add_reader(sock, self._accept, sock)

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, give running responses `grace` seconds, end the rest."""
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            loop.remove_reader(sock)
            sock.close()
        self._listening.clear()
        if grace and self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(64):  # then let the others have a turn
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.counts["accept-failed"] += 1
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    loop = asyncio.get_running_loop()  # out of descriptors: pause instead of spinning on a ready socket
                    loop.remove_reader(listening)
                    loop.call_later(0.2, self._resume, listening)
                return
            peer = address[0] if isinstance(address, tuple) else ""
            full = peer != "" and self._per_peer[peer] >= self.limits.per_peer
            if full or len(self._tasks) >= self.limits.connections:
                self.counts["refused"] += 1
                sock.close()
                continue
            task = asyncio.get_running_loop().create_task(self._converse(Connection(sock), peer))
            self._tasks.add(task)
            self._per_peer[peer] += 1
            task.add_done_callback(partial(self._ended, peer))

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _ended(self, peer: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._per_peer[peer] -= 1
        if self._per_peer[peer] <= 0:
            del self._per_peer[peer]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counts["failed"] += 1
            log.error("a connection failed", exc_info=error)

    async def _converse(self, connection: Connection, peer: str) -> None:
        own, port = connection.own
        timeout = self.limits.first
        try:
            while True:
                raw = await connection.read_head(HEAD_MAX, timeout)
                head = parse_head(raw)
                request = Request(head, await self._read_body(connection, head), peer, own, port)
                self.counts["requests"] += 1
                if not await self._respond(connection, request):
                    return
                timeout = self.limits.idle
        except BadRequest as bad:
            self.counts["bad"] += 1
            await self._refuse(connection, bad)
        except Gone:
            pass
        finally:
            connection.close()

    async def _read_body(self, connection: Connection, head: Head) -> bytes:
        if head.length > self.limits.body:
            raise BadRequest(413, f"at most {self.limits.body} bytes")
        if head.length and head.headers.get("expect", "").lower() == "100-continue":
            await connection.write(_CONTINUE, self.limits.stall)
        return await connection.read_exactly(head.length, self.limits.stall) if head.length else b""

    async def _refuse(self, connection: Connection, bad: BadRequest) -> None:
        body = (bad.text + "\n").encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        head = pack_head(bad.status, [*headers, ("Connection", "close")], time.time())
        try:
            await connection.write(head + body, 5)
            await connection.linger(2)
        except Gone:
            pass

    async def _respond(self, connection: Connection, request: Request) -> bool:
        """Answer one request; True if the connection can take another."""
        try:
            response = await self.handler(request)
        except Exception:
            self.counts["failed"] += 1
            log.exception("%s %s failed", request.method, request.path)
            response = Response(500, b"internal error\n")
        keep = request.head.keep_alive and response.stream is None
        if response.stream is not None:
            await self._send_stream(connection, request, response)
        elif response.file is not None:
            with response.file as file:
                await self._send_file(connection, request, response, file, keep)
        else:
            await self._send_body(connection, request, response, keep)
        return keep

    async def _send_body(self, connection: Connection, request: Request, response: Response, keep: bool) -> None:
        headers = [("Content-Type", response.type), ("Content-Length", str(len(response.body))), *response.headers]
        if response.status in (204, 304):
            headers = list(response.headers)
        raw = pack_head(response.status, _with_connection(headers, request, keep), time.time())
        body = b"" if request.method == "HEAD" or response.status in (204, 304) else response.body
        began = time.monotonic()
        await connection.write(raw + body, self.limits.stall)
        if response.sent is not None:
            response.sent(Sent(0, len(body), len(body), len(response.body), time.monotonic() - began))

    async def _send_file(
        self, connection: Connection, request: Request, response: Response, file: BinaryIO, keep: bool
    ) -> None:
        size = os.fstat(file.fileno()).st_size
        headers = [("Content-Type", response.type), ("Accept-Ranges", "bytes"), *response.headers]
        etag = f'"{response.etag}"' if response.etag else ""
        if etag:
            headers.append(("ETag", etag))
        given = request.head.headers
        if etag and etag in given.get("if-none-match", ""):
            await self._send_body(connection, request, Response(304, headers=headers), keep)
            return
        status, first, length = response.status, 0, size
        if "range" in given and given.get("if-range", etag) == etag:
            try:
                wanted = parse_range(given["range"], size)
            except BadRequest as bad:
                headers.append(("Content-Range", f"bytes */{size}"))
                await self._send_body(
                    connection, request, Response(416, (bad.text + "\n").encode(), headers=headers), keep
                )
                return
            if wanted is not None:
                status, first, length = 206, wanted.first, wanted.length
                headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{size}"))
        headers.append(("Content-Length", str(length)))
        raw = pack_head(status, _with_connection(headers, request, keep), time.time())
        if request.method == "HEAD":
            await connection.write(raw, self.limits.stall)
            return
        began = time.monotonic()
        connection.sent = 0
        try:
            await connection.write(raw, self.limits.stall, more=length > 0)
            await connection.send_file(file.fileno(), first, length, self.limits.stall)
        finally:
            self.counts["file-bytes"] += connection.sent
            if response.sent is not None:
                response.sent(Sent(first, connection.sent, length, size, time.monotonic() - began))

    async def _send_stream(self, connection: Connection, request: Request, response: Response) -> None:
        headers = [("Content-Type", response.type), ("Cache-Control", "no-store"), *response.headers]
        await connection.write(pack_head(200, [*headers, ("Connection", "close")], time.time()), self.limits.stall)
        if response.stream is None or request.method == "HEAD":
            return
        try:
            async for part in response.stream:
                await connection.write(part, self.limits.stall)
        finally:
            await response.stream.aclose()


def _with_connection(headers: list[tuple[str, str]], request: Request, keep: bool) -> list[tuple[str, str]]:
    """HTTP/1.0 clients need to be told that the connection stays, all others that it does not."""
    return headers if keep and not request.head.old else [*headers, ("Connection", "keep-alive" if keep else "close")]
