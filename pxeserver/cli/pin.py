"""pxeserver pin."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pxeserver.cli import output as out
from pxeserver.cli.changes import show_changes
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import UsageError, did_you_mean

PARTS = ("style", "loader")


@click.command()
@click.argument("target", metavar="MACHINE")
@click.argument("parts", nargs=-1, metavar="[style=NAME] [loader=FILE]")
@click.option("--off", is_flag=True, help="Take both pins away.")
@out.output_option
@pass_context
def pin(context: Context, target: str, parts: Sequence[str], off: bool, output: str) -> None:
    """Override what a machine is offered: the style of the answer, the loader, or both.

    loader=uki means no loader: UEFI is given the image itself, see `pxeserver images uki`. style= or loader= with
    nothing behind it takes that pin away.
    """
    given: dict[str, str] = {"style": "", "loader": ""} if off else {}
    for text in parts:
        key, equals, value = text.partition("=")
        if key not in PARTS or not equals:
            raise UsageError("pin-form", f'"{text}" is not style=NAME or loader=FILE{did_you_mean(key, PARTS)}')
        given[key] = value
    if not given:
        raise UsageError("pin-form", "nothing to pin is named", hint="pxeserver pin MACHINE style=binl, or --off")
    with open_client(context) as fleet:
        change = fleet.pin(target, style=given.get("style"), loader=given.get("loader"))
    out.emit(change, output, lambda: show_changes([change]))
