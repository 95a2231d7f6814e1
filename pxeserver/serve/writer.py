"""Events on their way to the fleet: a bounded queue and one thread. A full disk or a locked database delays nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from pxeserver.errors import PxeServerError
from pxeserver.model import Event
from pxeserver.serve.offer import Offer

log = logging.getLogger("pxeserver.record")

QUEUE_MAX = 20_000
BATCH_MAX = 2_000
INTERVAL = 0.1  # seconds that events gather for one transaction
RETRY_FIRST, RETRY_MAX = 0.2, 5.0


class Writer:
    """`put` never waits; `record` is called in the writer's own thread and again until it succeeds."""

    def __init__(self, record: Callable[[Sequence[Event]], None], *, maximum: int = QUEUE_MAX) -> None:
        self._record = record
        self._maximum = maximum
        self._queue: deque[Event | Offer] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.dropped = 0
        self.written = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event; when the queue is full the newest is dropped and counted: how a boot began matters most."""
        with self._lock:
            if len(self._queue) >= self._maximum:
                self.dropped += 1
                return
            self._queue.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def put_offers(self, offers: Sequence[Offer]) -> None:
        """The same for these, which are made events in the writer's thread."""
        with self._lock:
            room = max(0, self._maximum - len(self._queue))
            self._queue += offers[:room] if room < len(offers) else offers
            self.dropped += max(0, len(offers) - room)
        if room and not self._wake.is_set():
            self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def close(self, within: float = 3.0) -> None:
        """Write what is queued, for at most `within` seconds."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(within)

    def _run(self) -> None:
        pause, told, took = 0.0, False, 0.0
        while True:
            if pause:
                self._stopping.wait(pause)
            elif not self._stopping.is_set():
                self._wake.wait()
                self._stopping.wait(max(INTERVAL, took))  # half of the time at most: the loop wants the interpreter
            began = time.monotonic()
            last = self._stopping.is_set()  # whatever comes of this try, there is no other
            with self._lock:
                self._wake.clear()
                taken = list(islice(self._queue, BATCH_MAX))
            batch = [what.event() if isinstance(what, Offer) else what for what in taken]
            if not batch and last:
                return
            try:
                if batch:
                    self._record(batch)
            except PxeServerError as error:
                if not told:
                    log.warning("events wait, the database cannot take them now: %s", error)
                told = True
                if last:
                    return
                pause = min(pause * 2 or RETRY_FIRST, RETRY_MAX)
                continue
            except Exception:
                log.exception("%d events lost: the database refuses them", len(batch))
                self.dropped += len(batch)
            else:
                self.written += len(batch)
            if told:
                log.warning("events are written again")
            pause, told, took = 0.0, False, time.monotonic() - began
            with self._lock:
                for _ in batch:
                    self._queue.popleft()
                if self._queue:
                    self._wake.set()
