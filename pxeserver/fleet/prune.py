"""Forgetting: events, boots and unknown machines older than boot.keep_days."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from pxeserver.fleet.tables import AssignmentRecord, BootRow, EventRow, MachineRecord

ROWS_AT_ONCE = 5000  # so that no other writer waits long; the next go takes the rest


def prune(conn: Connection, before: float) -> bool:
    """Drop what is older than `before` (Unix seconds); True when there was nothing left over."""
    events = select(EventRow.id).where(EventRow.at < before).limit(ROWS_AT_ONCE)
    boots = select(BootRow.id).where(BootRow.last < before).limit(ROWS_AT_ONCE)
    assigned = select(AssignmentRecord.machine)
    machines = (
        select(MachineRecord.id)
        .where(MachineRecord.known.is_(False), MachineRecord.seen < before, MachineRecord.id.not_in(assigned))
        .limit(ROWS_AT_ONCE)
    )
    dropped = [
        conn.execute(delete(EventRow).where(EventRow.id.in_(events))).rowcount,
        conn.execute(delete(BootRow).where(BootRow.id.in_(boots))).rowcount,
        conn.execute(delete(MachineRecord).where(MachineRecord.id.in_(machines))).rowcount,
    ]
    return max(dropped) < ROWS_AT_ONCE
