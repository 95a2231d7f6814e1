"""One connection: requests are read, answered and followed by the next one, all in callbacks of the loop.

A handler that answers at once costs no task and no timer. Deadlines are looked at by the front, once in a while.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING

from pxeserver.serve.download import Download
from pxeserver.serve.exchange import Request, Response, Sent
from pxeserver.serve.express import ExpressLoop
from pxeserver.serve.httpwire import HEAD_MAX, BadRequest, Head, pack_head, parse_head, select_part

if TYPE_CHECKING:
    from pxeserver.serve.http import Front

_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE = 64 << 10
_TURN = 16  # pipelined requests answered before the other connections have a turn
_LINGER, _LINGER_READS = 2.0, 64
_Headers = Iterable[tuple[str, str]]


class Connection:
    """Owns `sock`, non-blocking, from `begin` to `close`, which is due when it is `overdue`."""

    __slots__ = (
        *("busy", "deadline", "fd", "peer"),
        *("_buffer", "_closed", "_discarded", "_download", "_front", "_head", "_keep", "_loop", "_out", "_own"),
        *("_port", "_resting", "_searched", "_sent", "_sock", "_task", "_then", "_unread", "_watched"),
    )

    def __init__(self, front: Front, loop: ExpressLoop, sock: socket.SocketType, peer: str) -> None:
        self._front, self._loop, self._sock, self.peer = front, loop, sock, peer
        self.fd = sock.fileno()
        self._own, self._port = "", 0
        if peer:  # none on a Unix socket
            self._own, self._port = sock.getsockname()[:2]
        self.deadline = monotonic() + front.limits.first
        self.busy = False  # a response is under way
        self._watched = False  # the loop tells of what comes, once
        self._unread = False  # it did, or there may be more than was read
        self._resting = False  # the other connections have a turn
        self._closed = False
        self._keep = True
        self._buffer = b""  # received and not used yet
        self._searched = 0  # of it for the end of a head
        self._discarded = 0  # reads since a refusal; 0: there was none
        self._head: Head | None = None  # of the request whose body is awaited
        self._out: memoryview | None = None  # accepted by no system call yet
        self._then: Callable[[], None]  # once `_out` is out
        self._task: asyncio.Task[None] | None = None
        self._download: Download | None = None
        self._sent: Callable[[Sent], None] | None = None  # to be told of it

    # --- reading ---

    def begin(self) -> None:
        """Answer what came with the connection; the loop is asked to watch it only if that was not all."""
        self._readable()
        if not (self._closed or self.busy or self._watched):
            self._take_more()

    def _readable(self, now: float = 0.0) -> None:
        """An express handler."""
        if self._closed:
            return
        if self.busy or self._resting:  # what comes meanwhile waits in the kernel
            self._unread = True
            return
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._unread = len(data) == _RECEIVE
        if not data:
            self.close()
        elif self._discarded:
            self._discard()
        else:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()

    def _discard(self) -> None:
        self._discarded += 1
        if self._discarded > _LINGER_READS:
            self.close()
        elif self._unread:
            self._loop.call_soon(self._readable)

    def _advance(self) -> None:
        """Answer what was received, until an answer takes longer or more must come."""
        try:
            for _ in range(_TURN):
                if self.busy or self._closed:
                    return
                if not self._take_request():
                    if self._unread:
                        self._loop.call_soon(self._readable)
                    return
        except BadRequest as bad:
            self._refuse(bad)
            return
        self._resting = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if (self._buffer or self._unread) and not (self.busy or self._closed or self._discarded):
            self._advance()

    def _take_request(self) -> bool:
        """Answer one request if it is whole."""
        head = self._head
        if head is None:
            head = self._take_head()
            if head is None:
                return False
        body = b""
        if head.length:
            if len(self._buffer) < head.length:
                self._head = head
                return False
            body, self._buffer = self._buffer[: head.length], self._buffer[head.length :]
        self._head = None
        self._front.counts["requests"] += 1
        self._answer(Request(head, body, self.peer, self._own, self._port))
        return True

    def _take_head(self) -> Head | None:
        if not self._buffer:
            return None
        limits = self._front.limits
        end = self._buffer.find(_END, self._searched)
        if end > HEAD_MAX or (end < 0 and len(self._buffer) > HEAD_MAX):
            raise BadRequest(431, "the request head is too long")
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(_END))
            self.deadline = min(self.deadline, monotonic() + limits.first)
            return None
        self._searched = 0
        head = parse_head(self._buffer[: end + len(_END)])
        self._buffer = self._buffer[end + len(_END) :]
        if head.length > limits.body:
            raise BadRequest(413, f"at most {limits.body} bytes")
        if head.length > len(self._buffer):
            self.deadline = monotonic() + limits.stall
            if head.headers.get("expect", "").lower() == "100-continue":
                self._write(_CONTINUE, self._take_more)
        return head

    def _refuse(self, bad: BadRequest) -> None:
        """Say why, then read on for a while: closing with unread bytes would reset the answer away."""
        self._front.counts["bad"] += 1
        body = (bad.text + "\n").encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        self._write(pack_head(bad.status, [*headers, ("Connection", "close")], time()) + body, self._linger)

    def _linger(self) -> None:
        self._discarded = 1
        self.deadline = monotonic() + _LINGER
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
        else:
            self._take_more()
            self._loop.call_soon(self._readable)

    def _take_more(self) -> None:
        self.busy = False
        if not self._watched:
            self._watched = True
            self._loop.watch(self.fd, self._readable)

    # --- answering ---

    def _answer(self, request: Request) -> None:
        try:
            given = self._front.handler(request)
        except Exception:
            given = self._front.failed(request)
        if isinstance(given, Response):
            self._respond(request, given)
        else:
            self.busy, self.deadline = True, float("inf")
            self._task = self._front.spawn(self._wait(request, given))

    async def _wait(self, request: Request, given: Awaitable[Response]) -> None:
        try:
            response = await given
        except Exception:
            response = self._front.failed(request)
        if response.stream is not None:
            try:
                await self._stream(request, response)
            finally:
                self._task = None
                self.close()
            return
        self._task = None
        self._respond(request, response)
        self._go_on()

    def _respond(self, request: Request, response: Response) -> None:
        self._keep = request.head.keep_alive
        if response.stream is not None:
            self.busy = True
            self._task = self._front.spawn(self._wait(request, _given(response)))
        elif response.file is not None:
            self._send_file(request, response)
        else:
            self._send_body(request, response, response.headers)

    def _send_body(self, request: Request, response: Response, headers: _Headers) -> None:
        body = response.body
        bare = response.status in (204, 304)
        if not bare:
            headers = (("Content-Type", response.type), ("Content-Length", str(len(body))), *headers)
        raw = pack_head(response.status, self._with_connection(headers, request.head), time())
        if bare or request.head.method == "HEAD":
            body = b""
        done = self._done
        if response.sent is not None:
            done = partial(self._done_telling, response.sent, len(body), len(response.body), monotonic())
        self._write(raw + body, done)

    def _done_telling(self, sent: Callable[[Sent], None], wanted: int, size: int, began: float) -> None:
        self._front.later(self._tell, sent, wanted, size, monotonic() - began)
        self._done()

    def _tell(self, sent: Callable[[Sent], None], wanted: int, size: int, seconds: float) -> None:
        self._front.tell(sent, Sent(0, wanted, wanted, size, seconds))

    def _with_connection(self, headers: _Headers, head: Head) -> _Headers:
        """HTTP/1.0 clients need to be told that the connection stays, all others that it does not."""
        if self._keep and not head.old:
            return headers
        return (*headers, ("Connection", "keep-alive" if self._keep else "close"))

    def _done(self) -> None:
        """A response is out: take the next request, or end."""
        if not self._keep:
            self.busy = True
            self._front.later(self.close)
            return
        self.deadline = monotonic() + self._front.limits.idle
        self._take_more()

    # --- writing ---

    def _write(self, data: bytes, then: Callable[[], None]) -> None:
        """All of `data`, now or when the peer takes it; `then` follows, which is where `busy` ends."""
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent == len(data):
            then()
            return
        self.busy, self._out, self._then = True, memoryview(data)[sent:], then
        self.deadline = monotonic() + self._front.limits.stall
        self._loop.add_writer(self.fd, self._writable)

    def _writable(self) -> None:
        assert self._out is not None
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self.deadline = monotonic() + self._front.limits.stall
        if not self._out:
            self._out = None
            self._loop.remove_writer(self.fd)
            self._then()
            self._go_on()

    # --- files ---

    def _send_file(self, request: Request, response: Response) -> None:
        file = response.file
        assert file is not None
        part = select_part(request.head, file.size, response.etag, response.status)
        headers = (*response.headers, *part.headers)
        if part.status in (304, 416):
            file.close()
            if response.sent is not None and request.head.method == "GET":
                self._front.tell(response.sent, Sent(0, 0, 0, file.size, 0.0))
            self._send_body(request, Response(part.status, (part.text + "\n").encode()), headers)
            return
        headers = (("Content-Type", response.type), ("Content-Length", str(part.length)), *headers)
        raw = pack_head(part.status, self._with_connection(headers, request.head), time())
        if request.head.method == "HEAD":
            file.close()
            self._write(raw, self._done)
            return
        self.busy = True
        self._download = Download(self.fd, file, part, monotonic(), self._ended)
        self._sent = response.sent
        self._cork(True)
        self._write(raw, self._start_file)

    def _start_file(self) -> None:
        assert self._download is not None
        self.deadline = monotonic() + self._front.limits.stall
        if self._download.left:
            self._front.pump.start(self._download)
        else:
            self._end_file(self._download)

    def _ended(self) -> None:
        assert self._download is not None
        self._end_file(self._download)
        self._go_on()

    def _cork(self, on: bool) -> None:
        """Full segments only, from the head to the end of the file: with others among them it takes a tenth longer."""
        if self._port:
            try:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)
            except OSError:  # the peer left: the next system call tells
                pass

    def _end_file(self, download: Download) -> None:
        self._cork(False)
        self._close_file(download)
        if download.left == 0:
            self._done()
        else:
            self.close()

    def _close_file(self, download: Download) -> None:
        self._download = None
        download.close()
        self._front.counts["file-bytes"] += download.out
        if self._sent is not None:
            self._front.tell(self._sent, download.sent(monotonic()))

    # --- streams ---

    async def _stream(self, request: Request, response: Response) -> None:
        headers = (("Content-Type", response.type), ("Cache-Control", "no-store"), *response.headers)
        assert response.stream is not None
        self._sock = sock = socket.socket(fileno=self._sock.detach())
        try:
            await self._send_within(sock, pack_head(200, (*headers, ("Connection", "close")), time()))
            if request.head.method != "HEAD":
                async for part in response.stream:
                    await self._send_within(sock, part)
        except (TimeoutError, OSError):
            pass
        finally:
            await response.stream.aclose()

    async def _send_within(self, sock: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(self._front.limits.stall):
            await self._loop.sock_sendall(sock, data)

    # --- the end ---

    def overdue(self, now: float) -> bool:
        """The deadline is over, and a file under way did not move for as long as it may rest."""
        download = self._download
        return self.deadline <= now and (download is None or download.moved + self._front.limits.stall <= now)

    def close(self) -> None:
        """End it, whatever is under way."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._watched:
            self._loop.unwatch(self.fd)
        if self._out is not None:
            self._loop.remove_writer(self.fd)
        if self._download is not None:
            self._front.pump.stop(self._download)
            self._close_file(self._download)
        self._sock.close()
        self._front.forget(self)


async def _given(response: Response) -> Response:
    return response
