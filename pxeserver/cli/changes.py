"""What every write prints: what changed, what the machine will get, how to undo it."""

from __future__ import annotations

from collections.abc import Iterable

from pxeserver.cli import output as out
from pxeserver.fleet.values import Change


def show_changes(changes: Iterable[Change]) -> None:
    """One block for each machine; warnings and nothing else on stderr."""
    for change in changes:
        out.say(f"{change.name} ({change.mac})" if change.name else change.mac)
        if not change.changes:
            out.say("  nothing to change")
        for diff in change.changes:
            out.say(f"  {diff.field}: {diff.before or 'none'} -> {diff.after or 'none'}")
        if change.gets:
            out.say(f"  gets: {change.gets}")
        if change.cmdline:
            out.say(f"  cmdline: {change.cmdline}")
        if change.undo:
            out.say(f"  undo: {change.undo}")
        for warning in change.warnings:
            out.note(f"warning: {change.name or change.mac}: {warning}")
