"""`pxeserver doctor`: is this host ready to boot machines?"""

from __future__ import annotations

import sys

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context


@click.command()
@click.option("--discover", is_flag=True, help="Ask each wire which DHCP servers answer (root; 3 s per interface).")
@out.output_option
@pass_context
def doctor(context: Context, discover: bool, output: str) -> None:
    """Check ports, interfaces, loaders and other DHCP servers.

    Exit status 1 when something must be mended before machines can boot.
    """
    from pxeserver.local.doctor import Status, examine

    found = tuple(examine(context.config, discover=discover))
    out.emit(
        found,
        output,
        lambda: out.table(("CHECK", "STATUS", "FOUND", "FIX"), ((c.name, c.status, c.text, c.fix) for c in found)),
    )
    if any(c.status is Status.FAIL for c in found):
        sys.exit(1)
