"""Answers of the last moments: the same DISCOVER again gets the same answer, without a decision, an offer or an event.

A loop in the network or a flood shows one packet many times. Firmware that asks again itself waits for longer than
`WINDOW` (EDK2 and BIOS ROMs: 4 s, UefiPxeBcDxe PxeBcDhcp4.c and PXE 2.1 section 2.2.1) or counts `secs` up (iPXE), so
that what is decided by silence still sees each of its packets.
"""

from __future__ import annotations

from operator import is_
from typing import NamedTuple

from pxeserver.mac import Mac
from pxeserver.model import Recent
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site
from pxeserver.serve.udp import Datagram

WINDOW = 3.5  # seconds
PACKETS_MAX = 8192


class Sent(NamedTuple):
    """What a channel was given to send to a machine."""

    mac: Mac
    payload: bytes
    peer: tuple[str, int]
    ifindex: int
    source: str


class _Kept(NamedTuple):
    sent: Sent
    until: float
    came: tuple[object, ...]  # how the packet came in
    recent: Recent | None  # the machine's past with this answer in it


class Repeats:
    """By the packet's bytes without its xid. Whatever happens after an answer makes it void."""

    def __init__(self, site: Site, recorder: Recorder) -> None:
        self._site = site
        self._recorder = recorder
        self._kept: dict[bytes, _Kept] = {}
        self._grounds: tuple[object, ...] = ()

    def keep(self, port: int, arrived: Datagram, sent: Sent, now: float) -> None:
        """That was the answer, and all is recorded of it that there is to record."""
        self._look()
        if len(self._kept) >= PACKETS_MAX:
            self._kept.clear()
        came = (port, *arrived[1:])
        self._kept[_same(arrived.data)] = _Kept(sent, now + WINDOW, came, self._recorder.recent(sent.mac))

    def again(self, port: int, arrived: Datagram, now: float) -> Sent | None:
        """The answer with this packet's xid, if it came a moment ago in the same way and nothing has happened since."""
        self._look()
        kept = self._kept.get(_same(arrived.data))
        if kept is None:
            return None
        sent, until, came, recent = kept
        if now >= until or came != (port, *arrived[1:]) or self._recorder.recent(sent.mac) is not recent:
            return None
        mac, payload, peer, ifindex, source = sent
        return Sent(mac, b"".join((payload[:4], arrived.data[4:8], payload[8:])), peer, ifindex, source)

    def _look(self) -> None:
        """Forget everything when what answers follow from has changed; each of these is replaced whole."""
        grounds = (self._site.view, self._site.config, self._site.interfaces)
        if not self._grounds or not all(map(is_, grounds, self._grounds)):
            self._kept.clear()
            self._grounds = grounds


def _same(data: bytes) -> bytes:
    return data[:4] + data[8:]
