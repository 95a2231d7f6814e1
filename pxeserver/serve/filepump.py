"""File bodies on their way out: a small share of each at a time, one epoll for all that wait for their peer.

Scripts and phone-home are answered between two turns, and before the first bytes of a file, however many machines
download. A slow machine costs a system call whenever its send buffer has room again, nothing in between.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from typing import Protocol

from pxeserver.serve.express import express

TURN_FILES = 8  # shares per turn of the loop, at most
TURN_SECONDS = 0.002  # and no further one after this long
SHARE = 2 << 20  # bytes; a send buffer rarely has room for more


class Transfer(Protocol):
    """A body under way: `left` bytes of `source` from `offset` go to `fd`; some did at the loop's time `moved`."""

    fd: int
    source: int
    offset: int
    left: int
    moved: float

    def ended(self) -> None:
        """All of it is out, or nothing more can be sent."""


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
        """An express handler: the others have their turn before what one turn leaves.

        One function for all that a share costs: after each the CPU's caches are full of the file.
        """
        self._asked = False
        fast, waiting, clock = self._fast, self._waiting, time.perf_counter
        end = clock() + TURN_SECONDS
        for number in range(TURN_FILES):
            if fast and (number & 1 or not waiting):  # one of either kind in turn
                transfer = fast.popleft()
            elif (found := self._roomy()) is not None:
                transfer = found
            else:
                return
            left = transfer.left
            wanted = SHARE if left > SHARE else left
            try:
                sent = os.sendfile(transfer.fd, transfer.source, transfer.offset, wanted)
            except (BlockingIOError, InterruptedError):
                sent = -1
            except OSError:
                sent = 0  # the peer left
            if sent > 0:
                transfer.offset += sent
                transfer.left = left = left - sent
            transfer.moved = now
            if sent == 0 or left == 0:  # 0: or the file has become shorter
                self._end(transfer)
            elif transfer.fd not in waiting:
                if sent == wanted:
                    fast.append(transfer)
                else:
                    self._wait(transfer)
            if clock() >= end:
                break
        if self._epoll is not None:
            self._ask()

    def _roomy(self) -> Transfer | None:
        """One that waited and has room, or else one of the others; whoever had its turn goes behind the others."""
        if self._waiting and self._epoll is not None:
            ready = self._epoll.poll(0, 1)
            if ready:
                return self._waiting[ready[0][0]]
        return self._fast.popleft() if self._fast else None

    def _wait(self, transfer: Transfer) -> None:
        if self._epoll is not None:
            self._waiting[transfer.fd] = transfer
            self._epoll.register(transfer.fd, select.EPOLLOUT)

    def _end(self, transfer: Transfer) -> None:
        if transfer.fd in self._waiting:
            self.stop(transfer)
        transfer.ended()
