"""The list of all machines, read once for all who ask at the same time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import MachineRow
from pxeserver.web.sse import Cursor, cursor

FRESH = 5.0  # seconds; states that only the clock changes (stuck) are read anew after this


@dataclass
class Listed:
    """Reading 2,000 machines takes a while; every open page asks for them when one event comes."""

    fleet: Fleet
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0  # of the last reading
    _stamp: Cursor | None = None
    _rows: tuple[MachineRow, ...] = ()

    def machines(self) -> tuple[MachineRow, ...]:
        """As they are now: nothing that happened before this call is missing."""
        asked = time.monotonic()
        with self._lock:
            if self._began > asked:  # somebody read them while this call waited for its turn
                return self._rows
            stamp = cursor(self.fleet)
            if stamp != self._stamp or asked - self._began > FRESH:
                self._stamp, began = None, time.monotonic()
                self._rows = self.fleet.machines()
                self._stamp, self._began = stamp, began
            return self._rows
