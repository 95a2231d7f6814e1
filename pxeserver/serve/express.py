"""The boot process's event loop: asyncio, and a short way to what gets a datagram every few microseconds.

From epoll to a callback asyncio goes by selector keys, handles and contexts, and through one turn of its loop per
wake-up: more work than a TFTP block. An express handler is called straight from the selector. Everything else keeps
its turn: the selector returns to asyncio as soon as asyncio has anything to do, after at most one batch of handlers.
"""

from __future__ import annotations

import asyncio
import logging
import select
import selectors
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

log = logging.getLogger("pxeserver.boot")

BATCH = 16  # handlers called before asyncio's descriptors are looked at again

SPIN = 40e-6  # seconds
REST_MAX = 1023  # waits

Handler = Callable[[float], object]  # gets the time, that of `loop.time`
Ts = TypeVarTuple("Ts")


class _Selector(selectors.EpollSelector):
    """asyncio's own epoll stands as one descriptor among the express ones: whichever is ready wakes us."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = False  # asyncio was given something to do
        self._ready = False  # asyncio's own descriptors are
        self._epoll = select.epoll()
        self._epoll.register(self.fileno(), select.EPOLLIN)
        self._handlers: dict[int, Handler] = {self.fileno(): self._asyncios}
        self._deferred: deque[Handler] = deque()
        self._misses = self._rest = 0  # looks in vain lately; waits without any from now on

    def _asyncios(self, now: float) -> None:
        self._ready = True

    def watch(self, fd: int, handler: Handler) -> None:
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def defer(self, handler: Handler) -> None:
        self._deferred.append(handler)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        handlers, deferred = self._handlers, self._deferred
        if len(handlers) == 1 and not deferred:
            return super().select(timeout)
        poll, clock = self._epoll.poll, time.monotonic
        end = clock() + timeout if timeout is not None else float("inf")
        self.scheduled = self._ready = False
        while True:
            events = poll(0, BATCH)
            if not events and not deferred:
                events = self._wait(timeout)
            now = clock()
            for fd, _ in events:
                handler = handlers.get(fd)
                if handler is None:  # not watched any more since one of this batch had its turn
                    continue
                try:
                    handler(now)
                except Exception:  # a fault of ours: it must not cost the others
                    log.exception("an express handler failed")
                    self.unwatch(fd)
            for _ in range(len(deferred)):
                try:
                    deferred.popleft()(now)
                except Exception:
                    log.exception("an express handler failed")
            # asyncio's may wait behind those of this batch
            ready = super().select(0) if self._ready or len(events) == BATCH else []
            if ready or self.scheduled or now >= end:
                return ready
            self._ready = False
            if timeout is not None:
                timeout = end - now

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """The next events. To sleep and be woken costs more than to look again for a while, if they come soon."""
        poll, clock = self._epoll.poll, time.monotonic
        if timeout is not None and timeout <= 0:
            return []
        if self._rest:
            self._rest -= 1
            return poll(timeout, BATCH)
        until = clock() + SPIN
        while clock() < until:
            if events := poll(0, BATCH):
                self._misses = 0
                return events
        self._rest = self._misses = min(2 * self._misses + 1, REST_MAX)
        return poll(timeout, BATCH)

    def close(self) -> None:
        self._epoll.close()
        super().close()


class ExpressLoop(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=ExpressLoop)`"""

    def __init__(self) -> None:
        self._express = _Selector()
        super().__init__(self._express)

    def watch(self, fd: int, handler: Handler) -> None:
        """Call `handler` whenever `fd` is readable or has an error to tell, until `unwatch`.

        It is called for what is there now and for what comes, not for what it leaves unread (EPOLLET), and once in vain
        if the number was another's a moment ago.
        """
        self._express.watch(fd, handler)

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed."""
        self._express.unwatch(fd)

    def defer(self, handler: Handler) -> None:
        """Call `handler` once, after those whose descriptors have something to read by now."""
        self._express.defer(handler)

    # whatever a handler gives asyncio to do comes by one of these two, on this thread

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; the selector returns to it."""
        self._express.scheduled = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; the selector returns to it, for it may be due earlier than all others."""
        self._express.scheduled = True
        return super().call_at(when, callback, *args, context=context)


def express() -> ExpressLoop:
    """The running loop, which must be one."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, ExpressLoop):
        raise RuntimeError("the boot server runs on an ExpressLoop")
    return loop
