"""A TCP port of this host's loopback that leads to a Unix socket.

The demo's server lives in a network namespace of its own, where no browser reaches it; a Unix socket is a file and
knows no namespaces. So the page is shown without touching the host's network.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 16


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    target: Path


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
            there.connect(str(self.server.target))
            back = threading.Thread(target=_pump, args=(there, self.request), daemon=True)
            back.start()
            _pump(self.request, there)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until `source` ends, then tell `sink` that no more comes."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def forward(target: Path, port: int) -> Iterator[str]:
    """Offer `target` on 127.0.0.1, at `port` or, when that is taken, at a free one; the URL."""
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError:
        server = _Server(("127.0.0.1", 0), _Handler)
    server.target = target
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
