"""The words after a write: what changed, what the machine will get and when, and the command that undoes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pxeserver.boot import profile as boot_profile
from pxeserver.boot.cmdline import join
from pxeserver.boot.profile import Profile
from pxeserver.config import Config
from pxeserver.errors import PxeServerError
from pxeserver.fleet.boots import state
from pxeserver.fleet.profiles import words
from pxeserver.fleet.values import BootRecord, Change, Diff, short_image
from pxeserver.model import Assignment, FleetView, Machine

WAIT_NOTED = 60  # seconds; a waiting machine that was not heard of for longer is not waiting any more


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to one machine (as it is now), and the command that undoes it."""

    machine: Machine
    diffs: tuple[Diff, ...]
    undo: str
    warnings: tuple[str, ...] = ()


def change(done: Done, view: FleetView, boot: BootRecord | None, config: Config, now: float) -> Change:
    """The report on one machine; `view` is the fleet after the write, `boot` the machine's latest."""
    machine, warnings = done.machine, done.warnings
    profile = boot_profile.profile(machine, machine.mac, view, config)
    line = ""
    try:
        line = join(profile.cmdline_parts)
    except PxeServerError as error:
        warnings = (*warnings, error.message)
    return Change(
        machine=machine.id,
        name=machine.name,
        mac=machine.mac,
        changes=done.diffs,
        image=profile.image.short if profile.image else "",
        cmdline=line,
        gets=f"{words(profile)} {_from_when(profile, boot, config, now)}",
        undo=done.undo,
        warnings=warnings,
    )


def removed(machine: Machine, given: Assignment | None) -> Change:
    """The report on a machine that is gone."""
    again = ["pxeserver", "machines", "add", *([machine.name] if machine.name else []), *machine.macs]
    again += [*_pairs("--label", {}, machine.labels), *_pairs("--var", {}, machine.vars)]
    again += [part for edit in machine.cmdline for part in ("--cmdline", edit)]
    again += ["--template", machine.template] if machine.template else []
    lines = [shlex.join(again)] if machine.known else []
    if given is not None:
        lines.append(undo_assignment(machine, given))
    diffs = (Diff("machine", machine.name or machine.mac, ""),)
    return Change(machine.id, machine.name, machine.mac, diffs, undo=" && ".join(lines))


def undo_assignment(machine: Machine, before: Assignment | None) -> str:
    """The command that brings the assignment `before` back."""
    target = machine.name or machine.mac
    if before is None:
        return shlex.join(["pxeserver", "unassign", target])
    what = [before.spec, "--follow"] if before.follow else [short_image(before.spec, before.image)]
    args = [part for arg in before.args for part in ("--arg", arg)]
    return shlex.join(["pxeserver", "assign", target, *what, *args])


def undo_edit(before: Machine, after: Machine) -> str:
    """The `machines set` that makes `after` into `before` again; "" when nothing differs that it can set."""
    flags: list[str] = []
    if before.name != after.name:
        flags += ["--name", before.name]
    if before.macs != after.macs:
        flags += [part for mac in before.macs for part in ("--mac", mac)]
    flags += [*_pairs("--label", after.labels, before.labels), *_pairs("--var", after.vars, before.vars)]
    if before.cmdline != after.cmdline:
        flags += [part for edit in (before.cmdline or ("",)) for part in ("--cmdline", edit)]
    if before.template != after.template:
        flags += ["--template", before.template]
    # by MAC where the name goes away
    target = after.name if after.name and before.name else after.mac
    return shlex.join(["pxeserver", "machines", "set", target, *flags]) if flags else ""


def undo_pin(before: Machine, after: Machine) -> str:
    if before.pin == after.pin:
        return ""
    target = after.name or after.mac
    return shlex.join(["pxeserver", "pin", target, f"style={before.pin.style}", f"loader={before.pin.loader}"])


def _pairs(flag: str, now: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Flags that turn the map `now` into `wanted`."""
    out = [p for key, value in wanted.items() if now.get(key) != value for p in (flag, f"{key}={value}")]
    return out + [part for key in now if key not in wanted for part in (flag, f"-{key}")]


def _from_when(profile: Profile, boot: BootRecord | None, config: Config, now: float) -> str:
    """When the machine sees the change: at once only if it stands there and asks again and again."""
    poll = config.boot.poll_seconds
    if state(boot) == "waiting" and boot is not None and now - boot.last < max(WAIT_NOTED, 2 * poll):
        return f"within {poll} s: it is waiting now" if profile.image else "from now on"
    if boot is not None and boot.image and not boot.ended:
        return f"at its next boot; now it is booting {boot.short}"
    return "at its next boot"
