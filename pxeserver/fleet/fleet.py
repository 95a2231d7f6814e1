"""The fleet behind one interface: `open_fleet(config) -> Fleet`. Safe to use from several threads and processes."""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, insert, select

from pxeserver import __version__
from pxeserver.config import Config
from pxeserver.errors import Refused
from pxeserver.fleet import assign, boots, explain, listing, machines, needed, record, report, rows, specs, view
from pxeserver.fleet.database import Database, open_database
from pxeserver.fleet.evidence import Evidence
from pxeserver.fleet.find import find
from pxeserver.fleet.prune import prune
from pxeserver.fleet.report import Done
from pxeserver.fleet.tables import MetaRow
from pxeserver.fleet.values import (
    AssignOrder,
    BootDetail,
    BootRecord,
    Change,
    EventRecord,
    ExplainOrder,
    Explanation,
    MachineDetail,
    MachineEdit,
    MachineRow,
    Rendering,
    SpecInfo,
    Status,
)
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.mac import looks_like_mac, parse_mac
from pxeserver.model import Digest, Event, FleetView, Image, Machine

PRUNE_SECONDS = 3600


class Fleet:
    """Machines, assignments, boots and events, and the images they refer to. `clock` gives Unix seconds."""

    def __init__(
        self, database: Database, catalogue: Catalogue, config: Config, clock: Callable[[], float] = time.time
    ) -> None:
        self.database, self.catalogue, self.config, self.clock = database, catalogue, config, clock
        self._lock = threading.Lock()  # guards what follows
        self._stamp: object = None
        self._images: tuple[Image, ...] = ()
        self._image_moves = 0
        self._view: FleetView | None = None
        self._pruned = 0.0
        self._evidence = Evidence()

    def close(self) -> None:
        self.database.close()

    # --- what deciding needs ---

    def generation(self) -> int:
        """Moves whenever what a machine would get may have changed. One small read; made to be polled."""
        self.images()
        with self.database.read() as conn:
            return rows.generation(conn) + self._image_moves

    def view(self) -> FleetView:
        """The picture to decide on; the same object until the generation moves."""
        images = self.images()
        with self.database.read() as conn:
            generation = rows.generation(conn) + self._image_moves
            if self._view is None or self._view.generation != generation:
                self._view = view.read(conn, images, self.config, generation, self.clock())
            return self._view

    def images(self) -> tuple[Image, ...]:
        """Built images, newest first; read anew when the store's index changed."""
        with self._lock:
            stamp = self.catalogue.stamp()
            if stamp != self._stamp:
                self._images = self.catalogue.list()
                self._stamp = stamp
                self._image_moves += 1
            return self._images

    def needed_images(self) -> tuple[Digest, ...]:
        """Digests that must stay in the store: assigned, assigned within the last `boot.keep_days`, or booting."""
        with self.database.read() as conn:
            return needed.needed(conn, self.clock() - self.config.boot.keep_days * 86400)

    def secret(self) -> bytes:
        """The key that seals boot tokens: 32 bytes, made by whoever asks first."""
        query = select(MetaRow.blob).where(MetaRow.key == "secret")
        with self.database.read() as conn:
            found = conn.execute(query).scalar()
        if found is None:
            with self.database.write() as conn:
                found = conn.execute(query).scalar()
                if found is None:
                    found = secrets.token_bytes(32)
                    conn.execute(insert(MetaRow).values(key="secret", number=0, blob=found))
        return bytes(found)

    # --- what happened ---

    def record(self, events: Sequence[Event]) -> None:
        """Write events down, all or none. DatabaseError when it cannot be done now: keep them and try again."""
        images = self.images()

        def resolve(text: str) -> tuple[Digest, str] | None:
            want = "sha256:" + text.removeprefix("sha256:")
            hit = next((i for i in images if len(want) >= 39 and i.digest.startswith(want)), None)
            return None if hit is None else (hit.digest, hit.spec)

        with self.database.write() as conn:
            record.record(conn, events, resolve, self.config.boot.stuck_seconds)
            now = self.clock()
            if now - self._pruned > PRUNE_SECONDS and prune(conn, now - self.config.boot.keep_days * 86400):
                self._pruned = now

    # --- reading ---

    def status(self) -> Status:
        """Who this is; cheap."""
        view = self.view()
        return Status(__version__, str(self.config.data), view.generation, len(view.machines), len(view.images))

    def find(self, text: str) -> Machine:
        """The one machine that `text` means; see find.py."""
        view = self.view()
        machine = view.machine(parse_mac(text)) if looks_like_mac(text) else None
        return machine or find(text, view.machines.values())

    def machines(self, *, known: bool | None = None, ids: Sequence[int] | None = None) -> tuple[MachineRow, ...]:
        """All machines with assignment, state and latest boot; `known` leaves the others out, `ids` all but a few."""
        view = self.view()
        with self.database.read() as conn:
            found = listing.machine_rows(conn, view, self.config, self._evidence, self.clock(), ids)
        return tuple(row for row in found if known is None or row.known is known)

    def show(self, target: str) -> MachineDetail:
        """Everything about one machine."""
        machine, view = self.find(target), self.view()
        with self.database.read() as conn:
            return listing.detail(conn, machine, view, self.config, self._evidence, self.clock())

    def addresses(self) -> tuple[tuple[int, str, float], ...]:
        """Machine id, the address that it had last, and when it was last heard of (Unix seconds)."""
        with self.database.read() as conn:
            return tuple((ident, ip, seen) for ident, (ip, seen) in rows.heard(conn).items() if ip)

    def boots(self, target: str | None = None, *, limit: int = 50) -> tuple[BootRecord, ...]:
        """Boots, newest first, of one machine or of all."""
        machine = None if target is None else self.find(target).id
        view, now = self.view(), self.clock()
        with self.database.read() as conn:
            found = boots.newest(conn, now, self.config.boot.stuck_seconds, machine=machine, limit=limit)
            return self._evidence.judge(conn, found, view, now)

    def boot(self, boot: str) -> BootDetail:
        """A boot by the beginning of its id, with its events."""
        view, now = self.view(), self.clock()
        with self.database.read() as conn:
            found = boots.one(conn, boot, now, self.config.boot.stuck_seconds)
            (judged,) = self._evidence.judge(conn, [found], view, now)
            return BootDetail(judged, boots.events(conn, boot=found.id))

    def events(
        self, target: str | None = None, *, boot: str = "", after: int = 0, limit: int = 200
    ) -> tuple[EventRecord, ...]:
        """The last events, or the first ones after the event numbered `after`; oldest first either way."""
        macs = None if target is None else self.find(target).macs
        with self.database.read() as conn:
            return boots.events(conn, boot=boot, macs=macs, after=after, limit=limit)

    def specs(self) -> tuple[SpecInfo, ...]:
        """Every spec that can be named, with its newest build."""
        return specs.list_specs(specs.spec_files(self.config), self.images(), self.view().newest)

    def render(self, target: str, what: str) -> Rendering:
        """The machine's `script` or `cmdline` as it would be now."""
        return explain.render(self, target, what)

    def explain(self, target: str, order: ExplainOrder) -> Explanation:
        """The decision on a recorded or made-up packet of this machine, or of a MAC never heard of."""
        return explain.explain(self, target, order)

    # --- writing ---

    def add_machine(self, edit: MachineEdit) -> Change:
        """A new machine; an unknown one of these MACs becomes it."""
        with self.database.write() as conn:
            machine = machines.add(conn, edit, self.clock(), self.config)
        diffs = machines.diffs(Machine(machine.id, "", (), known=False), machine)
        undo = shlex.join(["pxeserver", "machines", "rm", machine.name or machine.mac])
        return self._reports([Done(machine, diffs, undo)])[0]

    def set_machine(self, target: str, edit: MachineEdit) -> Change:
        """Change a machine; it is a known one from then on."""
        before = self.find(target)
        with self.database.write() as conn:
            machine, diffs = machines.change(conn, before.id, edit, self.config)
        return self._reports([Done(machine, diffs, report.undo_edit(before, machine))])[0]

    def remove_machine(self, target: str, *, assigned: bool = False) -> Change:
        """Forget a machine and its MACs; its boots stay, and on its next boot it is an unknown one.

        Refused "machine-assigned" unless `assigned` says that its assignment may go too.
        """
        machine = self.find(target)
        with self.database.write() as conn:
            given = rows.assignments(conn, [machine.id]).get(machine.id)
            if given is not None and not assigned:
                raise Refused(
                    "machine-assigned",
                    f"{machine.name or machine.mac} is assigned {assign.words(given)}",
                    hint=f"pxeserver unassign {machine.name or machine.mac}, or rm --assigned",
                )
            machines.remove(conn, machine.id)
        return report.removed(machine, given)

    def pin(self, target: str, *, style: str | None = None, loader: str | None = None) -> Change:
        """Override style or loader of the answers; None leaves one alone, "" takes its pin away."""
        before = self.find(target)
        after = machines.pinned(before, style, loader, self.config)
        with self.database.write() as conn:
            machine = machines.present(conn, before.id)
            after = replace(machine, known=True, pin=after.pin)
            machines.write(conn, after)
        return self._reports([Done(after, machines.diffs(before, after), report.undo_pin(before, after))])[0]

    def assign(self, targets: Sequence[str], order: AssignOrder) -> tuple[Change, ...]:
        """Give all `targets` an image, or none of them. A MAC never heard of becomes a machine."""
        image = specs.chosen(order.what, follow=order.follow, catalogue=self.catalogue, config=self.config)
        view = self.view()
        done: dict[int, Done] = {}
        with self.database.write() as conn:
            for target in targets:
                machine = self._target(conn, target)
                after, before = assign.assign(conn, machine, image, order, self.clock())
                assign.check(machine, after, image, view, self.config)
                undo = "" if before is after else report.undo_assignment(machine, before)
                warnings = assign.warnings(machine, image, force=order.force)
                done.setdefault(machine.id, Done(machine, assign.diff(before, after), undo, warnings))
        return self._reports(done.values())

    def unassign(self, targets: Sequence[str]) -> tuple[Change, ...]:
        """Take the assignments of all `targets` away."""
        found = {machine.id: machine for machine in map(self.find, targets)}
        done = []
        with self.database.write() as conn:
            for machine in found.values():
                before = assign.unassign(conn, machine, self.clock())
                undo = report.undo_assignment(machine, before) if before else ""
                done.append(Done(machine, assign.diff(before, None), undo))
        return self._reports(done)

    def _target(self, conn: Connection, text: str) -> Machine:
        """The machine to assign to, known from now on; a MAC that nobody has makes a new one."""
        if looks_like_mac(text):
            ident = rows.machine_of_mac(conn, parse_mac(text))
            if ident is None:
                return machines.add(conn, MachineEdit(macs=(text,)), self.clock(), self.config)
        else:
            ident = self.find(text).id
        return machines.adopt(conn, ident)

    def _reports(self, done: Iterable[Done]) -> tuple[Change, ...]:
        view, now, todo = self.view(), self.clock(), tuple(done)
        with self.database.read() as conn:
            latest = boots.latest(conn, now, self.config.boot.stuck_seconds, [d.machine.id for d in todo])
        return tuple(
            report.change(d, view=view, boot=latest.get(d.machine.id), config=self.config, now=now) for d in todo
        )


def open_fleet(config: Config, clock: Callable[[], float] = time.time) -> Fleet:
    """The fleet of `config`, its database migrated. DatabaseError, UsageError (url), Refused (newer database)."""
    return Fleet(open_database(config), Catalogue(Store(config.data / "store")), config, clock)
