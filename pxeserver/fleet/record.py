"""Events into the database: one transaction opens, advances and closes boots, adds unknown machines, learns facts.

Nothing an event says can make it fail: what makes no sense is left out, texts are cleaned and cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import aliased

from pxeserver.boot.styles import ALONE
from pxeserver.fleet import rows
from pxeserver.fleet.settle import settled
from pxeserver.fleet.tables import BootRow, EventRow, MachineRecord, MacRecord
from pxeserver.model import STAGES, STYLE_FACT, Digest, Event, Result, Stage

CHUNK = 400  # events per round of queries; well under SQLite's number of parameters
TEXT_MAX = 64 * 1024
KEEP_STAGE, KEEP_OTHER = 10, 1000  # rows per boot and kind; after that the newest one is replaced
FACTS = ("uuid", "serial", "manufacturer", "product", "firmware", "ipxe")
_BOOT = cast(Table, BootRow.__table__)
_MACHINE = cast(Table, MachineRecord.__table__)
_EVENT = aliased(EventRow)
_DROP = delete(EventRow).where(
    EventRow.id
    == select(func.max(_EVENT.id))
    .where(_EVENT.boot == bindparam("of"), _EVENT.kind == bindparam("what"))
    .scalar_subquery()
)
_ORDER = {stage: n for n, stage in enumerate(STAGES)}

# what an image is called in an event (a digest or the 32 hex digits of a token) -> (digest, spec), or None
Resolve = Callable[[str], tuple[Digest, str] | None]


@dataclass(slots=True)
class _Host:
    """What may change about a machine here."""

    id: int
    arch: str = ""
    memory_mib: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    ip: str = ""
    seen: float = 0.0
    boot: str = ""


class _Batch:
    """One round: loads what its events touch, applies them in order, writes what changed."""

    def __init__(self, conn: Connection, events: Sequence[Event], resolve: Resolve, stuck_seconds: int) -> None:
        self.conn, self.resolve, self.stuck_seconds = conn, resolve, stuck_seconds
        self.moved = False  # machines changed: other processes must look again
        self.hosts: dict[str, _Host] = {}
        self.boots: dict[str, dict[str, Any]] = {}
        self.new_boots: set[str] = set()
        self.rows: list[dict[str, Any] | None] = []  # None: a newer one took its place
        self.newest: dict[tuple[str, str], int] = {}  # boot, kind -> number of its last row
        self.replaced: set[tuple[str, str]] = set()  # ... -> whose last row in the database goes
        macs = {e.mac: e.at for e in reversed(events) if e.mac and math.isfinite(e.at)}
        self._load_hosts(macs)
        self._add_hosts({mac: at for mac, at in macs.items() if mac not in self.hosts})
        self._load_boots({e.boot for e in events if e.boot} | {h.boot for h in self.hosts.values() if h.boot})

    def _load_hosts(self, macs: Iterable[str]) -> None:
        m = MachineRecord
        query = (
            select(MacRecord.mac, m.id, m.arch, m.memory_mib, m.facts, m.ip, m.seen, m.boot)
            .join(m, MacRecord.machine == m.id)
            .where(MacRecord.mac.in_(list(macs)))
        )
        by_id: dict[int, _Host] = {}
        for mac, ident, arch, memory, facts, ip, seen, boot in self.conn.execute(query):
            self.hosts[mac] = by_id.setdefault(ident, _Host(ident, arch, memory, dict(facts), ip, seen, boot))

    def _load_boots(self, ids: Iterable[str]) -> None:
        query = select(_BOOT).where(BootRow.id.in_(list(ids)))
        self.boots = {row.id: dict(row._mapping) for row in self.conn.execute(query)}

    def _add_hosts(self, macs: Mapping[str, float]) -> None:
        """Machines never heard of, by MAC and when they were first."""
        if not macs:
            return
        new = insert(MachineRecord).returning(MachineRecord.id, sort_by_parameter_order=True)
        values = [{"known": False, "created": at, "seen": at} for at in macs.values()]
        for mac, ident in zip(macs, self.conn.execute(new, values).scalars().all(), strict=True):
            self.hosts[mac] = _Host(ident)
        self.conn.execute(
            insert(MacRecord), [{"mac": m, "machine": h.id, "position": 0} for m, h in self.hosts.items() if m in macs]
        )
        self.moved = True

    def add(self, event: Event) -> None:
        if not math.isfinite(event.at):
            return
        host = self.hosts[event.mac] if event.mac else None
        if host is not None:
            host.seen = max(host.seen, event.at)
            self._learn(host, event)
        if event.boot:
            boot = self._boot(event, host)
            self._advance(boot, event)
            if host is not None:
                self._learn_style(host, boot, event)
            if boot["counts"].get(event.kind, 0) >= (KEEP_STAGE if event.stage else KEEP_OTHER):
                self._drop_newest(event.boot, event.kind)
            else:
                boot["counts"] = {**boot["counts"], event.kind: boot["counts"].get(event.kind, 0) + 1}
            self.newest[event.boot, event.kind] = len(self.rows)
        self.rows.append(_event_row(event))

    def _learn(self, host: _Host, event: Event) -> None:
        data = event.data
        facts = {**host.facts, **{key: clean(data[key], 200) for key in FACTS if data.get(key)}}
        arch = clean(data.get("arch", ""), 20) or host.arch
        text = data.get("memory", "")
        memory = int(text) if text.isdecimal() and 0 < int(text) < 1 << 31 else host.memory_mib
        if (facts, arch, memory) != (host.facts, host.arch, host.memory_mib):
            host.facts, host.arch, host.memory_mib = facts, arch, memory
            self.moved = True
        host.ip = clean(data.get("ip", ""), 50) or host.ip

    def _learn_style(self, host: _Host, boot: Mapping[str, Any], event: Event) -> None:
        """The offer before the first loader, or before the script of an iPXE in ROM, is one that the firmware takes."""
        first = event.stage is Stage.LOADER or (event.stage is Stage.SCRIPT and Stage.LOADER not in boot["stages"])
        if first and boot["style"] not in ("", *ALONE, host.facts.get(STYLE_FACT)):
            host.facts = {**host.facts, STYLE_FACT: boot["style"]}
            self.moved = True

    def _boot(self, event: Event, host: _Host | None) -> dict[str, Any]:
        """The event's boot, opened if it is new; the machine's boot before it is closed then."""
        boot = self.boots.get(event.boot)
        if boot is None:
            boot = self.boots[event.boot] = _new_boot(event, host)
            self.new_boots.add(event.boot)
            if host is not None:
                before = self.boots.get(host.boot)
                if before is not None and before["result"] == Result.OPEN:
                    result = settled(before, event.at, self.stuck_seconds)
                    before["result"] = Result.REPLACED if result is Result.OPEN else result
                    before["ended"] = event.at
                host.boot = event.boot
        elif boot["machine"] is None and host is not None:  # its machine was removed meanwhile and shows up again
            boot["machine"], host.boot = host.id, event.boot
        return boot

    def _advance(self, boot: dict[str, Any], event: Event) -> None:
        boot["last"] = max(boot["last"], event.at)
        data = event.data
        for key in ("style", "loader"):
            boot[key] = clean(data.get(key, ""), 100) or boot[key]
        revision = data.get("revision", "")
        boot["revision"] = int(revision) if revision.isdecimal() and len(revision) < 10 else boot["revision"]
        image = self.resolve(data["image"]) if data.get("image") else None
        if image is not None:
            boot["image"], boot["spec"] = image
        if data.get("action") == "wait":  # it waits for an image now, not for the link
            boot["counts"] = {kind: count for kind, count in boot["counts"].items() if kind != "queued"}
        if event.stage is not None:
            boot["stages"] = {**boot["stages"], event.stage: _stage(boot["stages"].get(event.stage), event)}
            if boot["stage"] == "" or _ORDER[event.stage] > _ORDER[Stage(boot["stage"])]:
                boot["stage"], boot["moved"] = str(event.stage), event.at
        if event.stage is Stage.UP:  # "up" wins over everything said before
            boot["result"], boot["ended"] = Result.UP, event.at
        elif data.get("result") in tuple(Result) and boot["result"] == Result.OPEN:
            boot["result"], boot["ended"] = data["result"], event.at

    def _drop_newest(self, boot: str, kind: str) -> None:
        """A machine that waits for days asks every few seconds: keep the first ones and the last one."""
        number = self.newest.get((boot, kind))
        if number is not None:
            self.rows[number] = None
        else:
            self.replaced.add((boot, kind))

    def write(self) -> None:
        fresh = [_boot_row(self.boots[i]) for i in self.boots if i in self.new_boots]
        old = [_boot_row(self.boots[i]) for i in self.boots if i not in self.new_boots]
        if fresh:
            self.conn.execute(insert(BootRow), fresh)
        if old:
            for row in old:
                row["key"] = row.pop("id")
            self.conn.execute(update(_BOOT).where(BootRow.id == bindparam("key")), old)
        hosts = {h.id: h for h in self.hosts.values()}.values()
        if hosts:
            names = ("arch", "memory_mib", "facts", "ip", "seen", "boot")
            values = [{"key": h.id, **{name: getattr(h, name) for name in names}} for h in hosts]
            self.conn.execute(update(_MACHINE).where(MachineRecord.id == bindparam("key")), values)
        if self.replaced:
            self.conn.execute(_DROP, [{"of": boot, "what": kind} for boot, kind in self.replaced])
        rows = [row for row in self.rows if row is not None]
        if rows:
            self.conn.execute(insert(EventRow), rows)


def record(conn: Connection, events: Sequence[Event], resolve: Resolve, stuck_seconds: int) -> None:
    """Apply `events` in their order; moves the generation when a machine is new or something was learnt about one."""
    moved = False
    for start in range(0, len(events), CHUNK):
        chunk = events[start : start + CHUNK]
        batch = _Batch(conn, chunk, resolve, stuck_seconds)
        for event in chunk:
            batch.add(event)
        batch.write()
        moved = moved or batch.moved
    if moved:
        rows.move(conn)


def clean(text: str, limit: int = TEXT_MAX) -> str:
    """Text that every database takes: no NUL, no half surrogates, not longer than `limit`."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "")


