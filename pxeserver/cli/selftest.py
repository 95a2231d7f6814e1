"""`pxeserver selftest`: does every kind of firmware boot from this server?"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from pxeserver.cli import output as out
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.sim.firmware import NAMES

if TYPE_CHECKING:
    from pxeserver.sim.effects import Say
    from pxeserver.sim.selftest import Row


@click.command()
@click.argument("firmware", type=click.Choice(NAMES), nargs=-1)
@click.option("--server", default="127.0.0.1", show_default=True, help="Boot from this address, from behind a relay.")
@click.option("--interface", "-i", default="", help="Boot on this wire instead, one machine after the other.")
@click.option("--image", default="", help="What they boot; the newest image for their processor by default.")
@click.option("--verbose", "-v", is_flag=True, help="Print each step on standard error.")
@out.output_option
@pass_context
def selftest(
    context: Context, firmware: tuple[str, ...], server: str, interface: str, image: str, verbose: bool, output: str
) -> None:
    """Boot every kind of firmware, or those named, from a running server, and say what each got (root).

    The machines are simulated. By default they speak to the server on this host through its loopback: the site's
    network hears nothing. For the test they are machines of the fleet, named selftest-..., with an image assigned;
    afterwards they are removed, and their boots stay in the record. A server elsewhere does not know them, unless
    its API is named by `pxeserver --server URL`. Exit 1 when one that the server is set up for fails.
    """
    import asyncio
    import time

    from pxeserver.sim import selftest as tests
    from pxeserver.sim.run import Way

    names = tuple(dict.fromkeys(firmware)) or NAMES

    def tell(name: str, say: Say) -> None:
        if verbose:
            out.note(f"{name}: {say.stage}: {say.text}")

    way = Way(server, interface)
    with contextlib.ExitStack() as stack:
        assigned: frozenset[str] = frozenset()
        silent: dict[str, Row] = {}
        if way.parallel or context.server:
            fleet = stack.enter_context(open_client(context))
            assigned = stack.enter_context(tests.enrolled(fleet, names, image))
            silent = {name: row for name in names if (row := tests.unanswered(name, fleet)) is not None}
            time.sleep(tests.SETTLE)
        asked = tuple(name for name in names if name not in silent)
        found = {row.firmware: row for row in asyncio.run(tests.run(asked, way, assigned, tell))}
    rows = tuple(silent.get(name) or found[name] for name in names)
    out.emit(rows, output, lambda: _show(rows))
    if all(row.result == "failed" and row.why.startswith("dhcp") for row in rows):
        out.note(f"nobody answers at {interface or server}: is `pxeserver serve` running?")
    if any(row.result == "failed" for row in rows):
        sys.exit(1)


def _show(rows: tuple[Row, ...]) -> None:
    out.table(
        ("FIRMWARE", "RESULT", "SECONDS", "GOT", "WHY"),
        ((row.firmware, row.result, f"{row.seconds:.1f}", ", ".join(row.got), row.why) for row in rows),
    )
