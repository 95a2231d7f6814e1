"""A WSGI application (PEP 3333) behind the HTTP front: calls run in a bounded pool of threads, files go by sendfile."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from pxeserver.serve.http import Request, Response
from pxeserver.serve.openfiles import OpenFile

log = logging.getLogger("pxeserver.http")

THREADS = 8
WAITING_MAX = 128  # requests in threads or waiting for one
UNIX_PEER = "unix"  # REMOTE_ADDR of a request by the Unix socket
_OURS = frozenset({"content-length", "connection", "date", "server", "transfer-encoding", "keep-alive"})

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class FileWrapper:
    """`wsgi.file_wrapper`: recognised on its way out, so that the front sends the file itself."""

    def __init__(self, file: BinaryIO, block_size: int = 8192) -> None:
        self.file = file
        self._block_size = block_size

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data = self.file.read(self._block_size)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        self.file.close()


class WsgiHandler:
    """`await handler(request)` is a front's handler."""

    def __init__(self, application: Application, threads: int = THREADS) -> None:
        self.application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        self._running = 0

    async def __call__(self, request: Request) -> Response:
        if self._running >= WAITING_MAX:
            return Response(503, b"too many requests at once\n", headers=(("Retry-After", "1"),))
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, request)
        finally:
            self._running -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, request: Request) -> Response:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], None]:
            started[:] = [(status, headers)]
            return early.append

        early: list[bytes] = []
        result = self.application(environ(request), start_response)
        file = result.file if isinstance(result, FileWrapper) and _is_file(result.file) else None
        body, opened = b"", None
        try:
            if file is None:
                body = b"".join([*early, *result])
            else:
                opened = OpenFile(os.dup(file.fileno()), os.fstat(file.fileno()).st_size)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        status, headers = started[0]
        kept = tuple((name, value) for name, value in headers if name.lower() not in _OURS | {"content-type"})
        kind = next((value for name, value in headers if name.lower() == "content-type"), "application/octet-stream")
        return Response(int(status.split(" ", 1)[0]), body, kind, kept, file=opened)


def _is_file(file: object) -> bool:
    """A real file from its start: what sendfile can send."""
    try:
        readable = cast(BinaryIO, file)
        return readable.fileno() >= 0 and readable.tell() == 0
    except (AttributeError, OSError, ValueError):
        return False


def environ(request: Request) -> dict[str, Any]:
    """The request as PEP 3333 has it. A HEAD is called as a GET: the front leaves the body out."""
    head = request.head
    raw_path = head.target.partition("?")[0] if head.target.startswith("/") else head.path
    values: dict[str, Any] = {
        "REQUEST_METHOD": "GET" if head.method == "HEAD" else head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw_path.encode("latin-1", "replace")).decode("latin-1"),
        "QUERY_STRING": head.query,
        "REQUEST_URI": head.target,
        "SERVER_NAME": request.own or "localhost",
        "SERVER_PORT": str(request.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.peer or UNIX_PEER,
        "CONTENT_TYPE": head.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    for name, value in head.headers.items():
        if name not in ("content-type", "content-length") and "_" not in name:  # a_b and a-b would be one variable
            values["HTTP_" + name.upper().replace("-", "_")] = value
    return values
