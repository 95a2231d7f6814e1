"""Answers of the last moments: the same DISCOVER again gets the same answer, without a decision, an offer or an event.

A loop in the network or a flood shows one packet many times. Firmware that asks again itself waits for longer than
`PAUSE` (iPXE 1 s at first, config/dhcp.h; EDK2 and BIOS ROMs 4 s as PXE 2.1, section 2.2.1, wants it), so
that what is decided by silence still sees each of its packets.
"""

from __future__ import annotations

from typing import NamedTuple

from pxeserver.boot.decide import PAUSE
from pxeserver.mac import Mac
from pxeserver.model import Recent
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.udp import Answer, Datagram

LONGEST = 10.0  # ... and a flood is decided on, and written down, this often
PACKETS_MAX = 8192
_WHO = slice(24, 44)  # giaddr and chaddr


class Sent(NamedTuple):
    """What a channel was given to send to a machine."""

    mac: Mac
    payload: bytes
    peer: tuple[str, int]
    ifindex: int
    source: str


# How it came and by which port, what was sent, the machine's past with this answer in it, when.
_Kept = tuple[Datagram, int, Sent, Recent | None, float]


class Repeats:
    """The last answer to a MAC (and relay): to the same bytes but for the xid. What happens after it makes it void."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._kept: dict[bytes, _Kept] = {}
        self._last: dict[bytes, float] = {}  # when it was sent again

    def clear(self) -> None:
        """What answers follow from has changed."""
        self._kept.clear()
        self._last.clear()

    def keep(self, port: int, arrived: Datagram, sent: Sent, now: float) -> None:
        """That was the answer, and all is recorded of it that there is to record."""
        if len(self._kept) >= PACKETS_MAX:
            self.clear()
        who = arrived.data[_WHO]
        self._kept[who] = arrived, port, sent, self._recorder.recent(sent.mac), now
        if who in self._last:
            del self._last[who]

    def again(self, port: int, arrived: Datagram, now: float) -> Answer | None:
        """What to send to the same packet, with the xid that it has now: payload, peer, ifindex, source.

        None if it did not come a moment ago in the same way, or if anything has happened since.
        """
        data = arrived.data
        who = data[_WHO]
        kept = self._kept.get(who)
        if kept is None:
            return None
        before, at, sent, recent, since = kept
        if now - self._last.get(who, since) >= PAUSE or now - since >= LONGEST:
            return None
        raw = before.data
        if data[8:] != raw[8:] or data[:4] != raw[:4] or at != port or before[1:] != arrived[1:]:
            return None
        mac, payload, peer, ifindex, source = sent
        if self._recorder.recent(mac) is not recent:
            return None
        self._last[who] = now
        return payload[:4] + data[4:8] + payload[8:], peer, ifindex, source
