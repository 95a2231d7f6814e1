"""A proxy before a registry, for writing too, that makes trouble as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
from registrylab import Registry

LOST = -1  # the registry gets the request, its answer does not come back
Trouble = Callable[[str, str], int]  # (method, path) -> 0, LOST, or the status to answer with instead of the registry


class Between(ThreadingHTTPServer):
    """`host` stands for the registry's; `calls` are the requests seen, `received` the bytes of their bodies.

    `remembers`: an upload is asked for at its newest address, whatever the client knows, as registries do that keep no
    state in their addresses (docker-registry does, and forgets an upload asked for at an older one).
    """

    daemon_threads = True

    def __init__(self, registry: Registry, trouble: Trouble, *, remembers: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry, self.trouble = registry, trouble
        self.calls: list[tuple[str, str]] = []
        self.received = 0
        self.remembers = remembers
        self.newest: dict[str, str] = {}  # path of an upload -> its newest address
        self.host = f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Between:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Between

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.calls.append((self.command, self.path))
        self.server.received += len(body)
        status = self.server.trouble(self.command, self.path)
        if status > 0:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "transfer-encoding")}
        address = self.path
        if self.command == "GET" and self.server.remembers:
            address = self.server.newest.get(urlsplit(address).path, address)
        answer = httpx.request(self.command, self.server.registry.url + address, headers=headers, content=body)
        if location := urlsplit(answer.headers.get("location", "")).path:
            self.server.newest[location] = f"{location}?{urlsplit(answer.headers['location']).query}"
        if status == LOST:
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        for key, value in answer.headers.items():
            if key.lower() not in ("connection", "transfer-encoding"):
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any

    def log_message(self, *_: object) -> None:
        pass
