"""Spec files -> one checked Spec: parse, validate, resolve @pkg, check names and references, append left to right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pxeserver import yamlpos
from pxeserver.checked import fields, replace
from pxeserver.errors import UsageError, Where
from pxeserver.linuxkit import legacy, packages, reference
from pxeserver.linuxkit.context import Place
from pxeserver.linuxkit.spec import SECTIONS, ContainerSpec, Kernel, Spec, Trust, VolumeSpec

LISTS = ("init", *SECTIONS, "volumes", "files")
_VOLUME_NAME = re.compile(r"[a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class SpecSource:
    """One spec text. `folder` is the one of a local file: @pkg and files are relative to it; None for others."""

    name: str
    text: str | bytes
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class _Loaded1:
    """One document. `called` tells by which key a section stands in it."""

    source: SpecSource
    doc: yamlpos.Document
    spec: Spec
    called: Mapping[str, str]
    formats: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The spec that all sources make together.

    `volumes` is where binds look names up; `formats` are those that a 2017 spec asked for, by today's names;
    `legacy` tells that one of the sources had the 2017 form; `warnings` are sentences for a person.
    """

    spec: Spec
    strict: bool
    volumes: Mapping[str, VolumeSpec]
    formats: tuple[str, ...]
    legacy: bool
    warnings: tuple[str, ...]
    parts: tuple[_Loaded1, ...] = field(repr=False)

    def place(self, *path: str | int) -> Where:
        """Where a field of `spec` was written: place("services", 3, "binds", 1)."""
        match path:
            case ("kernel", *rest):
                written = [p for p in self.parts if tuple(path) in p.doc.values or not rest and "kernel" in p.doc.data]
                return (written or list(self.parts))[-1].doc.where(path)
            case (str(section), int(index), *rest) if section in LISTS:
                part, own = self._part(section, index)
                return part.doc.where((part.called.get(section, section), own, *rest))
        return self.parts[-1].doc.where(path)

    def below(self, *base: str | int) -> Place:
        """`place` for paths under `base`."""
        return lambda *path: self.place(*base, *path)

    def folder(self, section: str, index: int) -> Path | None:
        """The folder of the file that an item was written in."""
        return self._part(section, index)[0].source.folder

    def _part(self, section: str, index: int) -> tuple[_Loaded1, int]:
        for part in self.parts:
            count = len(getattr(part.spec, section))
            if index < count:
                return part, index
            index -= count
        raise IndexError(f"{section}[{index}]")


def load(sources: Sequence[SpecSource], *, strict: bool = False) -> Loaded:
    """Check and append `sources`; the first fault is raised as UsageError with its place.

    Strict refuses what LinuxKit refuses, the 2017 form included, and lets binds find only the last source's volumes.
    """
    if not sources:
        raise UsageError("spec-missing", "no spec is given")
    parts = tuple(_one(source, strict) for source in sources)
    spec = parts[0].spec
    for part in parts[1:]:
        spec = _append(spec, part.spec)
    volumes = {v.name: v for v in (parts[-1].spec if strict else spec).volumes}
    loaded = Loaded(
        spec=spec,
        strict=strict,
        volumes=volumes,
        formats=tuple(dict.fromkeys(f for p in parts for f in p.formats)),
        legacy=any(p.called for p in parts),
        warnings=() if strict else tuple(w for p in parts for w in p.warnings),
        parts=parts,
    )
    _unique(spec, "services", loaded.place)
    if not strict:
        _unique(spec, "volumes", loaded.place)
    return loaded


def _one(source: SpecSource, strict: bool) -> _Loaded1:
    doc = yamlpos.parse(source.text, source.name)
    if doc.data is None:
        raise UsageError("spec-empty", "the spec is empty", hint="an empty map is written {}", where=Where(source.name))
    old = legacy.signs(doc.data)
    warnings: list[str] = []
    part = _validated(source, doc, doc.data, old, strict)
    if source.folder is not None:
        data, notes = packages.resolve(doc.data, source.folder)
        warnings += [f"{source.name}: {note}" for note in notes]
        if data != doc.data:
            part = _validated(source, doc, data, old, strict)
    if old:
        warnings.append(
            f"{source.name}: this is the form of 2017 ({', '.join(old)}): accepted, but net, ipc and uts "
            "that are not written are the host's today, where 2017 made new ones"
        )
    _check(part)
    return _Loaded1(source, doc, part.spec, part.called, part.formats, tuple(warnings))


