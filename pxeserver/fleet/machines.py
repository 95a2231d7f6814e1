"""Adding, changing and removing machines. Each works inside one write transaction and says what it did."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, update

from pxeserver.boot import script
from pxeserver.boot.cmdline import fault, split
from pxeserver.boot.styles import STYLES
from pxeserver.config import Config
from pxeserver.errors import NotFound, Refused, UsageError, Where, did_you_mean
from pxeserver.fleet import rows
from pxeserver.fleet.tables import BootRow, MachineRecord, MacRecord
from pxeserver.fleet.values import Diff, MachineEdit
from pxeserver.mac import Mac, looks_like_mac, parse_mac
from pxeserver.model import UKI, Machine, Pin
from pxeserver.resources import shipped

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_VAR = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
TEXT_MAX = 16 * 1024  # bytes of one var: room for a few SSH keys


def add(conn: Connection, edit: MachineEdit, now: float, config: Config) -> Machine:
    """A new machine, or an unknown one of these MACs that becomes known. Refused "mac-taken", "name-taken"."""
    if not edit.macs:
        raise UsageError("mac-missing", "a machine needs at least one MAC", where=Where(field="macs"))
    first = parse_mac(edit.macs[0])
    owner = rows.machine_of_mac(conn, first)
    if owner is not None:
        found = rows.one(conn, owner)
        if found is not None and found.machine.known:
            raise _taken(first, found.machine)
    else:
        owner = conn.execute(
            insert(MachineRecord).values(known=True, created=now, seen=0.0).returning(MachineRecord.id)
        ).scalar_one()
        conn.execute(insert(MacRecord).values(mac=first, machine=owner, position=0))
        rows.move(conn)
    machine, _ = change(conn, owner, edit, config)
    return machine


def change(conn: Connection, ident: int, edit: MachineEdit, config: Config) -> tuple[Machine, tuple[Diff, ...]]:
    """Apply `edit` to a machine, which is known from then on; the machine as it is now, and what changed."""
    before = present(conn, ident)
    after = replace(before, known=True, **_checked(before, edit, config))
    if after.name and after.name.lower() != before.name.lower():
        _name_free(conn, after.name, ident)
    if after.macs != before.macs:
        _set_macs(conn, ident, after.macs)
    changed = diffs(before, after)
    if changed:
        write(conn, after)
    return after, changed


def present(conn: Connection, ident: int) -> Machine:
    """The machine as this transaction sees it; NotFound if another one removed it."""
    found = rows.one(conn, ident)
    if found is None:
        raise NotFound("machine-not-found", f"machine {ident} was removed meanwhile", hint="pxeserver machines ls")
    return found.machine


def adopt(conn: Connection, ident: int) -> Machine:
    """The machine, known from now on."""
    machine = present(conn, ident)
    if not machine.known:
        machine = replace(machine, known=True)
        write(conn, machine)
    return machine


def write(conn: Connection, machine: Machine) -> None:
    """Everything of model.Machine but its MACs and what only `record` learns."""
    values: dict[str, Any] = {
        "name": machine.name,
        "known": machine.known,
        "labels": dict(machine.labels),
        "vars": dict(machine.vars),
        "cmdline": list(machine.cmdline),
        "template": machine.template,
        "pin_style": machine.pin.style,
        "pin_loader": machine.pin.loader,
    }
    conn.execute(update(MachineRecord).where(MachineRecord.id == machine.id).values(values))
    rows.move(conn)


def remove(conn: Connection, ident: int) -> None:
    """The machine, its MACs and assignments; its boots stay in the record."""
    conn.execute(delete(MachineRecord).where(MachineRecord.id == ident))
    rows.move(conn)


def diffs(before: Machine, after: Machine) -> tuple[Diff, ...]:
    """What differs, in words that stand in `machines set` as well."""
    pairs = [
        ("known", "yes" if before.known else "no", "yes" if after.known else "no"),
        ("name", before.name, after.name),
        ("mac", " ".join(before.macs), " ".join(after.macs)),
        ("label", _pairs(before.labels), _pairs(after.labels)),
        ("var", _pairs(before.vars), _pairs(after.vars)),
        ("cmdline", shlex.join(before.cmdline), shlex.join(after.cmdline)),
        ("template", before.template, after.template),
        ("pin", pin_text(before.pin), pin_text(after.pin)),
    ]
    return tuple(Diff(name, old, new) for name, old, new in pairs if old != new)


def pinned(machine: Machine, style: str | None, loader: str | None, config: Config) -> Machine:
    """The machine with another pin; None leaves a part alone, "" takes it away."""
    if style and style not in STYLES:
        raise NotFound(
            "style-not-found", f'no style "{style}"{did_you_mean(style, STYLES)}', hint="styles: " + ", ".join(STYLES)
        )
    if loader and loader != UKI:
        folder = config.data / "loaders"
        known = [UKI, *(p.name for p in folder.iterdir() if p.suffix != ".json")] if folder.is_dir() else [UKI]
        if loader not in known:
            raise NotFound(
                "loader-not-found",
                f'no loader "{loader}"{did_you_mean(loader, known)}',
                hint="pxeserver loaders ls, fetch or add",
            )
    pin = machine.pin
    return replace(
        machine, known=True, pin=Pin(pin.style if style is None else style, pin.loader if loader is None else loader)
    )


def pin_text(pin: Pin) -> str:
    return " ".join(f"{key}={value}" for key, value in (("style", pin.style), ("loader", pin.loader)) if value)


def _pairs(values: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{key}={value}") for key, value in sorted(values.items()))


def _checked(before: Machine, edit: MachineEdit, config: Config) -> dict[str, Any]:
    """The edit's fields as model.Machine has them, or UsageError / NotFound with the field."""
    out: dict[str, Any] = {}
    if edit.name is not None:
        out["name"] = _name(edit.name)
    if edit.macs is not None:
        out["macs"] = _macs(edit.macs)
    if edit.labels is not None:
        out["labels"] = _map("label", {} if edit.whole else before.labels, edit.labels, _KEY)
    if edit.vars is not None:
        out["vars"] = _map("var", {} if edit.whole else before.vars, edit.vars, _VAR)
    if edit.cmdline is not None:
        out["cmdline"] = _edits(edit.cmdline)
    if edit.template is not None:
        out["template"] = _template(edit.template, config)
    return out


