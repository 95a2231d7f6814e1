"""Captured DHCP: what the kernel shows of other hosts' frames is no question to us."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator

import pytest
from servelab import CLIENT, SERVER, Wire, hardware, ip, within

from pxeserver.mac import mac_to_bytes
from pxeserver.serve.rawdhcp import RawChannel
from pxeserver.wire.ip import pack


@pytest.fixture
def channel(wire: Wire) -> Generator[RawChannel, None, None]:
    made = within(wire.server, lambda: RawChannel(67, "eth0"))
    yield made
    made.sock.close()


def say(wire: Wire, to: bytes, payload: bytes) -> None:
    """One frame from the client's eth0 to this hardware address."""

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("eth0", 0x0800))
            head = to + mac_to_bytes(hardware(wire.client)) + b"\x08\x00"
            sock.send(head + pack(payload, (CLIENT, 68), (SERVER, 67)))

    within(wire.client, work)


def test_only_what_is_meant_for_this_host_is_heard(wire: Wire, channel: RawChannel) -> None:
    ip("-n", wire.server, "link", "set", "eth0", "promisc", "on")
    say(wire, bytes.fromhex("020000000099"), b"another host's".ljust(300))
    say(wire, mac_to_bytes(hardware(wire.server)), b"ours".ljust(300))
    say(wire, b"\xff" * 6, b"everybody's".ljust(300))
    heard: list[bytes] = []
    end = time.monotonic() + 5
    while len(heard) < 2 and time.monotonic() < end:
        arrived = within(wire.server, channel.receive)
        heard += [arrived.data.strip()] if arrived is not None else []
    assert heard == [b"ours", b"everybody's"]
