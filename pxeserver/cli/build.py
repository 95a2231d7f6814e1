"""`pxeserver build`: LinuxKit's build command with the image store behind it."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.progress import drawn
from pxeserver.cli.specs import read
from pxeserver.errors import NotFound, UsageError
from pxeserver.images import outputs, specfiles
from pxeserver.images.compress import KINDS
from pxeserver.images.target import Target
from pxeserver.linuxkit.loader import SpecSource

_STREAM = click.Path(path_type=Path, allow_dash=True)
_FOLDER = click.Path(path_type=Path)


@dataclass(frozen=True)
class Flags:
    """The options of the command, by the names of their parameters."""

    spec: tuple[str, ...]
    name: str | None
    dir: Path | None
    o: Path | None
    format: tuple[str, ...]
    size: str | None
    pull: bool
    locked: bool
    docker: bool
    arch: str
    decompress_kernel: bool
    input_tar: Path | None
    no_sbom: bool
    sbom_output: str
    sbom_current_time: bool
    dry_run: bool
    cache: Path | None
    mirror: tuple[str, ...]
    cert_file: Path | None
    source: str | None
    tag: tuple[str, ...]
    compress: str | None
    strict: bool
    quiet: bool

    @property
    def bytes(self) -> int:
        """--size; 0 = not given. A number alone is GiB, as in LinuxKit."""
        if self.size is None:
            return 0
        return int(self.size.rstrip("MG")) << (20 if self.size.endswith("M") else 30)

    @property
    def formats(self) -> tuple[str, ...]:
        """What to write beside the store: what was asked for, else LinuxKit's default where files are wanted at all."""
        given = tuple(name.strip() for text in self.format if text for name in text.split(","))
        if given:
            return given
        if self.o is not None:
            return ("tar",)
        wanted = self.strict or self.dir is not None or self.name is not None
        return (outputs.DEFAULT,) if wanted else ()

    @property
    def base(self) -> str:
        """What the image and its files are called."""
        return self.name or specfiles.image_name(self.spec[-1])

    @property
    def written(self) -> Path | None:
        """The file of a streamable form; None for standard output and other forms."""
        form = outputs.FORMS[self.formats[0]] if self.formats else None
        if form is None or not form.streamable or str(self.o) == "-":
            return None
        return self.o or (self.dir or Path()) / (self.base + form.suffix)