def _validated(source: SpecSource, doc: yamlpos.Document, data: Any, old: list[str], strict: bool) -> _Loaded1:
    if old and not strict:
        spec, formats, called = legacy.convert(doc, data)
        return _Loaded1(source, doc, spec, called, formats)
    try:
        return _Loaded1(source, doc, yamlpos.validate(Spec, doc, slug="spec", data=data), {})
    except UsageError as error:
        if old:
            error.hint = "this is the form of 2017; without --strict it is accepted"
        raise


def _check(part: _Loaded1) -> None:
    """What LinuxKit checks after the schema, in its order."""

    def place(*path: str | int) -> Where:
        first = part.called.get(str(path[0]), path[0])
        return part.doc.where((first, *path[1:]))

    spec = part.spec
    _names(spec, place)
    _unique(spec, "services", place)
    for i, volume in enumerate(spec.volumes):
        if not _VOLUME_NAME.fullmatch(volume.name):
            text = f'invalid volume name "{volume.name}"'
            hint = "small letters, digits, dashes and underscores"
            raise UsageError("spec-volume-name", text, hint=hint, where=place("volumes", i, "name"))
    _unique(spec, "volumes", place)
    if spec.kernel.image:
        reference.parse(spec.kernel.image, place("kernel", "image"))
    for i, ref in enumerate(spec.init):
        reference.parse(ref, place("init", i))
    for section in SECTIONS:
        containers: tuple[ContainerSpec, ...] = getattr(spec, section)
        for i, container in enumerate(containers):
            reference.parse(container.image, place(section, i, "image"))
    for i, volume in enumerate(spec.volumes):
        if volume.image:
            reference.parse(volume.image, place("volumes", i, "image"))


def _names(spec: Spec, place: Place) -> None:
    """What becomes a path or the command line is text without NUL; anything else may hold any bytes."""
    kernel = {name: getattr(spec.kernel, name) or "" for name in ("cmdline", "binary", "tar", "ucode")}
    found: list[tuple[str, tuple[str | int, ...]]] = [(text, ("kernel", name)) for name, text in kernel.items()]
    for section in SECTIONS:
        found += [(c.name, (section, i, "name")) for i, c in enumerate(getattr(spec, section))]
    for text, path in found:
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise UsageError("spec-value", f'"{path[-1]}" must be text without NUL', where=place(*path))
    for i, item in enumerate(spec.files):
        for name in ("path", "symlink"):
            if "\0" in getattr(item, name):  # tar cannot hold it either
                raise UsageError("spec-value", f'"{name}" must not hold NUL', where=place("files", i, name))


def _unique(spec: Spec, section: str, place: Place) -> None:
    """Services run at the same time, volumes are found by name: neither may share one."""
    seen: dict[str, int] = {}
    for i, item in enumerate(getattr(spec, section)):
        if item.name in seen:
            kind = section.removesuffix("s")
            text = f'duplicate {kind} name "{item.name}": {yamlpos.dotted((section, seen[item.name]))} has it too'
            raise UsageError("spec-duplicate", text, where=place(section, i, "name"))
        seen[item.name] = i


def _append(first: Spec, later: Spec) -> Spec:
    """Later kernel fields win when they say something, lists follow each other."""
    given = {k: v for k, v in ((n, getattr(later.kernel, n)) for n in fields(Kernel)) if v not in (None, "")}
    for name in ("tar", "ucode"):
        if getattr(later.kernel, name) is not None:
            given[name] = getattr(later.kernel, name)
    update: dict[str, Any] = {name: (*getattr(first, name), *getattr(later, name)) for name in LISTS}
    update["trust"] = Trust(image=(*first.trust.image, *later.trust.image), org=(*first.trust.org, *later.trust.org))
    return replace(first, **update, kernel=replace(first.kernel, **given))
