"""Rows <-> the values of model.py: reading machines and assignments, few or all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from pxeserver.fleet.tables import AssignmentRecord, MachineRecord, MacRecord, MetaRow
from pxeserver.model import Assignment, Machine, Pin

_MACHINE = MachineRecord.__table__
_ASSIGNMENT = AssignmentRecord.__table__


@dataclass(frozen=True, slots=True)
class Stored:
    """A machine and what model.Machine leaves out."""

    machine: Machine
    ip: str
    created: float
    seen: float
    boot: str


def stored(conn: Connection, ids: Iterable[int] | None = None) -> dict[int, Stored]:
    """Machines by id, in the order of their names; None means all."""
    wanted = None if ids is None else list(ids)
    macs: defaultdict[int, list[str]] = defaultdict(list)
    query = select(MacRecord.machine, MacRecord.mac).order_by(MacRecord.machine, MacRecord.position)
    machines = select(_MACHINE).order_by(_MACHINE.c.name, _MACHINE.c.id)
    if wanted is not None:
        query = query.where(MacRecord.machine.in_(wanted))
        machines = machines.where(_MACHINE.c.id.in_(wanted))
    for ident, mac in conn.execute(query):
        macs[ident].append(mac)
    return {row.id: _stored(row, tuple(macs[row.id])) for row in conn.execute(machines) if macs[row.id]}


def _stored(row: Row[Any], macs: tuple[str, ...]) -> Stored:
    machine = Machine(
        id=row.id,
        name=row.name,
        macs=macs,
        known=row.known,
        labels=row.labels,
        vars=row.vars,
        cmdline=tuple(row.cmdline),
        template=row.template,
        pin=Pin(row.pin_style, row.pin_loader),
        arch=row.arch,
        memory_mib=row.memory_mib,
        facts=row.facts,
    )
    return Stored(machine, row.ip, row.created, row.seen, row.boot)


def heard(conn: Connection) -> dict[int, tuple[str, float]]:
    """Address and when it was last heard of, of every machine: what changes too often to stand in the view."""
    query = select(MachineRecord.id, MachineRecord.ip, MachineRecord.seen)
    return {ident: (ip, seen) for ident, ip, seen in conn.execute(query)}


def one(conn: Connection, ident: int) -> Stored | None:
    return stored(conn, [ident]).get(ident)


def assignments(conn: Connection, ids: Iterable[int] | None = None) -> dict[int, Assignment]:
    """Assignments in force by machine id; None means all."""
    query = select(_ASSIGNMENT).where(_ASSIGNMENT.c.ended.is_(None))
    if ids is not None:
        query = query.where(_ASSIGNMENT.c.machine.in_(list(ids)))
    return {row.machine: assignment(row) for row in conn.execute(query)}


def past(conn: Connection, since: float) -> dict[int, tuple[Assignment, ...]]:
    """Assignments that ended after `since` (Unix seconds) by machine id, newest first."""
    out: defaultdict[int, tuple[Assignment, ...]] = defaultdict(tuple)
    for row in conn.execute(select(_ASSIGNMENT).where(_ASSIGNMENT.c.ended > since).order_by(_ASSIGNMENT.c.id.desc())):
        out[row.machine] += (assignment(row),)
    return dict(out)


def history(conn: Connection, ident: int, limit: int = 50) -> list[tuple[Assignment, float]]:
    """All assignments of a machine and when they ended (0 = in force), newest first."""
    query: Select[Any] = (
        select(_ASSIGNMENT).where(_ASSIGNMENT.c.machine == ident).order_by(_ASSIGNMENT.c.id.desc()).limit(limit)
    )
    return [(assignment(row), row.ended or 0.0) for row in conn.execute(query)]


def assignment(row: Row[Any]) -> Assignment:
    return Assignment(
        machine=row.machine,
        spec=row.spec,
        image=row.image,
        revision=row.revision,
        follow=row.follow,
        args=tuple(row.args),
        at=row.at,
        by=row.by_whom,
        reason=row.reason,
    )


def machine_of_mac(conn: Connection, mac: str) -> int | None:
    return conn.execute(select(MacRecord.machine).where(MacRecord.mac == mac)).scalar()


# Five times a second in each process: the statement is not put together anew.
_GENERATION = f"SELECT number FROM {MetaRow.__tablename__} WHERE key = 'generation'"


def generation(conn: Connection) -> int:
    return int(conn.exec_driver_sql(_GENERATION).scalar_one())


def move(conn: Connection) -> None:
    """Tell every process that what a machine would get may have changed."""
    conn.execute(update(MetaRow).where(MetaRow.key == "generation").values(number=MetaRow.number + 1))