def _name(name: str) -> str:
    """ "" takes the name away. A name must not read as a MAC or an id."""
    if name and (not _NAME.fullmatch(name) or looks_like_mac(name) or name.isdecimal()):
        raise UsageError(
            "machine-name",
            f'"{name}" cannot be a name',
            hint="letters, digits, . _ -, at most 63; not a MAC, not a number alone",
            where=Where(field="name"),
        )
    return name


def _macs(texts: Iterable[str]) -> tuple[Mac, ...]:
    macs = tuple(dict.fromkeys(parse_mac(text) for text in texts))
    if not macs:
        raise UsageError("mac-missing", "a machine needs at least one MAC", where=Where(field="macs"))
    for mac in macs:
        if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            raise UsageError("bad-mac", f"{mac} is no machine's address (a group's, or all zero)")
    return macs


def _edits(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        problem = "" if text.strip() else "is empty"
        if not text.isprintable():
            problem = "holds a line break or another control character"
        problem = problem or next((p for p in map(fault, split(text)) if p), "")
        if problem:
            raise UsageError("cmdline-edit", f"{text!r} {problem}", where=Where(field="cmdline"))
    return texts


def _map(what: str, before: Mapping[str, str], edit: Mapping[str, str | None], rule: re.Pattern[str]) -> dict[str, str]:
    values = {key: value for key, value in {**before, **edit}.items() if value is not None}
    for key, value in values.items():
        if not rule.fullmatch(key):
            raise UsageError(
                f"{what}-name", f'"{key}" cannot name a {what}', hint="letters, digits and _, a letter first"
            )
        if len(value.encode("utf-8", "replace")) > TEXT_MAX or "\0" in value:
            raise UsageError(f"{what}-value", f"the value of {key} is too long (at most {TEXT_MAX} bytes) or has a NUL")
    return values


def _template(text: str, config: Config) -> str:
    """The name of an iPXE template that exists, or ""."""
    name = text.removesuffix(script.SUFFIX)
    if not name:
        return ""
    folders = [*(Path(f) / "ipxe" for f in config.images.templates), shipped("templates") / "ipxe"]
    known = sorted({p.name.removesuffix(script.SUFFIX) for f in folders for p in f.glob(f"*{script.SUFFIX}")})
    if name not in known:
        raise NotFound(
            "template-not-found",
            f'no iPXE template "{name}"{did_you_mean(name, known)}',
            hint="templates are: " + ", ".join(known),
        )
    return name


def _name_free(conn: Connection, name: str, ident: int) -> None:
    for other, found in rows.stored(conn).items():
        if other != ident and found.machine.name.lower() == name.lower():
            raise Refused("name-taken", f'{found.machine.mac} is called "{found.machine.name}" already')


def _taken(mac: Mac, owner: Machine) -> Refused:
    return Refused(
        "mac-taken",
        f"{mac} belongs to {owner.name or owner.mac} already",
        hint=f"pxeserver machines set {owner.name or owner.mac} ..., or machines rm it first",
    )


def _absorb(conn: Connection, ident: int, other: rows.Stored) -> None:
    """Take over the boots of a machine that was unknown, and what was learnt about it where nothing is known yet."""
    conn.execute(update(BootRow).where(BootRow.machine == other.machine.id).values(machine=ident))
    conn.execute(delete(MachineRecord).where(MachineRecord.id == other.machine.id))
    own = rows.one(conn, ident)
    if own is not None and own.seen < other.seen:
        learnt = {
            "arch": other.machine.arch or own.machine.arch,
            "memory_mib": other.machine.memory_mib or own.machine.memory_mib,
            "facts": {**own.machine.facts, **other.machine.facts},
            "ip": other.ip or own.ip,
            "seen": other.seen,
            "boot": other.boot or own.boot,
        }
        conn.execute(update(MachineRecord).where(MachineRecord.id == ident).values(learnt))


def _set_macs(conn: Connection, ident: int, macs: tuple[Mac, ...]) -> None:
    """Give the machine exactly these MACs; an unknown machine that had one of them becomes part of this one."""
    for mac in macs:
        owner = rows.machine_of_mac(conn, mac)
        if owner is None or owner == ident:
            continue
        other = rows.one(conn, owner)
        if other is not None and other.machine.known:
            raise _taken(mac, other.machine)
        if other is not None:
            _absorb(conn, ident, other)
    conn.execute(delete(MacRecord).where(MacRecord.machine == ident))
    conn.execute(insert(MacRecord), [{"mac": mac, "machine": ident, "position": n} for n, mac in enumerate(macs)])
