"""Giving machines an image and taking it away, all targets or none. Inside the caller's write transaction."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, func, insert, select, update

from pxeserver.boot import profile as boot_profile
from pxeserver.boot.cmdline import join
from pxeserver.boot.preflight import tight, unfit
from pxeserver.config import Config
from pxeserver.fleet import rows
from pxeserver.fleet.tables import AssignmentRecord
from pxeserver.fleet.values import AssignOrder, Diff, short_image
from pxeserver.model import Assignment, FleetView, Image, Machine


def assign(
    conn: Connection, machine: Machine, image: Image, order: AssignOrder, now: float
) -> tuple[Assignment, Assignment | None]:
    """The assignment in force afterwards and the one before (None = there was none); equal when nothing changed."""
    before = rows.assignments(conn, [machine.id]).get(machine.id)
    wanted = Assignment(
        machine=machine.id,
        spec=image.spec,
        image=image.digest,
        revision=_last_revision(conn, machine.id) + 1,
        follow=order.follow,
        args=order.args,
        at=now,
        by=order.by,
        reason=order.reason,
    )
    if before is not None and _same(before, wanted):
        return before, before
    _end(conn, machine.id, now)
    conn.execute(
        insert(AssignmentRecord).values(
            machine=machine.id,
            spec=wanted.spec,
            image=wanted.image,
            revision=wanted.revision,
            follow=wanted.follow,
            args=list(wanted.args),
            at=now,
            by=wanted.by,
            reason=wanted.reason,
        )
    )
    rows.move(conn)
    return wanted, before


def unassign(conn: Connection, machine: Machine, now: float) -> Assignment | None:
    """The assignment that was taken away, None if there was none."""
    before = rows.assignments(conn, [machine.id]).get(machine.id)
    if before is not None:
        _end(conn, machine.id, now)
        rows.move(conn)
    return before


def check(machine: Machine, assignment: Assignment, image: Image, view: FleetView, config: Config) -> None:
    """A fault of the command line that the machine would get."""
    candidate = replace(view, machines={machine.id: machine}, assignments={machine.id: assignment})
    join(boot_profile.profile(machine, machine.mac, candidate, config).cmdline_parts)


def warnings(machine: Machine, image: Image, *, force: bool) -> tuple[str, ...]:
    """What a person should know before the machine boots this. Refused "arch-mismatch" or "memory-too-small" when it
    cannot, unless `force`."""
    refusal = unfit(machine, image)
    if refusal is not None and not force:
        raise refusal
    text = refusal.message if refusal is not None else tight(machine, image)
    return (text,) if text else ()


def words(assignment: Assignment | None) -> str:
    """'web@3f2a9c1d0b7e, follow, --arg quiet', or "" for none."""
    if assignment is None:
        return ""
    parts = [short_image(assignment.spec, assignment.image)]
    parts += ["follow"] if assignment.follow else []
    return ", ".join([*parts, *(f"--arg {arg}" for arg in assignment.args)])


def diff(before: Assignment | None, after: Assignment | None) -> tuple[Diff, ...]:
    old, new = words(before), words(after)
    return () if before is after else (Diff("assignment", old, new),)


def _same(a: Assignment, b: Assignment) -> bool:
    return (a.image, a.spec, a.follow, a.args) == (b.image, b.spec, b.follow, b.args)


def _end(conn: Connection, machine: int, now: float) -> None:
    in_force = (AssignmentRecord.machine == machine) & AssignmentRecord.ended.is_(None)
    conn.execute(update(AssignmentRecord).where(in_force).values(ended=now))


def _last_revision(conn: Connection, machine: int) -> int:
    query = select(func.max(AssignmentRecord.revision)).where(AssignmentRecord.machine == machine)
    return conn.execute(query).scalar() or 0
