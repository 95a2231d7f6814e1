"""pxeserver assign, unassign."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import click

from pxeserver.cli import output as out
from pxeserver.cli.changes import show_changes
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import UsageError
from pxeserver.fleet.values import AssignOrder


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="MACHINE... SPEC")
@click.option("--follow", is_flag=True, help="Give the newest build of SPEC at each boot, also of builds to come.")
@click.option("--arg", "args", multiple=True, metavar="EDIT", help="Command line edit: k=v replaces, -k removes.")
@click.option("--build", is_flag=True, help="Build SPEC first.")
@click.option("--reason", default="", help="Kept with the assignment.")
@click.option("--force", is_flag=True, help="Also where memory or processor are known not to fit.")
@out.output_option
@pass_context
def assign(
    context: Context,
    targets: Sequence[str],
    follow: bool,
    args: tuple[str, ...],
    build: bool,
    reason: str,
    force: bool,
    output: str,
) -> None:
    """Bind machines to an image: SPEC is its newest build, or SPEC:TAG, SPEC@DIGEST, a digest.

    MACHINE is a MAC in any spelling, a name or an id; a MAC never seen is added. All machines are assigned, or none.
    The image is bound by its digest: a later build changes nothing unless --follow is given.
    """
    *machines, what = targets
    if not machines:
        raise UsageError(
            "assign-what", f'"{what}" is either the machine or the spec', hint="pxeserver assign MACHINE SPEC"
        )
    if build:
        _build(context, what)
    with open_client(context) as fleet:
        changes = fleet.assign(machines, AssignOrder(what, follow, args, reason, _who(), force))
    out.emit(changes, output, lambda: show_changes(changes))


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="MACHINE...")
@out.output_option
@pass_context
def unassign(context: Context, targets: Sequence[str], output: str) -> None:
    """Take the assignment of machines away: they get what dhcp.unknown says."""
    with open_client(context) as fleet:
        changes = fleet.unassign(targets)
    out.emit(changes, output, lambda: show_changes(changes))


def _build(context: Context, spec: str) -> None:
    """`pxeserver build SPEC` here; what it prints is talk, and the server finds the image in the store."""
    with open_client(context) as fleet:
        data = Path(fleet.status().data)
    if context.server or data.resolve() != context.config.data.resolve():
        raise UsageError(
            "build-elsewhere",
            f"--build builds into {context.config.data} here, and the server has its images in {data} of its host",
            hint=f"pxeserver build {spec} there, then assign without --build",
        )
    from pxeserver.cli.build import build

    with redirect_stdout(sys.stderr):
        build.main(args=[spec], prog_name="pxeserver build", obj=context, standalone_mode=False)


def _who() -> str:
    """Who assigns, for the history."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
