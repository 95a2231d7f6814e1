"""The command line's root: a table of verbs, each imported only when it is typed."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import click

from pxeserver import __version__
from pxeserver.errors import PxeServerError, did_you_mean

# verb -> (module under pxeserver.cli, its click command, one line for --help)
VERBS: dict[str, tuple[str, str, str]] = {
    "assign": ("assign", "assign", "Bind machines to the image of a spec"),
    "bases": ("bases", "bases", "Make base images from the distribution's packages"),
    "boots": ("boots", "boots", "List boots and their timelines"),
    "build": ("build", "build", "Build an image from LinuxKit specs"),
    "demo": ("demo", "demo", "Boot a diskless machine in a private network on this host"),
    "doctor": ("doctor", "doctor", "Check ports, interfaces, loaders and other DHCP servers"),
    "explain": ("explain", "explain", "Say what a machine would get, and why"),
    "images": ("images", "images", "List, compare and move built images"),
    "loaders": ("loaders", "loaders", "List, fetch and add boot loaders"),
    "machines": ("machines", "machines", "List, add and change machines"),
    "pin": ("pin", "pin", "Override the offer style or the loader of a machine"),
    "render": ("render", "render", "Show a machine's script or command line and where each part came from"),
    "run": ("run", "run", "Boot an image in a local QEMU"),
    "selftest": ("selftest", "selftest", "Boot every kind of firmware, simulated, from the running server"),
    "serve": ("serve", "serve", "Answer machines: proxyDHCP, TFTP, boot HTTP, pages and API"),
    "show": ("show", "show", "Show one machine: profile, assignment, timeline"),
    "simulate": ("simulate", "simulate", "Boot a machine that is not there, step by step"),
    "specs": ("specs", "specs", "List, show, check, lint and lock specs"),
    "unassign": ("assign", "unassign", "Take a machine's assignment away"),
}


class Root(click.Group):
    """Loads verbs late and names the nearest one for a typing error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"pxeserver.cli.{module}"), attribute)
        gc.freeze()  # modules stay: no collection needs to walk through them
        gc.set_threshold(50_000)  # a tree has many small objects and hardly a cycle
        gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verb list from the table, so that --help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in sorted(VERBS.items())])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f'no command "{args[0]}"{did_you_mean(args[0], VERBS)}', ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Print our own errors as two lines and leave with their exit code; never a traceback for a user's fault."""
        try:
            return super().main(*args, **kwargs)
        except PxeServerError as error:
            click.echo(error.render(), err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(141)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pxeserver")
@click.option("--config", "-c", "config_file", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder (server.data).")
@click.option("--server", envvar="PXESERVER_URL", help="URL of a running server's API.")
@click.option("--token", envvar="PXESERVER_TOKEN", help="API token for --server.")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None, data: Path | None, server: str | None, token: str | None) -> None:
    """From a LinuxKit spec to a running diskless machine."""
    from pxeserver.cli.context import Context

    ctx.obj = Context(config_file, data, server, token)