def _new_boot(event: Event, host: _Host | None) -> dict[str, Any]:
    return {
        "id": event.boot,
        "machine": None if host is None else host.id,
        "mac": event.mac,
        "image": "",
        "spec": "",
        "revision": 0,
        "style": "",
        "loader": "",
        "started": event.at,
        "last": event.at,
        "moved": event.at,
        "ended": 0.0,
        "stage": "",
        "stages": {},
        "counts": {},
        "result": str(Result.OPEN),
    }


def _boot_row(boot: dict[str, Any]) -> dict[str, Any]:
    return {**boot, "stage": boot["stage"] or str(Stage.OFFER), "result": str(boot["result"])}


def _stage(before: dict[str, Any] | None, event: Event) -> dict[str, Any]:
    """The stage's sums with one more event."""
    if before is None:
        before = {"at": event.at, "last": event.at, "count": 0, "bytes": 0, "seconds": 0.0, "peer": ""}
    return {
        "at": min(before["at"], event.at),
        "last": max(before["last"], event.at),
        "count": before["count"] + 1,
        "bytes": max(before["bytes"], _amount(event.bytes)),
        "seconds": max(before["seconds"], event.seconds if math.isfinite(event.seconds) else 0.0),
        "peer": clean(event.peer, 100) or before["peer"],
    }


def _amount(count: int) -> int:
    return max(0, min(count, (1 << 63) - 1))


def _event_row(event: Event) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": clean(event.kind, 50),
        "mac": event.mac,
        "boot": event.boot,
        "stage": str(event.stage or ""),
        "peer": clean(event.peer, 100),
        "bytes": _amount(event.bytes),
        "seconds": event.seconds if math.isfinite(event.seconds) else 0.0,
        "text": clean(event.text),
        "data": {clean(str(k), 100): clean(str(v)) for k, v in event.data.items()},
    }
