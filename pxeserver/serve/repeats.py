"""Answers of the last moments: the same DISCOVER again gets the same answer, without a decision, an offer or an event.

A loop in the network or a flood shows one packet many times. Firmware that asks again itself waits for longer than
`PAUSE` (iPXE 1 s at first, config/dhcp.h; EDK2 and BIOS ROMs 4 s as PXE 2.1, section 2.2.1, wants it), so
that what is decided by silence still sees each of its packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pxeserver.boot.decide import PAUSE
from pxeserver.mac import Mac
from pxeserver.model import Recent
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site
from pxeserver.serve.udp import Answer, Datagram

LONGEST = 10.0  # ... and a flood is decided on, and written down, this often
PACKETS_MAX = 8192


class Sent(NamedTuple):
    """What a channel was given to send to a machine."""

    mac: Mac
    payload: bytes
    peer: tuple[str, int]
    ifindex: int
    source: str


@dataclass(slots=True)
class _Kept:
    sent: Sent
    since: float
    last: float
    port: int
    came: tuple[object, ...]  # how the packet came in
    recent: Recent | None  # the machine's past with this answer in it


class Repeats:
    """By the packet's bytes without its xid. Whatever happens after an answer makes it void."""

    def __init__(self, site: Site, recorder: Recorder) -> None:
        self._site = site
        self._recorder = recorder
        self._kept: dict[bytes, _Kept] = {}
        self._view, self._config, self._interfaces = site.view, site.config, site.interfaces

    def keep(self, port: int, arrived: Datagram, sent: Sent, now: float) -> None:
        """That was the answer, and all is recorded of it that there is to record."""
        self._look()
        if len(self._kept) >= PACKETS_MAX:
            self._kept.clear()
        recent = self._recorder.recent(sent.mac)
        self._kept[_same(arrived.data)] = _Kept(sent, now, now, port, arrived[1:], recent)

    def again(self, port: int, arrived: Datagram, now: float) -> Answer | None:
        """What to send to the same packet, with the xid that it has now: payload, peer, ifindex, source.

        None if it did not come a moment ago in the same way, or if anything has happened since.
        """
        self._look()
        data = arrived.data
        kept = self._kept.get(_same(data))
        if kept is None or now - kept.last >= PAUSE or now - kept.since >= LONGEST:
            return None
        mac, payload, peer, ifindex, source = kept.sent
        if kept.port != port or kept.came != arrived[1:] or self._recorder.recent(mac) is not kept.recent:
            return None
        kept.last = now
        return payload[:4] + data[4:8] + payload[8:], peer, ifindex, source

    def _look(self) -> None:
        """Forget everything when what answers follow from has changed; each of these is replaced whole."""
        site = self._site
        if site.view is self._view and site.config is self._config and site.interfaces is self._interfaces:
            return
        self._kept.clear()
        self._view, self._config, self._interfaces = site.view, site.config, site.interfaces


def _same(data: bytes) -> bytes:
    return data[:4] + data[8:]
