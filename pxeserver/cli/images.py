"""`pxeserver images`: what was built, and what to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pxeserver.boot.preflight import Preflight, preflight
from pxeserver.cli import images_move, images_uki
from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.progress import drawn
from pxeserver.errors import NotFound, PxeServerError, Refused
from pxeserver.images import outputs
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.images.target import Target
from pxeserver.model import Blob, Image
from pxeserver.units import age, size, when

_STORED = (*(name for name, form in outputs.FORMS.items() if not form.streamable), "oci")


@click.group()
def images() -> None:
    """List, compare and move built images."""


for _verb in images_move.VERBS:
    images.add_command(_verb)
images.add_command(images_uki.uki)


def _catalogue(context: Context) -> Catalogue:
    return Catalogue(Store(context.config.data / "store"))


@images.command()
@out.output_option
@pass_context
def ls(context: Context, output: str) -> None:
    """List the built images, newest first."""
    if context.server:
        from pxeserver.cli.client import open_client

        with open_client(context) as fleet:
            found = fleet.images()
    else:
        found = _catalogue(context).list()
    out.emit(found, output, lambda: _table(found))


def _table(found: Sequence[Image]) -> None:
    rows = (
        (
            i.short,
            " ".join(i.tags),
            i.arch,
            size(i.kernel.size),
            size(i.initrd.size),
            size(i.initrd.raw_size),
            age(i.created),
        )
        for i in found
    )
    columns = ("IMAGE", "TAGS", "ARCH", "KERNEL", "INITRD", "UNPACKED", "AGE")
    out.table(columns, rows, empty="no image was built yet; pxeserver build SPEC")


@images.command()
@click.argument("image")
@click.option("--spec", "text", is_flag=True, help="Print the spec that it was built from.")
@out.output_option
@pass_context
def show(context: Context, image: str, text: bool, output: str) -> None:
    """Show an image: NAME, NAME:TAG, NAME@DIGEST or a digest."""
    catalogue = _catalogue(context)
    details = catalogue.details(catalogue.get(image))
    if text and output == "table":
        click.echo(details.spec_text, nl=False)
        return
    shown = Shown(
        image=details.image,
        manifest=details.manifest,
        spec_text=details.spec_text,
        sbom=details.sbom,
        facts=details.facts,
        preflight=preflight(details.image),
    )
    out.emit(shown, output, lambda: _show(shown))


@dataclass(frozen=True)
class Shown:
    """An image with all that is recorded of it, and what it takes of a machine."""

    image: Image
    manifest: str  # digest
    spec_text: str
    sbom: Blob | None
    facts: Mapping[str, Any]
    preflight: Preflight


def _show(details: Shown) -> None:
    image, facts, takes = details.image, details.facts, details.preflight
    out.fields(
        (
            ("image", image.short),
            ("digest", image.digest),
            ("tags", "\n".join(image.tags)),
            ("arch", image.arch),
            ("built", f"{when(image.created)} ({age(image.created)} ago)"),
            ("form", "LinuxKit's very tree (--strict)" if facts.get("strict") else ""),
            ("cmdline", image.cmdline),
            ("kernel", f"{image.kernel.digest}  {size(image.kernel.size)}"),
            ("initrd", f"{image.initrd.digest}  {size(image.initrd.size)}, unpacked {size(image.initrd.raw_size)}"),
            ("UKI", f"{image.uki.digest}  {size(image.uki.size)}" if image.uki else ""),
            ("compression", facts.get("compression")),
            ("takes", f"{size(takes.transfer)} sent, {size(takes.peak)} in memory while it is unpacked"),
            ("memory", f"{takes.memory_bios} MiB (BIOS), {takes.memory_efi} MiB (UEFI)"),
            ("cmdline length", f"{takes.cmdline} of {takes.cmdline_limit} bytes"),
            ("SBOM", f"{details.sbom.digest}  {size(details.sbom.size)}" if details.sbom else ""),
            ("manifest", details.manifest),
            ("base images", "\n".join(f"{b['use']}  {b['ref']}  {b['digest']}" for b in facts.get("bases", ()))),
        )
    )


@dataclass(frozen=True)
class Tagged:
    """What a tag was given to, and who had it before ("" = nobody)."""

    tag: str
    image: str
    before: str


@images.command()
@click.argument("image")
@click.argument("tag")
@out.output_option
@pass_context
def tag(context: Context, image: str, tag: str, output: str) -> None:
    """Give IMAGE another TAG (or NAME:TAG); the image that had it loses it."""
    found, before = _catalogue(context).tag(image, tag)
    name = tag if ":" in tag else f"{found.spec}:{tag}"
    done = Tagged(name, found.short, before if before != found.short else "")
    was = f" (it was {done.before})" if done.before else ""
    out.emit(done, output, lambda: out.say(f"{name} is now {found.short}{was}"))


@images.command()
@click.argument("image", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also images that machines are assigned to: they will boot nothing.")
@pass_context
def rm(context: Context, image: tuple[str, ...], force: bool) -> None:
    """Remove a tag (NAME:TAG, when the image has others) or a whole image with its files."""
    catalogue = _catalogue(context)
    for text in image:
        found = catalogue.get(text)
        whole = not (text in found.tags and len(found.tags) > 1)
        if whole and not force:
            _refuse_used(context, found)
        _, freed = catalogue.remove(text)
        out.say(f"removed {found.short}, {size(freed)} freed" if whole else f"removed the tag {text} of {found.short}")


def _refuse_used(context: Context, image: Image) -> None:
    """An image that a machine is assigned to stays. Without a database there are no machines."""
    if not (context.config.data / "fleet.db").exists() and not context.config.database.url:
        return
    from pxeserver.cli.client import open_client

    with open_client(context) as fleet:
        users = [m.title for m in fleet.machines() if m.assignment and m.assignment.image == image.digest]
    if users:
        some = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
        raise Refused(
            "image-in-use", f"{image.short} is assigned to {some}", hint="assign another image first, or --force"
        )


@dataclass(frozen=True)
class Verified:
    image: str
    digest: str
    faults: tuple[str, ...]


@images.command()
@click.argument("image", nargs=-1)
@out.output_option
@pass_context
def verify(context: Context, image: tuple[str, ...], output: str) -> None:
    """Read whole images and compare every digest; all images when none is named. Exit 1 when one is damaged."""
    from pxeserver.images.verify import verify as check

    catalogue = _catalogue(context)
    chosen = [catalogue.get(text) for text in image] or list(catalogue.list())
    results = []
    with drawn(quiet=output == "json") as progress:
        for one in chosen:
            task = progress.task(f"verify {one.short}", one.kernel.size + one.initrd.size)
            faults = check(catalogue, one, task.advance)
            task.done("damaged" if faults else "ok")
            results.append(Verified(one.short, one.digest, faults))
    rows = [(r.image, "; ".join(r.faults) or "ok") for r in results]
    out.emit(results, output, lambda: out.table(("IMAGE", "RESULT"), rows, empty="no images"))
    damaged = [r.image for r in results if r.faults]
    if damaged:
        raise PxeServerError(
            "image-damaged", f"damaged: {', '.join(damaged)}", hint="pxeserver images rm, then build again"
        )


@images.command()
@click.argument("image")
@click.option("--format", "-f", "form", default=outputs.DEFAULT, show_default=True, help=f"{', '.join(_STORED)}.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path(), help="Folder, which must exist.")
@click.option("--name", help="Name of the files.  [default: the image's]")
@pass_context
def export(context: Context, image: str, form: str, folder: Path, name: str | None) -> None:
    """Write an image's files as `pxeserver build --format` would have; oci: one file for `images import`."""
    catalogue = _catalogue(context)
    found = catalogue.get(image)
    if form == "oci":
        from pxeserver.images import archive

        out.say(str(archive.export(catalogue, found, Target(_existing(folder), name or found.spec))))
        return
    outputs.checked([form])
    if outputs.FORMS[form].streamable:
        raise Refused(
            "format-not-stored", f"{form} is made from the spec, not from an image", hint="pxeserver build -f"
        )
    outputs.need([form], found.arch)
    target = Target(_existing(folder), name or found.spec)
    for path in outputs.write(form, outputs.exported(catalogue.details(found)), catalogue.store, target):
        out.say(str(path))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise NotFound("folder-not-found", f"no folder {folder}", hint=f"mkdir {folder}")
    return folder
