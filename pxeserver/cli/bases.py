"""`pxeserver bases`: base images out of the distribution's packages."""

from __future__ import annotations

from pathlib import Path

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.images import specfiles
from pxeserver.images.store import Store
from pxeserver.units import size


@click.group()
def bases() -> None:
    """Make base images from the distribution's packages.

    The packages are downloaded and unpacked, never installed.
    """


_ARCH = click.option("--arch", default=specfiles.host_arch, help="Architecture: amd64, arm64.  [default: this host's]")


@bases.command()
@_ARCH
@out.output_option
@pass_context
def ls(context: Context, arch: str, output: str) -> None:
    """List the base images that can be made, and what the store has of them."""
    from pxeserver.local.bases.make import listing

    found = listing(Store(context.config.data / "store"), arch)
    rows = ((x.name, x.state, size(x.size) if x.digest else "", x.digest[7:19], x.summary) for x in found)
    out.emit(found, output, lambda: out.table(("NAME", "STATE", "SIZE", "DIGEST", "WHAT"), rows))


@bases.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--locked", type=click.Path(path_type=Path), help="Build from exactly the packages of this bases.lock.json."
)
@click.option(
    "--component", "components", multiple=True, help="Also look here, such as non-free-firmware (repeatable)."
)
@_ARCH
@click.option("--refresh", is_flag=True, help="Fetch the package lists even when they are less than a day old.")
@out.output_option
@pass_context
def build(
    context: Context,
    names: tuple[str, ...],
    locked: Path | None,
    components: tuple[str, ...],
    arch: str,
    refresh: bool,
    output: str,
) -> None:
    """Make the named base images, or all of them; only what changed is made anew.

    The exact set of packages is recorded in bases.lock.json in the data folder; the same set gives the same bytes.
    """
    from pxeserver.cli.progress import drawn
    from pxeserver.local.bases import lock
    from pxeserver.local.bases.make import Wish
    from pxeserver.local.bases.make import build as make

    wish = Wish(names, components, lock.read(locked) if locked else None, refresh, arch)
    data = context.config.data
    with drawn() as progress:
        made = make(data, Store(data / "store"), wish, progress)
    rows = ((x.name, x.state, size(x.size), x.digest[7:19]) for x in made)
    out.emit(made, output, lambda: out.table(("NAME", "STATE", "SIZE", "DIGEST"), rows))
    for x in made:
        for text in x.notes:
            out.note(f"note: {x.name}: {text}")
