"""`pxeserver loaders`: the boot programs that TFTP hands out."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import NotFound, UsageError
from pxeserver.local.loaders import Loader, LoaderSet


@click.group()
def loaders() -> None:
    """List, fetch and add boot loaders."""


def _set(context: Context) -> LoaderSet:
    return LoaderSet(context.config.data / "loaders")


@loaders.command()
@out.output_option
@pass_context
def ls(context: Context, output: str) -> None:
    """List the loaders with version, origin and whether they are as recorded."""
    found = _set(context).list()
    out.emit(found, output, lambda: _table(found))


@loaders.command()
@click.option("--suite", default="", help="A later suite of the same mirror: trixie, sid.")
@click.option("--secure-boot", is_flag=True, help="The signed shim and GRUB instead of iPXE; see docs/secure-boot.md.")
@out.output_option
@pass_context
def fetch(context: Context, suite: str, secure_boot: bool, output: str) -> None:
    """Put the distribution's iPXE into the set, in place of the loaders there.

    The package is downloaded and unpacked, never installed.
    """
    from pxeserver.local import loaders_fetch

    if suite and not re.fullmatch(r"[a-z][a-z0-9/-]*", suite):
        raise UsageError("bad-suite", f'"{suite}" is not the name of a suite', hint="such as trixie or sid")
    bring = loaders_fetch.fetch_signed if secure_boot else loaders_fetch.fetch
    found = bring(context.config.data, suite)
    out.emit(found, output, lambda: _table(found))


@loaders.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default="", help="Name in the set; the file's own by default.")
@out.output_option
@pass_context
def add(context: Context, file: Path, name: str, output: str) -> None:
    """Add a loader of your own; then: pxeserver pin MACHINE loader=NAME."""
    if not file.is_file():
        raise NotFound("file-not-found", f"no file {file}")
    found = (_set(context).add(file.read_bytes(), name or file.name, origin=str(file.resolve())),)
    out.emit(found, output, lambda: _table(found))


def _table(found: tuple[Loader, ...]) -> None:
    out.table(
        ("NAME", "FOR", "VERSION", "SIZE", "STATE", "ORIGIN", "SHA256"),
        (
            (x.name, f"{x.kind} {x.arch}".strip(), x.version, out.size(x.size), x.state, x.origin, x.sha256[:12])
            for x in found
        ),
        empty="no loaders; get them with: pxeserver loaders fetch",
    )
