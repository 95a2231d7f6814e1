"""Which images machines need: what removing unused images must leave alone."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select

from pxeserver.fleet.tables import AssignmentRecord, BootRow
from pxeserver.model import Digest, Result


def needed(conn: Connection, since: float) -> tuple[Digest, ...]:
    """Images assigned now or until after `since` (Unix seconds), so that an assignment can be undone, and those of
    boots that are under way; sorted."""
    assigned = select(AssignmentRecord.image).where(
        or_(AssignmentRecord.ended.is_(None), AssignmentRecord.ended >= since)
    )
    booting = select(BootRow.image).where(BootRow.result == Result.OPEN)
    found = {digest for query in (assigned, booting) for digest in conn.execute(query.distinct()).scalars()}
    return tuple(sorted(found - {""}))
