"""What happened since: which machines have events after a given one. Made to be asked several times a second."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from pxeserver.fleet.database import Database
from pxeserver.fleet.tables import EventRow
from pxeserver.mac import Mac

MACS_MAX = 500


@dataclass(frozen=True, slots=True)
class Changes:
    """`last` is the number of the newest event (0 = none); `more` = there were too many machines to name."""

    last: int
    macs: frozenset[Mac] = frozenset()
    more: bool = False


def changes(database: Database, after: int | None) -> Changes:
    """The MACs of all events after number `after`; None asks for the newest number only. One or two indexed reads."""
    with database.read() as conn:
        last = conn.execute(select(func.max(EventRow.id))).scalar() or 0
        if after is None or after == last:
            return Changes(last)
        query = select(EventRow.mac).where(EventRow.id > after, EventRow.mac != "").distinct().limit(MACS_MAX + 1)
        macs = frozenset(conn.execute(query).scalars())
        return Changes(last, macs, len(macs) > MACS_MAX)
