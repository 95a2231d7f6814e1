"""Listeners: what their connections inherit."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pxeserver.serve import listening


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening.tcp("127.0.0.1", 0, "http") as sock:
        yield sock


def sends_by(listener: socket.socket) -> str:
    with socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.parametrize("name", ["reno", "cubic"])
def test_connections_send_by_the_congestion_control_that_is_configured(listener: socket.socket, name: str) -> None:
    listening.congestion_control(listener, name)
    assert sends_by(listener) == name


@pytest.mark.parametrize(("name", "warnings"), [("", 0), ("cubik", 1), ("x" * 40, 1)])
def test_the_hosts_stays_when_none_is_named_or_the_kernel_has_it_not(
    listener: socket.socket, name: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = sends_by(listener)
    listening.congestion_control(listener, name)
    assert sends_by(listener) == hosts
    assert [name in record.message for record in caplog.records] == [True] * warnings
