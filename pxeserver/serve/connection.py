"""One stream connection on the running loop: reads with a limit and a deadline, writes that must keep moving."""

from __future__ import annotations

import asyncio
import os
import socket

from pxeserver.serve.httpwire import BadRequest

_END = b"\r\n\r\n"
_RECEIVE = 64 << 10
_TURN = 1 << 20  # bytes of a file per turn of the loop, so that one fast peer does not starve the others
_TCP_USER_TIMEOUT = 18


class Gone(Exception):
    """The peer left, or did nothing for too long."""


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Connection:
    """Owns `sock`. Every method raises Gone when there is nobody left to talk to."""

    def __init__(self, sock: socket.socket, stall: float = 60.0) -> None:
        self._sock = sock
        self._buffer = b""
        self.sent = 0  # bytes of the file being sent, or sent last
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(stall * 1000))

    @property
    def own(self) -> tuple[str, int]:
        """Our address and port that the peer reached; ("", 0) on a Unix socket."""
        if self._sock.family == socket.AF_UNIX:
            return "", 0
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    async def read_head(self, limit: int, within: float) -> bytes:
        """Up to and with the empty line, in `within` seconds. BadRequest(431) if it is longer than `limit`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        searched = 0
        while (end := self._buffer.find(_END, searched)) < 0:
            if len(self._buffer) > limit:
                raise BadRequest(431, "the request head is too long")
            searched = max(0, len(self._buffer) - len(_END))
            self._buffer += await self._receive(deadline - loop.time())
        if end > limit:
            raise BadRequest(431, "the request head is too long")
        head, self._buffer = self._buffer[: end + len(_END)], self._buffer[end + len(_END) :]
        return head

    async def read_exactly(self, size: int, within: float) -> bytes:
        """`size` bytes of body; the peer may take `within` seconds for all of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            parts.append(await self._receive(deadline - loop.time()))
            have += len(parts[-1])
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    async def _receive(self, within: float) -> bytes:
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            try:
                async with asyncio.timeout(within):
                    data = await asyncio.get_running_loop().sock_recv(self._sock, _RECEIVE)
            except (TimeoutError, OSError):
                raise Gone from None
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        return data

    async def write(self, data: bytes, stall: float, *, more: bool = False) -> None:
        """All of `data`; `more` holds the last packet back because a file follows at once."""
        view = memoryview(data)
        flags = socket.MSG_MORE if more else 0
        while view:
            try:
                view = view[self._sock.send(view, flags) :]
            except (BlockingIOError, InterruptedError):
                await self._writable(stall)
            except OSError:
                raise Gone from None

    async def send_file(self, fd: int, first: int, length: int, stall: float) -> None:
        """`length` bytes of `fd` from `first`; `sent` follows. Gone as well when the file ends too early."""
        self.sent = 0
        out = self._sock.fileno()
        while self.sent < length:
            try:
                moved = os.sendfile(out, fd, first + self.sent, min(length - self.sent, _TURN))
            except (BlockingIOError, InterruptedError):
                await self._writable(stall)
                continue
            except OSError:
                raise Gone from None
            if moved == 0:
                raise Gone
            self.sent += moved
            await asyncio.sleep(0)

    async def _writable(self, within: float) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._sock, _wake, future)
        try:
            async with asyncio.timeout(within):
                await future
        except TimeoutError:
            raise Gone from None
        finally:
            loop.remove_writer(self._sock)

    async def linger(self, seconds: float) -> None:
        """Read on for a while after a refusal: closing with unread bytes would reset the answer away."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            raise Gone from None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        for _ in range(64):
            await self._receive(deadline - loop.time())

    def close(self) -> None:
        self._sock.close()
