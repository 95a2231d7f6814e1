"""What lists and pages show of machines: rows and details, read in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from pxeserver.config import Config
from pxeserver.fleet import boots, profiles, rows
from pxeserver.fleet.evidence import Evidence
from pxeserver.fleet.values import AssignmentInfo, BootRecord, MachineDetail, MachineRow, short_image
from pxeserver.model import Assignment, FleetView, Machine

BOOTS_SHOWN = 10


def machine_rows(
    conn: Connection,
    view: FleetView,
    config: Config,
    evidence: Evidence,
    now: float,
    ids: Sequence[int] | None = None,
) -> tuple[MachineRow, ...]:
    """Every machine (or those of `ids`), named ones first by their names, then the others, last seen first."""
    latest = boots.latest(conn, now, config.boot.stuck_seconds, ids)
    judged = {b.machine: b for b in evidence.judge(conn, latest.values(), view, now)}
    heard = rows.heard(conn)
    wanted = None if ids is None else set(ids)
    found = [
        _row(machine, *heard.get(ident, ("", 0.0)), view.assignments.get(ident), judged.get(ident), view)
        for ident, machine in view.machines.items()
        if wanted is None or ident in wanted
    ]
    return tuple(sorted(found, key=lambda r: (not r.known, not r.name, r.name.lower() or -r.seen, r.id)))


def detail(
    conn: Connection, machine: Machine, view: FleetView, config: Config, evidence: Evidence, now: float
) -> MachineDetail:
    """One machine with its profile, history, last boots and the events of the latest."""
    found = rows.one(conn, machine.id) or rows.Stored(machine, "", 0.0, 0.0, "")
    done = boots.newest(conn, now, config.boot.stuck_seconds, machine=machine.id, limit=BOOTS_SHOWN)
    judged = evidence.judge(conn, done, view, now)
    latest = next((b for b in judged if b.id == found.boot), None)
    given = rows.assignments(conn, [machine.id]).get(machine.id)
    return MachineDetail(
        machine=found.machine,
        row=_row(found.machine, found.ip, found.seen, given, latest, view),
        profile=profiles.info(found.machine, found.machine.mac, view, config),
        history=tuple(assignment_info(a, ended, view) for a, ended in rows.history(conn, machine.id)),
        boots=judged,
        events=boots.events(conn, boot=latest.id) if latest else (),
    )


def assignment_info(assignment: Assignment, ended: float, view: FleetView) -> AssignmentInfo:
    """An assignment with what people want to know about it: whether a newer build exists."""
    newest = view.newest.get(assignment.spec, "")
    digest = newest or assignment.image if assignment.follow and not ended else assignment.image
    image = view.images.get(digest)
    old = not ended and bool(newest) and newest != digest
    return AssignmentInfo(
        spec=assignment.spec,
        image=digest,
        short=image.short if image else short_image(assignment.spec, digest),
        revision=assignment.revision,
        follow=assignment.follow,
        args=assignment.args,
        at=assignment.at,
        by=assignment.by,
        reason=assignment.reason,
        ended=ended,
        newer=view.images[newest].short if old else "",
    )


def _row(
    machine: Machine, ip: str, seen: float, given: Assignment | None, boot: BootRecord | None, view: FleetView
) -> MachineRow:
    return MachineRow(
        id=machine.id,
        name=machine.name,
        mac=machine.mac,
        macs=machine.macs,
        known=machine.known,
        labels=machine.labels,
        arch=machine.arch,
        memory_mib=machine.memory_mib,
        ip=ip,
        seen=seen,
        state=boots.state(boot),
        assignment=assignment_info(given, 0.0, view) if given else None,
        boot=boot,
    )
