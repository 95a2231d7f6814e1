"""`pxeserver specs`: the recipes that can be built by name."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import NotFound, Partial, PxeServerError, did_you_mean
from pxeserver.fleet.specs import list_specs, spec_files
from pxeserver.fleet.values import SpecInfo
from pxeserver.images import specfiles
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.units import age


@click.group()
def specs() -> None:
    """List, show and check specs."""


@specs.command()
@out.output_option
@pass_context
def ls(context: Context, output: str) -> None:
    """List the specs of the configured folders and the shipped ones, with their newest builds."""
    if context.server:
        from pxeserver.cli.client import open_client

        with open_client(context) as fleet:
            found = fleet.specs()
    else:
        found = _local(context)
    rows = [(s.name, s.newest, age(s.built) if s.built else "", s.file) for s in found]
    out.emit(found, output, lambda: out.table(("SPEC", "NEWEST IMAGE", "AGE", "FILE"), rows, empty="no specs"))


def _local(context: Context) -> tuple[SpecInfo, ...]:
    catalogue = Catalogue(Store(context.config.data / "store"))
    built = catalogue.list()
    newest = {spec: i.digest for spec in {i.spec for i in built} if (i := catalogue.newest(spec))}
    return list_specs(spec_files(context.config), built, newest)


@specs.command()
@click.argument("spec")
@pass_context
def show(context: Context, spec: str) -> None:
    """Print a spec: a name, or a file."""
    text = read(spec, context).text
    click.echo(text, nl=False)


@dataclass(frozen=True)
class Checked:
    """`error` is "" for a spec that would load."""

    spec: str
    file: str
    error: str
    warnings: tuple[str, ...]


@specs.command()
@click.argument("spec", nargs=-1)
@click.option("--strict", is_flag=True, help="Refuse what LinuxKit refuses.")
@out.output_option
@pass_context
def check(context: Context, spec: tuple[str, ...], strict: bool, output: str) -> None:
    """Check specs by name or file; all known ones when none is named. Base images are not looked for."""
    from pxeserver.linuxkit import loader

    results = []
    errors: list[PxeServerError] = []
    for name in spec or sorted(spec_files(context.config)):
        file = ""
        try:
            source = read(name, context)
            file = source.name
            loaded = loader.load((source,), strict=strict)
            results.append(Checked(name, file, "", loaded.warnings))
        except PxeServerError as error:
            errors.append(error)
            results.append(Checked(name, file, str(error), ()))
    out.emit(results, output, lambda: _report(results, errors))
    if len(results) == 1 and errors:
        raise errors[0]
    if errors:
        raise Partial("specs-faulty", f"{len(errors)} of {len(results)} specs have faults")


def _report(results: list[Checked], errors: list[PxeServerError]) -> None:
    for result in results:
        for warning in result.warnings:
            out.note(f"warning: {warning}")
        if not result.error:
            out.say(f"{result.spec}: ok")
    if len(results) > 1:
        for error in errors:
            out.note(error.render())


def read(text: str, context: Context) -> SpecSource:
    """A file (or "-", or a URL) that is there, else the known spec of that name. NotFound "spec-not-found"."""
    known = spec_files(context.config)
    if text in known and not specfiles.exists(text):
        text = str(known[text])
    try:
        return specfiles.read(text, sys.stdin.buffer)
    except NotFound as error:
        error.message += did_you_mean(text, known)
        raise
