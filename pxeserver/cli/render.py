"""pxeserver render."""

from __future__ import annotations

import click

from pxeserver.cli import output as out
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.fleet.values import Rendering


@click.command()
@click.argument("target", metavar="MACHINE")
@click.argument("what", type=click.Choice(["script", "cmdline"]), default="script")
@click.option("--plain", is_flag=True, help="The text alone, without where its parts came from.")
@out.output_option
@pass_context
def render(context: Context, target: str, what: str, plain: bool, output: str) -> None:
    """Show the script or the kernel command line that a machine would get now.

    TOKEN stands for the token that each boot gets its own of.
    """
    with open_client(context) as fleet:
        found = fleet.render(target, what)
    out.emit(found, output, lambda: _show(found, plain))


def _show(found: Rendering, plain: bool) -> None:
    if found.what == "cmdline" and not plain:
        out.table(("PARAMETER", "FROM"), ((p.text, p.origin) for p in found.parts), empty="it boots no image")
        return
    for part in found.parts if not plain else ():
        out.note(f"# {part.origin}")
    out.say(found.text.rstrip("\n"))
