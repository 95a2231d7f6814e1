"""The way from the host's loopback into the demo's namespace."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from pxeserver.local.demo_forward import forward


def echo_once(listener: socket.socket) -> None:
    """Answer one connection with what it sent, in capitals, once it has said everything."""
    connection, _ = listener.accept()
    with connection:
        said = b""
        while data := connection.recv(4096):
            said += data
        connection.sendall(said.upper())


def test_both_directions_and_both_ends_of_a_stream(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket() as taken:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = threading.Thread(target=echo_once, args=(listener,))
        server.start()
        port = taken.getsockname()[1]
        with forward(tmp_path / "s", port) as url:
            address = urlsplit(url)
            assert address.port != port  # taken, so another one was found
            with socket.create_connection((address.hostname, address.port), timeout=10) as client:
                client.sendall(b"hello " * 50_000)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while data := client.recv(65536):
                    answer += data
        server.join()
    assert answer == b"HELLO " * 50_000


def test_a_server_that_is_not_there_closes_the_connection(tmp_path: Path) -> None:
    with forward(tmp_path / "nothing", 0) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as client:
            assert client.recv(1) == b""
