"""File bodies on their way out: one epoll for all of them, a small share of each turn of the loop.

Scripts and phone-home are answered between two turns, however many machines download. A slow machine costs a system
call whenever its send buffer has room again, nothing in between.
"""

from __future__ import annotations

import os
import select
import time
from typing import Protocol

from pxeserver.serve.express import express

TURN_FILES = 8  # files per turn of the loop, at most
TURN_SECONDS = 0.002  # and no further one after this long
TURN_BYTES = 2 << 20  # of one file per turn; a send buffer rarely has room for more


class Transfer(Protocol):
    """A body under way: `left` bytes of `source` from `offset` go to `fd`."""

    fd: int
    source: int
    offset: int
    left: int

    def moved(self) -> None:
        """Some of it went out."""

    def ended(self) -> None:
        """All of it is out, or nothing more can be sent; never from within `start`."""


class FilePump:
    """`open` on the running loop; `start` transfers; `close`."""

    def __init__(self) -> None:
        self._transfers: dict[int, Transfer] = {}
        self._epoll: select.epoll | None = None

    def open(self) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            express().watch(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        if self._epoll is not None:
            express().unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def start(self, transfer: Transfer) -> bool:
        """Send what fits at once; True if that ended it, else `ended` is called some time."""
        if _move(transfer):
            return True
        assert self._epoll is not None, "open() comes first"
        self._transfers[transfer.fd] = transfer
        self._epoll.register(transfer.fd, select.EPOLLOUT)
        return False

    def stop(self, transfer: Transfer) -> None:
        """Forget a transfer before its descriptor is closed."""
        if self._transfers.get(transfer.fd) is transfer and self._epoll is not None:
            del self._transfers[transfer.fd]
            self._epoll.unregister(transfer.fd)

    def _turn(self, now: float = 0.0) -> None:
        """An express handler: the others have their turn before what one turn leaves."""
        epoll = self._epoll
        if epoll is None:
            return
        end = time.perf_counter() + TURN_SECONDS
        for _ in range(TURN_FILES):
            ready = epoll.poll(0, 1)  # one by one: whoever had its turn goes behind the others
            if not ready:
                return
            transfer = self._transfers[ready[0][0]]
            if _move(transfer):
                self.stop(transfer)
                transfer.ended()
            else:
                transfer.moved()
            if epoll.closed:
                return
            if time.perf_counter() >= end:
                break
        express().call_soon(self._turn)


def _move(transfer: Transfer) -> bool:
    """One share of a file; True when there is nothing more to do."""
    try:
        moved = os.sendfile(transfer.fd, transfer.source, transfer.offset, min(transfer.left, TURN_BYTES))
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True  # the peer left
    transfer.offset += moved
    transfer.left -= moved
    return moved == 0 or transfer.left == 0  # 0: the file has become shorter
