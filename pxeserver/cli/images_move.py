"""`pxeserver images push|pull|import|diff|sbom|gc`: built images between hosts, compared, and cleared away."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.progress import drawn
from pxeserver.errors import NotFound, UsageError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Digest, Image
from pxeserver.units import size

if TYPE_CHECKING:
    from pxeserver.images.diff import Change, ImageDiff
    from pxeserver.images.gc import Collected, Keep

_AGE = re.compile(r"(\d+)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_CERT = click.option(
    "--cert-file", type=click.Path(path_type=Path), help="Further certificates to trust registries by (PEM)."
)
_TAG = click.option("--tag", "-t", multiple=True, help="Call it so here: TAG or NAME:TAG.  [default: its own tags]")


def _catalogue(context: Context) -> Catalogue:
    return Catalogue(Store(context.config.data / "store"))


@click.command()
@click.argument("image")
@click.argument("ref")
@_CERT
@out.output_option
@pass_context
def push(context: Context, image: str, ref: str, cert_file: Path | None, output: str) -> None:
    """Copy IMAGE to an OCI registry as REF: REGISTRY/NAME[:TAG].

    Only what the registry lacks is sent; a push that broke off is taken up again.
    """
    from pxeserver.images.exchange import push as send

    catalogue = _catalogue(context)
    with drawn(quiet=output == "json") as progress:
        done = send(catalogue, catalogue.get(image), ref, progress, cert_file=cert_file)
    text = f"{done.ref}@{done.digest}"
    out.emit(done, output, lambda: out.say(text))
    if output == "table":
        out.note(f"{size(done.sent)} sent, {size(done.known)} were there")


@click.command()
@click.argument("ref")
@_TAG
@click.option("--mirror", multiple=True, help="[REGISTRY=]URL of a registry to ask first.")
@_CERT
@out.output_option
@pass_context
def pull(
    context: Context, ref: str, tag: tuple[str, ...], mirror: tuple[str, ...], cert_file: Path | None, output: str
) -> None:
    """Fetch a built image from an OCI registry: REGISTRY/NAME[:TAG][@DIGEST].

    Every blob is checked against its digest, and then whether they make the image that they claim to be. The image is
    called as it was built, with the tag of REF.
    """
    from pxeserver.images.exchange import pull as fetch

    with drawn(quiet=output == "json") as progress:
        mirrors = (*mirror, *context.config.images.mirrors)
        found = fetch(_catalogue(context), ref, progress, mirrors=mirrors, tags=tag or None, cert_file=cert_file)
    out.emit(found, output, lambda: _say_images([found]))


def _say_images(found: Sequence[Image]) -> None:
    for image in found:
        out.say(f"{image.spec}@{image.digest}")
        out.note(f"{image.short}: {', '.join(image.tags) or 'no tag'}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_TAG
@out.output_option
@pass_context
def import_(context: Context, file: Path, tag: tuple[str, ...], output: str) -> None:
    """Take built images out of an OCI archive, as `images export -f oci` writes it; - reads standard input."""
    from pxeserver.images.archive import load

    with contextlib.ExitStack() as stack:
        if str(file) == "-":
            stream = sys.stdin.buffer
        elif not file.is_file():
            raise NotFound("archive-not-found", f"no file {file}")
        else:
            stream = stack.enter_context(file.open("rb"))
        progress = stack.enter_context(drawn(quiet=output == "json"))
        found = load(_catalogue(context), str(file), stream, progress, tag or None)
    out.emit(found, output, lambda: _say_images(found))


@click.command()
@click.argument("image")
@pass_context
def sbom(context: Context, image: str) -> None:
    """Print the bill of materials of IMAGE: an SPDX document of what its base images attest."""
    catalogue = _catalogue(context)
    found = catalogue.get(image)
    bill = catalogue.details(found).sbom
    if bill is None:
        raise NotFound(
            "image-no-sbom", f"{found.short} was built without a bill of materials", hint="build without --no-sbom"
        )
    click.echo(catalogue.store.read_blob(bill.digest).decode())


@click.command()
@click.argument("image")
@click.argument("other")
@out.output_option
@pass_context
def diff(context: Context, image: str, other: str, output: str) -> None:
    """Compare two images: command line, kernel, base images, and every path of the trees. Times are left out."""
    from pxeserver.images.diff import diff as compare

    catalogue = _catalogue(context)
    first, second = (catalogue.details(catalogue.get(text)) for text in (image, other))
    with drawn(quiet=output == "json") as progress:
        found = compare(catalogue.store, first, second, progress)
    out.emit(found, output, lambda: _show_diff(found))


def _show_diff(found: ImageDiff) -> None:
    if found.same:
        out.note(f"{found.first} and {found.second} are the same")
        return
    for title, changes in (("", found.settings), ("base images", found.bases)):
        if title and changes:
            out.say(f"{title}:")
        for change in changes:
            out.say(f"{'  ' if title else ''}{change.name}:")
            _sides(change)
    paths = (("added", found.added), ("removed", found.removed), ("changed", found.changed))
    if any(changes for _, changes in paths):
        out.say("files: " + ", ".join(f"{len(changes)} {word}" for word, changes in paths if changes))
        lines = [("+", c.name, c.after) for c in found.added] + [("-", c.name, c.before) for c in found.removed]
        lines += [("~", c.name, "; ".join(c.what)) for c in found.changed]
        for mark, name, text in sorted(lines, key=lambda line: line[1]):
            out.say(_marked(f"  {mark} {name}  {text}", mark))


def _sides(change: Change) -> None:
    for mark, text in (("-", change.before), ("+", change.after)):
        if text:
            out.say(_marked(f"    {mark} {text}", mark))


def _marked(line: str, mark: str) -> str:
    return click.style(line, fg={"+": "green", "-": "red"}.get(mark, "yellow")) if out.coloured() else line


def _age(context: click.Context, parameter: click.Parameter, value: str) -> int:
    found = _AGE.fullmatch(value)
    if found is None:
        raise UsageError("bad-age", f'"{value}" is no time', hint="a number with s, m, h or d, such as 2h")
    return int(found[1]) * _SECONDS[found[2]]


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@click.option(
    "--min-age", default="1h", show_default=True, callback=_age, help="Leave alone what is younger: 30m, 2h, 7d, 0."
)
@out.output_option
@pass_context
def gc(context: Context, dry_run: bool, min_age: int, output: str) -> None:
    """Remove images that have no tag and that no machine needs, and blobs that nothing uses.

    A machine needs the images that it is assigned to, was assigned to within boot.keep_days, or is booting. The minimum
    age protects builds and downloads that are under way.
    """
    from pxeserver.images.gc import collect

    with _needed(context) as keep:
        done = collect(Store(context.config.data / "store"), keep, grace=min_age, dry_run=dry_run)
    out.emit(done, output, lambda: _show_collected(done))


@contextlib.contextmanager
def _needed(context: Context) -> Iterator[Keep]:
    """Asks the fleet what machines need. Without a database there are no machines."""
    if not context.server and not (context.config.data / "fleet.db").exists() and not context.config.database.url:
        yield _nothing
        return
    from pxeserver.cli.client import open_client

    with open_client(context) as fleet:
        yield fleet.needed_images


def _nothing() -> Collection[Digest]:
    return ()


def _show_collected(done: Collected) -> None:
    word = "would be removed" if done.dry_run else "removed"
    for image in done.images:
        out.say(f"{image} {word}")
    would = "would be " if done.dry_run else ""
    out.say(f"{done.files} files, {size(done.bytes)} {would}freed")


VERBS = (push, pull, import_, sbom, diff, gc)
