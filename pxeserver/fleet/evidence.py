"""Causes of boots that do not come up: boot.diagnose on their events, at the moment somebody looks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from pxeserver.boot.diagnose import diagnose
from pxeserver.fleet import boots
from pxeserver.fleet.values import BootRecord, CauseInfo, EventRecord
from pxeserver.model import FleetView, Result

CACHE_MAX = 5000  # boots whose events are kept; they are read anew when something happened
_TROUBLED = (Result.OPEN, Result.STUCK, Result.REPLACED)


class Evidence:
    """Events of the boots under judgement, kept between two looks. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Sequence[EventRecord]]] = OrderedDict()
        self._lock = threading.Lock()

    def judge(
        self, conn: Connection, records: Iterable[BootRecord], view: FleetView, now: float
    ) -> tuple[BootRecord, ...]:
        """The same boots, each with its cause if it has one."""
        found = tuple(records)
        troubled = [b for b in found if b.result in _TROUBLED]
        events = self._events(conn, troubled)
        causes: dict[str, CauseInfo] = {}
        for boot in troubled:
            machine = view.machines.get(boot.machine) if boot.machine is not None else None
            cause = diagnose(events[boot.id], machine, view.images.get(boot.image), now, result=boot.result)
            if cause is not None:
                causes[boot.id] = CauseInfo(cause.slug, cause.text, cause.evidence, cause.fix)
        return tuple(replace(b, cause=causes[b.id]) if b.id in causes else b for b in found)

    def _events(self, conn: Connection, wanted: Sequence[BootRecord]) -> dict[str, Sequence[EventRecord]]:
        with self._lock:
            out = {b.id: self._kept[b.id][1] for b in wanted if self._kept.get(b.id, (None,))[0] == b.last}
        missing = [b for b in wanted if b.id not in out]
        fresh = boots.events_of(conn, (b.id for b in missing))
        with self._lock:
            for boot in missing:
                out[boot.id] = fresh.get(boot.id, [])
                self._kept[boot.id] = (boot.last, out[boot.id])
                self._kept.move_to_end(boot.id)
            while len(self._kept) > CACHE_MAX:
                self._kept.popitem(last=False)
        return out
