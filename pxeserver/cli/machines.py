"""pxeserver machines ls, unknown, add, set, rm."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pxeserver.cli import output as out
from pxeserver.cli.changes import show_changes
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.groups import VerbGroup
from pxeserver.errors import UsageError
from pxeserver.fleet.values import MachineEdit, MachineRow
from pxeserver.mac import looks_like_mac


@click.group(cls=VerbGroup, default="ls")
def machines() -> None:
    """List, add and change machines."""


@machines.command("ls")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only machines with this label.")
@click.option(
    "--state", help="Only machines in this state: never, waiting, queued, booting, up, network-only, stuck, local."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Unknown machines too.")
@out.output_option
@pass_context
def ls(context: Context, labels: Sequence[str], state: str | None, everything: bool, output: str) -> None:
    """List machines with image, state and stage of their latest boot."""
    wanted = [_pair("label", text) for text in labels]
    with open_client(context) as fleet:
        found = fleet.machines(known=None if everything else True)
    found = tuple(
        m for m in found if all(m.labels.get(k) == v for k, v in wanted) and (state is None or m.state == state)
    )
    out.emit(found, output, lambda: _table(found, "no machines: pxeserver machines add NAME MAC"))


@machines.command()
@out.output_option
@pass_context
def unknown(context: Context, output: str) -> None:
    """List machines that were seen on the network and that nobody has named or assigned yet."""
    with open_client(context) as fleet:
        found = fleet.machines(known=False)
    out.emit(found, output, lambda: _table(found, "no unknown machines"))


def _edit_options(function: click.decorators.FC) -> click.decorators.FC:
    """What add and set have in common."""
    options = [
        click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label; -KEY takes it away."),
        click.option("--var", "variables", multiple=True, metavar="KEY=VALUE", help="Template value; -KEY takes away."),
        click.option("--cmdline", multiple=True, metavar="EDIT", help="k=v replaces, -k removes; '' alone clears all."),
        click.option("--template", metavar="NAME", help="An iPXE template of its own; '' for the usual one."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@machines.command()
@click.argument("names", nargs=-1, required=True, metavar="[NAME] MAC...")
@_edit_options
@out.output_option
@pass_context
def add(
    context: Context,
    names: Sequence[str],
    labels: Sequence[str],
    variables: Sequence[str],
    cmdline: Sequence[str],
    template: str | None,
    output: str,
) -> None:
    """Add a machine by its MACs, in any spelling; the first one is the one shown."""
    name, macs = ("", names) if looks_like_mac(names[0]) else (names[0], names[1:])
    edit = MachineEdit(name, tuple(macs), _map("label", labels), _map("var", variables), _edits(cmdline), template)
    with open_client(context) as fleet:
        change = fleet.add_machine(edit)
    out.emit(change, output, lambda: show_changes([change]))


@machines.command("set")
@click.argument("target", metavar="MACHINE")
@click.option("--name", help="New name; '' takes it away.")
@click.option("--mac", "macs", multiple=True, help="All its MACs from now on; give it once for each.")
@_edit_options
@out.output_option
@pass_context
def set_(
    context: Context,
    target: str,
    name: str | None,
    macs: Sequence[str],
    labels: Sequence[str],
    variables: Sequence[str],
    cmdline: Sequence[str],
    template: str | None,
    output: str,
) -> None:
    """Change a machine; what is not named stays."""
    edit = MachineEdit(
        name, tuple(macs) or None, _map("label", labels), _map("var", variables), _edits(cmdline), template
    )
    if edit == MachineEdit():
        raise UsageError("machine-edit", "nothing to change is named", hint="pxeserver machines set --help")
    with open_client(context) as fleet:
        change = fleet.set_machine(target, edit)
    out.emit(change, output, lambda: show_changes([change]))


@machines.command()
@click.argument("target", metavar="MACHINE")
@click.option("--assigned", is_flag=True, help="Also a machine that has an assignment.")
@out.output_option
@pass_context
def rm(context: Context, target: str, assigned: bool, output: str) -> None:
    """Forget a machine. Its boots stay in the record; when it boots again it is an unknown one."""
    with open_client(context) as fleet:
        change = fleet.remove_machine(target, assigned=assigned)
    out.emit(change, output, lambda: show_changes([change]))


def _table(rows: Sequence[MachineRow], empty: str) -> None:
    out.table(
        ("NAME", "MAC", "IMAGE", "STATE", "STAGE", "SEEN", "CAUSE"),
        (
            (
                m.name,
                m.mac if len(m.macs) == 1 else f"{m.mac} +{len(m.macs) - 1}",
                _image(m),
                m.state,
                m.boot.stage if m.boot else "",
                out.age(m.seen),
                m.boot.cause.slug if m.boot and m.boot.cause else "",
            )
            for m in rows
        ),
        empty=empty,
    )


def _image(row: MachineRow) -> str:
    """The assigned image; `*` = a newer one was built, `follow` = it will get that."""
    if row.assignment is None:
        return ""
    return row.assignment.short + (" follow" if row.assignment.follow else "") + (" *" if row.assignment.newer else "")


def _pair(what: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{what}-form", f'"{text}" is not KEY=VALUE')
    return key, value


def _map(what: str, texts: Sequence[str]) -> dict[str, str | None] | None:
    """'rack=r1' sets, '-rack' takes away; None when nothing was given."""
    out: dict[str, str | None] = {}
    for text in texts:
        if text.startswith("-") and "=" not in text:
            out[text[1:]] = None
        else:
            key, value = _pair(what, text)
            out[key] = value
    return out or None


def _edits(texts: Sequence[str]) -> tuple[str, ...] | None:
    """None when nothing was given; '' clears."""
    return tuple(text for text in texts if text) if texts else None
