"""Boots and events read back: rows -> values, open boots judged by the clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Row, Table, select

from pxeserver.errors import NotFound, Refused
from pxeserver.fleet.settle import settled, waiting
from pxeserver.fleet.tables import BootRow, EventRow, MachineRecord
from pxeserver.fleet.values import BootRecord, EventRecord, StageRecord
from pxeserver.model import STAGES, Result, Stage

_BOOT = cast(Table, BootRow.__table__)
_EVENT = cast(Table, EventRow.__table__)
IDS_MAX = 500  # ids in one query; for more it reads all
_STATES = {
    Result.OPEN: "booting",
    Result.UP: "up",
    Result.NETWORK_ONLY: "network-only",
    Result.STUCK: "stuck",
    Result.LOCAL: "local",
    Result.REPLACED: "stuck",
}


def state(boot: BootRecord | None) -> str:
    """MachineRow.state of a machine whose latest boot this is."""
    if boot is None:
        return "never"
    if boot.result is Result.OPEN and not boot.image and boot.stage is Stage.SCRIPT:
        return "queued" if boot.queued else "waiting"
    return _STATES[boot.result]


def latest(
    conn: Connection, now: float, stuck_seconds: float, machines: Sequence[int] | None = None
) -> dict[int, BootRecord]:
    """The latest boot of these machines, by machine id; None means all."""
    query = select(_BOOT, MachineRecord.name.label("title")).join(MachineRecord, MachineRecord.boot == _BOOT.c.id)
    if machines is not None and len(machines) <= IDS_MAX:
        query = query.where(MachineRecord.id.in_(machines))
    return {row.machine: _record(row, now, stuck_seconds) for row in conn.execute(query) if row.machine}


def newest(
    conn: Connection, now: float, stuck_seconds: float, *, machine: int | None = None, limit: int = 50
) -> tuple[BootRecord, ...]:
    """Boots, newest first; of one machine or of all."""
    query = (
        select(_BOOT, MachineRecord.name.label("title"))
        .outerjoin(MachineRecord, MachineRecord.id == _BOOT.c.machine)
        .order_by(_BOOT.c.started.desc(), _BOOT.c.id)
        .limit(limit)
    )
    if machine is not None:
        query = query.where(_BOOT.c.machine == machine)
    return tuple(_record(row, now, stuck_seconds) for row in conn.execute(query))


def one(conn: Connection, text: str, now: float, stuck_seconds: float) -> BootRecord:
    """The boot whose id begins with `text`. NotFound "boot-not-found", Refused "boot-ambiguous"."""
    low = text.lower()
    query = (
        select(_BOOT, MachineRecord.name.label("title"))
        .outerjoin(MachineRecord, MachineRecord.id == _BOOT.c.machine)
        .where(_BOOT.c.id.startswith(low, autoescape=True))
        .limit(5)
    )
    found = conn.execute(query).all() if low else []
    exact = [row for row in found if row.id == low] or found
    if not exact:
        raise NotFound("boot-not-found", f'no boot "{text}"', hint="pxeserver boots")
    if len(exact) > 1:
        ids = ", ".join(row.id for row in exact)
        raise Refused("boot-ambiguous", f'"{text}" fits several boots: {ids}', hint="write more of the id")
    return _record(exact[0], now, stuck_seconds)


def events(
    conn: Connection,
    *,
    boot: str = "",
    macs: Sequence[str] | None = None,
    after: int = 0,
    limit: int | None = None,
) -> tuple[EventRecord, ...]:
    """Events with a number above `after`, oldest first; without `after` the last `limit` of them."""
    query = select(_EVENT).where(_EVENT.c.id > after)
    if boot:
        query = query.where(_EVENT.c.boot == boot)
    if macs is not None:
        query = query.where(_EVENT.c.mac.in_(list(macs)))
    if after:
        return tuple(map(_event, conn.execute(query.order_by(_EVENT.c.id).limit(limit))))
    return tuple(reversed([_event(row) for row in conn.execute(query.order_by(_EVENT.c.id.desc()).limit(limit))]))


def events_of(conn: Connection, boots: Iterable[str]) -> dict[str, list[EventRecord]]:
    """The events of several boots, oldest first."""
    out: defaultdict[str, list[EventRecord]] = defaultdict(list)
    ids = list(boots)
    for start in range(0, len(ids), IDS_MAX):
        query = select(_EVENT).where(_EVENT.c.boot.in_(ids[start : start + IDS_MAX])).order_by(_EVENT.c.id)
        for row in conn.execute(query):
            out[row.boot].append(_event(row))
    return out


def last_event(conn: Connection) -> int:
    """The number of the newest event; 0 before the first."""
    return conn.execute(select(EventRow.id).order_by(EventRow.id.desc()).limit(1)).scalar() or 0


def _event(row: Row[Any]) -> EventRecord:
    return EventRecord(
        at=row.at,
        kind=row.kind,
        mac=row.mac,
        boot=row.boot,
        stage=Stage(row.stage) if row.stage else None,
        peer=row.peer,
        bytes=row.bytes,
        seconds=row.seconds,
        text=row.text,
        data=row.data,
        id=row.id,
    )


def _record(row: Row[Any], now: float, stuck_seconds: float) -> BootRecord:
    plain = cast(Mapping[str, Any], row._mapping)
    result = settled(plain, now, stuck_seconds)
    ended = row.ended
    if row.result == Result.OPEN and result is not Result.OPEN:
        ended = (row.last if waiting(plain) else row.moved) + stuck_seconds
    return BootRecord(
        id=row.id,
        machine=row.machine,
        name=row.title or row.mac,
        mac=row.mac,
        started=row.started,
        last=row.last,
        stage=Stage(row.stage),
        result=result,
        ended=ended,
        image=row.image,
        spec=row.spec,
        revision=row.revision,
        style=row.style,
        loader=row.loader,
        queued=row.counts.get("queued", 0) if waiting(plain) else 0,
        stages={stage: StageRecord(**row.stages[stage]) for stage in STAGES if stage in row.stages},
    )
