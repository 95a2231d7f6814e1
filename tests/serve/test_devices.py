"""What is bound to an interface stays with its name; without the right to, that is said."""

from __future__ import annotations

import socket

import pytest

from pxeserver.local.interfaces import Interface
from pxeserver.serve.devices import Devices


class Bound:
    """A socket at an interface, whose every new binding is refused or noted."""

    family = socket.AF_INET

    def __init__(self, device: str, refuses: bool = False) -> None:
        self.device, self.refuses, self.bound = device, refuses, 0

    def getsockopt(self, *_: int) -> bytes:
        return self.device.encode() + b"\0"

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if self.refuses:
            raise PermissionError
        assert value == self.device.encode() + b"\0"
        self.bound += 1


def interfaces(**indexes: int) -> dict[int, Interface]:
    return {index: Interface(index, name, True, False) for name, index in indexes.items()}


@pytest.mark.parametrize("refuses", [False, True])
def test_only_what_came_back_as_another_one_is_bound_anew(refuses: bool) -> None:
    free, first, second = Bound(""), Bound("eth0"), Bound("eth1", refuses)
    devices = Devices([free, first, second], interfaces(eth0=2, eth1=3))  # type: ignore[list-item]
    assert devices.follow(interfaces(eth0=2, eth1=3)) == []
    assert devices.follow(interfaces(eth0=2)) == []  # gone
    assert devices.follow(interfaces(eth0=2, eth1=7)) == (["eth1"] if refuses else [])
    assert devices.follow(interfaces(eth0=2, eth1=7)) == []  # said once
    assert (free.bound, first.bound, second.bound) == (0, 0, 0 if refuses else 1)
