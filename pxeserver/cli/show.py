"""pxeserver show."""

from __future__ import annotations

import time

import click

from pxeserver.cli import output as out
from pxeserver.cli.boots import show_cause
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.timeline import show_timeline
from pxeserver.fleet.values import MachineDetail


@click.command()
@click.argument("target", metavar="MACHINE")
@out.output_option
@pass_context
def show(context: Context, target: str, output: str) -> None:
    """Show one machine: what it is, what it gets and why, what its last boot did."""
    with open_client(context) as fleet:
        found = fleet.show(target)
    out.emit(found, output, lambda: _show(found))


def _show(found: MachineDetail) -> None:
    machine, row, profile = found.machine, found.row, found.profile
    facts = [f"{key} {value}" for key, value in sorted(machine.facts.items())]
    out.fields(
        [
            ("machine", row.title + ("" if row.known else ", not known: pxeserver machines set ... --name NAME")),
            ("mac", " ".join(machine.macs)),
            ("labels", " ".join(f"{k}={v}" for k, v in machine.labels.items())),
            ("vars", " ".join(machine.vars)),
            ("arch", machine.arch),
            ("memory", f"{machine.memory_mib} MiB" if machine.memory_mib else ""),
            ("facts", ", ".join(facts)),
            ("ip", row.ip),
            (
                "pin",
                " ".join(f"{k}={v}" for k, v in (("style", machine.pin.style), ("loader", machine.pin.loader)) if v),
            ),
            ("template", machine.template),
            ("seen", out.age(row.seen) + (" ago" if row.seen else "")),
            ("state", row.state),
        ]
    )
    _heading("gets")
    out.fields([("image", profile.gets), ("problem", profile.problem), ("cmdline", profile.cmdline)])
    out.fields((reason.topic, reason.text) for reason in profile.reasons)
    if found.history:
        _heading("assignments")
        out.table(
            ("REVISION", "IMAGE", "ARGS", "FROM", "UNTIL", "BY", "REASON"),
            (
                (
                    a.revision,
                    a.short + (" follow" if a.follow else ""),
                    " ".join(a.args),
                    out.when(a.at),
                    out.when(a.ended) if a.ended else "now",
                    a.by,
                    a.reason,
                )
                for a in found.history
            ),
        )
    if found.boots:
        boot = found.boots[0]
        _heading(f"last boot ({boot.id[:8]}, {boot.result}, {out.when(boot.started)})")
        show_cause(boot)
        show_timeline(boot, time.time())


def _heading(text: str) -> None:
    out.say()
    out.say(click.style(f"{text}:", bold=True) if out.coloured() else f"{text}:")
