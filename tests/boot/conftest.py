"""Recorded packets, and a small fleet to decide about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pxeserver.boot.request import BootRequest, request_of
from pxeserver.config import Config
from pxeserver.model import Assignment, Blob, FleetView, Image, Machine
from pxeserver.wire import dhcp

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
MAC = "52:54:00:77:00:01"

Captured = Callable[[str], dhcp.Packet]


@pytest.fixture
def captured() -> Captured:
    """The packet of that name under tests/captures."""
    return lambda name: dhcp.parse(bytes.fromhex((CAPTURES / f"{name}.hex").read_text()))


@pytest.fixture
def asked(captured: Captured) -> Callable[[str], BootRequest]:
    """The boot request of a recorded packet; `.4011` ones came to that port."""

    def of(name: str) -> BootRequest:
        request = request_of(captured(name), 4011 if name.endswith(".4011") else 67)
        assert request is not None
        return request

    return of


@pytest.fixture
def image() -> Image:
    return Image(
        "sha256:" + "ab" * 32,
        "web",
        kernel=Blob("sha256:" + "11" * 32, 14 << 20),
        initrd=Blob("sha256:" + "22" * 32, 32 << 20, 112 << 20),
        cmdline="console=ttyS0 quiet",
        arch="amd64",
    )


@pytest.fixture
def machine() -> Machine:
    return Machine(1, "node7", (MAC,), vars={"rack": "r1"})


@pytest.fixture
def view(image: Image, machine: Machine) -> FleetView:
    """One machine, assigned to one image."""
    return FleetView(
        machines={1: machine},
        by_mac={MAC: 1},
        assignments={1: Assignment(1, "web", image.digest, 3, args=("debug",))},
        images={image.digest: image},
        newest={"web": image.digest},
    )


@pytest.fixture
def config() -> Config:
    return Config()