@click.command()
@click.argument("spec", nargs=-1, required=True)
@click.option("--name", help="Name of the image and of the files.  [default: the last spec's]")
@click.option("--dir", type=_FOLDER, help="Write files into this folder, which must exist.")
@click.option("--o", type=_STREAM, help="Write one streamable format to this file, - for standard output.")
@click.option("--format", "-f", multiple=True, help=f"Files to write: {', '.join(outputs.FORMS)}; A,B or repeated.")
@click.option(
    "--source", help="Where base images come from: registry, docker, oci:DIR, archive:FILE.  [default: store, registry]"
)
@click.option("--tag", "-t", multiple=True, help="Further tags of the image: TAG or NAME:TAG.")
@click.option("--pull", is_flag=True, help="Ask the registry even for base images that are here.")
@click.option("--locked", is_flag=True, help="Refuse base images that are not as SPEC.lock has them.")
@click.option("--docker", is_flag=True, help="Look for base images in the docker engine first.")
@click.option("--arch", default=specfiles.host_arch, help="Architecture: amd64, arm64.  [default: this host's]")
@click.option("--mirror", multiple=True, help="[REGISTRY=]URL of a registry to ask first.  [env: LINUXKIT_MIRROR]")
@click.option("--cert-file", type=_FOLDER, help="Further certificates to trust registries by (PEM).")
@click.option("--cache", type=_FOLDER, envvar="LINUXKIT_CACHE", help="Keep base images in this OCI layout.")
@click.option("--decompress-kernel", is_flag=True, help="Take the kernel out of its gzip file or bzImage.")
@click.option("--compress", type=click.Choice(list(KINDS)), help="Compression of the initrd.  [default: as configured]")
@click.option("--input-tar", type=_FOLDER, help="A tar of an earlier build to take unchanged parts from.")
@click.option("--no-sbom", is_flag=True, help="Put no bill of materials into the image.")
@click.option("--sbom-output", default="sbom.spdx.json", show_default=True, help="Path of the SBOM in the image.")
@click.option("--sbom-current-time", is_flag=True, help="Date the SBOM now (the digest then differs each time).")
@click.option("--size", help="Size of the disk of qcow2-bios; no effect on others.  [default: 1024M]")
@click.option("--strict", is_flag=True, help="LinuxKit's very tree, accidents included; refuse what it refuses.")
@click.option("--dry-run", is_flag=True, help="Print the merged spec and build nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only.")
@pass_context
def build(context: Context, /, **options: Any) -> None:
    """Build an image from LinuxKit SPECs, appended left to right.

    A SPEC is a file, the name of a known spec, - or a URL. The image goes into the store as NAME:latest and its name
    and digest to standard output; --format, --dir, --name, --o or --strict write files as linuxkit build does.
    """
    flags = Flags(**options)
    _check(flags)
    specs = tuple(read(text, context) for text in flags.spec)
    if flags.dry_run:
        _dry_run(specs, flags)
        return
    from pxeserver.images import locking
    from pxeserver.images.build import BuildRequest
    from pxeserver.images.build import build as run
    from pxeserver.images.locked import LockedSource
    from pxeserver.images.sources import open_source
    from pxeserver.images.store import Store

    config = context.config
    store = Store(config.data / "store")
    name = flags.name or specfiles.image_name(specs[-1].name)
    target = _target(flags, name)
    with drawn(flags.quiet) as progress:
        source = open_source(
            config.images.source if flags.source is None else flags.source,
            store if flags.cache is None else Store(flags.cache),
            config,
            docker=flags.docker,
            mirrors=flags.mirror or tuple(re.split(r"[\s,]+", os.environ.get("LINUXKIT_MIRROR", ""))),
            cert_file=flags.cert_file,
            progress=progress,
        )
        if flags.locked:
            source = LockedSource(source, locking.of(specs))
        request = BuildRequest(
            specs=specs,
            name=name,
            arch=flags.arch,
            source=source,
            formats=flags.formats,
            target=target,
            tags=flags.tag,
            strict=flags.strict,
            pull=flags.pull,
            input_tar=flags.input_tar,
            decompress_kernel=flags.decompress_kernel,
            compression=flags.compress or config.images.compress,
            sbom="" if flags.no_sbom else flags.sbom_output,
            now=time.time() if flags.sbom_current_time else None,
        )
        built = run(request, store, config, progress)
    for path in built.files:
        out.note(f"wrote {path}")
    if built.image is not None and target.stream is None:
        out.say(f"{built.image.spec}@{built.image.digest}")


def _target(flags: Flags, name: str) -> Target:
    stream = sys.stdout.buffer if str(flags.o) == "-" else None
    file = flags.o if stream is None else None
    return Target(flags.dir or Path(), name, stream, file, exact=flags.strict, size=flags.bytes)


def _check(flags: Flags) -> None:
    """What LinuxKit refuses before it reads anything."""
    formats = outputs.checked(flags.formats)
    if flags.o is not None:
        for other, given in (("name", flags.name), ("dir", flags.dir)):
            if given is not None:
                raise UsageError("output-conflict", f"--o cannot be given together with --{other}")
        for name in formats:
            if not outputs.FORMS[name].streamable:
                raise UsageError("output-conflict", f"--o cannot be given for {name}, which is no stream")
    if flags.input_tar is not None and flags.pull:
        raise UsageError("output-conflict", "cannot use --input-tar and --pull together")
    if flags.input_tar is not None and flags.locked:
        raise UsageError("output-conflict", "--locked cannot vouch for what --input-tar takes over")
    if flags.input_tar is not None and flags.input_tar in (flags.o, flags.written if flags.strict else None):
        raise UsageError("output-conflict", "--input-tar and --o must be different files")
    if not flags.no_sbom and not flags.sbom_output:
        raise UsageError("output-conflict", "--sbom-output needs a path; --no-sbom leaves the document out")
    if flags.size is not None and not re.fullmatch(r"[0-9]+[MG]?", flags.size):
        raise UsageError("bad-size", f'"{flags.size}" is no size', hint="a number with M or G, such as 1024M")
    if flags.dir is not None and not flags.dir.is_dir():
        raise NotFound("folder-not-found", f"no folder {flags.dir}", hint=f"mkdir {flags.dir}")


def _dry_run(specs: tuple[SpecSource, ...], flags: Flags) -> None:
    from pxeserver.linuxkit import loader, metadata

    if flags.strict and flags.written is not None:
        flags.written.write_bytes(b"")  # LinuxKit has opened it by now
    loaded = loader.load(specs, strict=flags.strict)
    click.echo(metadata.shown(loaded.spec, strict=flags.strict), nl=False)
