"""File bodies on their way out: a small share of each at a time, one epoll for all that wait for their peer.

Scripts and phone-home are answered between two turns, and before the first bytes of a file, however many machines
download. A slow machine costs a system call whenever its send buffer has room again, nothing in between.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from enum import Enum
from typing import Protocol

from pxeserver.serve.express import express

TURN_FILES = 8  # shares per turn of the loop, at most
TURN_SECONDS = 0.002  # and no further one after this long
SHARE = 4 << 20  # bytes; a send buffer rarely has room for more (tcp_wmem)


class Transfer(Protocol):
    """A body under way: `left` bytes of `source` from `offset` go to `fd`."""

    fd: int
    source: int
    offset: int
    left: int

    def moved(self) -> None:
        """Some of it went out."""

    def ended(self) -> None:
        """All of it is out, or nothing more can be sent."""


class _Moved(Enum):
    ALL = "all"  # or all that can be sent
    SHARE = "share"
    LESS = "less"  # the send buffer is full


class FilePump:
    """`open` on the running loop; `start` transfers; `close`."""

    def __init__(self) -> None:
        self._waiting: dict[int, Transfer] = {}  # by descriptor: for room in the send buffer
        self._epoll: select.epoll | None = None  # tells which of those have it
        self._fast: deque[Transfer] = deque()  # new ones, and those whose peers took a whole share
        self._asked = False  # for a turn

    def open(self) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop = express()
            self._loop.watch(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        if self._epoll is not None:
            self._loop.unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def start(self, transfer: Transfer) -> None:
        """Once whoever is ready by now has had a turn: what they ask for is small."""
        assert self._epoll is not None, "open() comes first"
        self._fast.append(transfer)
        self._ask()

    def stop(self, transfer: Transfer) -> None:
        """Forget a transfer before its descriptor is closed."""
        if self._waiting.get(transfer.fd) is transfer and self._epoll is not None:
            del self._waiting[transfer.fd]
            self._epoll.unregister(transfer.fd)
        elif transfer in self._fast:
            self._fast.remove(transfer)

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._loop.defer(self._turn)

    def _turn(self, now: float) -> None:
        """An express handler: the others have their turn before what one turn leaves."""
        self._asked = False
        end = time.perf_counter() + TURN_SECONDS
        for number in range(TURN_FILES):
            transfer = self._next(bool(number % 2))
            if transfer is None:
                return
            self._move_on(transfer)
            if time.perf_counter() >= end:
                break
        if self._epoll is not None:
            self._ask()

    def _next(self, fast: bool) -> Transfer | None:
        """One of either kind in turn, if there are; whoever had its turn goes behind the others of its kind."""
        if self._epoll is not None and self._waiting and not (fast and self._fast):
            ready = self._epoll.poll(0, 1)
            if ready:
                return self._waiting[ready[0][0]]
        return self._fast.popleft() if self._fast else None

    def _move_on(self, transfer: Transfer) -> None:
        moved = _move(transfer)
        if moved is _Moved.ALL:
            if transfer.fd in self._waiting:
                self.stop(transfer)
            transfer.ended()
            return
        transfer.moved()
        if transfer.fd in self._waiting or self._epoll is None:
            return
        if moved is _Moved.SHARE:
            self._fast.append(transfer)
        else:
            self._waiting[transfer.fd] = transfer
            self._epoll.register(transfer.fd, select.EPOLLOUT)


def _move(transfer: Transfer) -> _Moved:
    """One share of a file."""
    wanted = min(transfer.left, SHARE)
    try:
        moved = os.sendfile(transfer.fd, transfer.source, transfer.offset, wanted)
    except (BlockingIOError, InterruptedError):
        return _Moved.LESS
    except OSError:
        return _Moved.ALL  # the peer left
    transfer.offset += moved
    transfer.left -= moved
    if moved == 0 or transfer.left == 0:  # 0: the file has become shorter
        return _Moved.ALL
    return _Moved.SHARE if moved == wanted else _Moved.LESS
