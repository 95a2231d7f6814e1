"""Whether a machine may load its image now, or waits because the link is full: the rule of docs/storms.md. Pure.

After a power cut thousands of machines ask at once. Each of their downloads shares the link: if all are let in, none is
done before the last, and firmware gives up. So some load, the others wait, and each waits for another time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pxeserver.config import Http
from pxeserver.mac import Mac

FULL = 0.9  # of http.link_mbit
FEW = 8  # machines that may always load: a link that is full of something else must not stop everything
FIRST_GUESS = 5.0  # seconds that a machine loads, until one was seen
WAIT_MIN, WAIT_MAX = 2.0, 120.0  # seconds
ASKS_PER_SECOND = 100  # of all machines that wait, together, at most


@dataclass(frozen=True, slots=True)
class Load:
    """The link's load. `loading`: machines that were given their script and have not got their initrd whole yet.
    `queued`: machines that were told to wait. `seconds`: how long a machine loaded lately, 0 if none did.
    `mbit`: what goes out, Mbit/s, 0 if that is not looked at."""

    loading: int = 0
    queued: int = 0
    seconds: float = 0.0
    mbit: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after so many seconds."""

    seconds: int
    reason: str


def admit(mac: Mac, told: int, load: Load, limits: Http) -> Wait | None:
    """None: it may load. `told` is how often this machine was told to wait already.

    The same machine, asking for the same time under the same load, is told the same.
    """
    reason = _full(load, limits)
    if not reason:
        return None
    places = limits.transfers_max
    turn = (load.seconds or FIRST_GUESS) * (1 + load.queued / places)  # until the whole queue was served, as it is now
    base = max(WAIT_MIN, load.queued / ASKS_PER_SECOND, min(turn, WAIT_MAX) / (1 + told))
    return Wait(max(1, round(base * _jitter(mac, told))), reason)


def _full(load: Load, limits: Http) -> str:
    if load.loading >= limits.transfers_max:
        return f"{load.loading} machines are loading, http.transfers_max is {limits.transfers_max}"
    if limits.link_mbit and load.loading >= FEW and load.mbit >= FULL * limits.link_mbit:
        return f"the link carries {load.mbit:.0f} Mbit/s, http.link_mbit is {limits.link_mbit}"
    return ""


def _jitter(mac: Mac, told: int) -> float:
    """0.5 to 1.5, another for each machine and each time."""
    digest = hashlib.sha256(f"{mac} {told}".encode()).digest()
    return 0.5 + int.from_bytes(digest[:4], "big") / 2**32
