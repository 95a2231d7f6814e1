"""`pxeserver specs`: the recipes that can be built by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.progress import drawn
from pxeserver.errors import NotFound, Partial, PxeServerError, did_you_mean
from pxeserver.fleet.specs import list_specs, spec_files
from pxeserver.images import specfiles
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.units import age

if TYPE_CHECKING:
    from pxeserver.fleet.values import SpecInfo
    from pxeserver.images.locking import Locked
    from pxeserver.linuxkit.lintbase import Finding

_SOURCE = click.option(
    "--source", help="Where base images come from: registry, docker, oci:DIR, archive:FILE.  [default: as configured]"
)
_ARCH = click.option("--arch", default=specfiles.host_arch, help="Architecture: amd64, arm64.  [default: this host's]")


@click.group()
def specs() -> None:
    """List, show, check, lint and lock specs."""


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


@specs.command()
@click.argument("spec", nargs=-1)
@click.option("--ignore", multiple=True, metavar="RULE", help="Leave this rule out (repeatable).")
@_SOURCE
@_ARCH
@out.output_option
@pass_context
def lint(
    context: Context, spec: tuple[str, ...], ignore: tuple[str, ...], source: str | None, arch: str, output: str
) -> None:
    """Look for what can be built and still goes wrong on a machine; all known specs when none is named.

    Base images that are on this host are looked into, no registry is asked. docs/lint.md explains every rule.
    Exit 1 when a finding is an error; warnings alone are 0.
    """
    from pxeserver.linuxkit.lint import checked

    checked(ignore)
    names = spec or tuple(sorted(spec_files(context.config)))
    findings = [f for name in names for f in _linted(name, context, ignore, source, arch)]
    out.emit(findings, output, lambda: _show_findings(findings))
    errors = sum(f.level == "error" for f in findings)
    if errors:
        raise PxeServerError("lint-errors", f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")


def _linted(name: str, context: Context, ignored: Sequence[str], source: str | None, arch: str) -> Sequence[Finding]:
    """The findings of one spec; one that cannot be used at all is a finding too."""
    from pxeserver.images import locking, specbases
    from pxeserver.linuxkit import lint, loader

    config = context.config
    text = config.images.source if source is None else source
    layouts = specbases.layouts(text, Store(config.data / "store"), config)
    try:
        spec = read(name, context)
        loaded = loader.load((spec,))
        return lint.lint(loaded, specbases.known(loaded, layouts, arch), pinned=locking.pinned(spec), ignored=ignored)
    except NotFound:
        raise
    except PxeServerError as error:
        return (lint.refused(error),)


def _show_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        out.say(f"{finding}\n  fix: {finding.fix}" if finding.fix else str(finding))
    if not findings:
        out.note("nothing to complain about")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


@specs.command()
@click.argument("spec", nargs=-1, required=True)
@_SOURCE
@_ARCH
@click.option("--pull", is_flag=True, help="Ask the registry even for base images that are here.")
@click.option("--mirror", multiple=True, help="[REGISTRY=]URL of a registry to ask first.")
@out.output_option
@pass_context
def lock(
    context: Context,
    spec: tuple[str, ...],
    source: str | None,
    arch: str,
    pull: bool,
    mirror: tuple[str, ...],
    output: str,
) -> None:
    """Write SPEC.lock beside each SPEC: the digest of every base image, as a build would take it now.

    `pxeserver build --locked` refuses any other. An image for several architectures is locked for all of them.
    """
    from pxeserver.images import locking
    from pxeserver.images.sources import open_source

    config = context.config
    with drawn(quiet=output == "json") as progress:
        text = config.images.source if source is None else source
        store = Store(config.data / "store")
        bases = open_source(text, store, config, mirrors=mirror, progress=progress)
        done = [locking.write(read(name, context), bases, arch, config, pull=pull) for name in spec]
    out.emit(done, output, lambda: _show_locked(done))


def _show_locked(done: Sequence[Locked]) -> None:
    for locked in done:
        for word, refs in (("new", locked.added), ("changed", locked.changed), ("no longer used", locked.removed)):
            for ref in refs:
                out.note(f"{word}: {ref}")
        out.say(f"{locked.file}: {_count(len(locked.images), 'image')} locked")


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
