"""The list of all machines, kept between two looks: what happened since is read anew, once for all who ask."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from pxeserver.fleet.changes import changes
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import MachineRow
from pxeserver.web.sse import Cursor, cursor

FRESH = 10.0  # seconds; states that only the clock changes (stuck) are read anew after this


@dataclass
class Listed:
    """Reading 2,000 machines takes a while; every open page asks for them when one event comes."""

    fleet: Fleet
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0  # of the last look
    _whole: float = 0.0  # of the last reading of all
    _stamp: Cursor | None = None
    _rows: dict[int, MachineRow] = field(default_factory=dict)

    def machines(self) -> tuple[MachineRow, ...]:
        """As they are now, in no order: nothing that happened before this call is missing."""
        asked = time.monotonic()
        with self._lock:
            if self._began < asked:  # else somebody looked while this call waited for its turn
                began = time.monotonic()
                self._look(began)
                self._began = began
            return tuple(self._rows.values())

    def _look(self, began: float) -> None:
        stamp = cursor(self.fleet)
        before, self._stamp = self._stamp, None  # a failure half way leaves nothing to build on
        if before is None or before.generation != stamp.generation or began - self._whole > FRESH:
            self._rows, self._whole = {row.id: row for row in self.fleet.machines()}, began
        elif before != stamp:
            found = changes(self.fleet.database, before.event)
            view = self.fleet.view()
            ids = [view.by_mac[mac] for mac in found.macs if mac in view.by_mac]
            rows = self.fleet.machines(ids=None if found.more else ids)
            self._rows |= {row.id: row for row in rows}
        self._stamp = stamp
