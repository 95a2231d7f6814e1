"""Sockets that are bound to an interface: the kernel binds them to its index, people mean its name.

A VLAN that is made anew or a card that is plugged in again has another index, and what was bound to the old one hears
nothing any more (socket(7), SO_BINDTODEVICE; packet(7)).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from pxeserver.local.interfaces import Interface

_NAME_MAX = 16  # IFNAMSIZ


def device_of(sock: socket.socket) -> str:
    """The interface that a socket is bound to, "" if to none."""
    if sock.family == socket.AF_PACKET:
        return str(sock.getsockname()[0])
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_MAX).rstrip(b"\0").decode()


class Devices:
    """Keeps sockets at the interfaces that they were bound to when this was made, by name."""

    def __init__(self, socks: Iterable[socket.socket], found: Mapping[int, Interface]) -> None:
        self._bound = [(sock, name) for sock in socks if (name := device_of(sock))]
        self._index = _by_name(found)

    def follow(self, found: Mapping[int, Interface]) -> list[str]:
        """Bind anew what was bound to an interface that is another one now; the names for which that is refused."""
        now = _by_name(found)
        moved = {name for _, name in self._bound if name in now and now[name] != self._index.get(name)}
        self._index |= {name: now[name] for name in moved}
        refused = set()
        for sock, name in self._bound:
            if name in moved:
                try:
                    _bind(sock, name)
                except OSError:  # no right to, once rights are dropped
                    refused.add(name)
        return sorted(refused)


def _by_name(found: Mapping[int, Interface]) -> dict[str, int]:
    return {interface.name: index for index, interface in found.items()}


def _bind(sock: socket.socket, name: str) -> None:
    if sock.family == socket.AF_PACKET:
        sock.bind((name, sock.getsockname()[1]))
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
