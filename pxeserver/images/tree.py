"""From a plan and its base images to the parts of the tree, in order: what every output is written from."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pxeserver.errors import NotFound, PxeServerError, UsageError, Where
from pxeserver.images import flatten, kernel, ocivolume, sbom
from pxeserver.images.entry import FILE, Entry, folder, from_disk, parents, symlink, text
from pxeserver.images.inputtar import InputTar
from pxeserver.images.layers import BaseImage
from pxeserver.images.segments import APK_DATABASE
from pxeserver.images.writers import content
from pxeserver.linuxkit.entries import ContainerEntry, InitEntry, KernelEntry, Plan, PlanEntry, TreeEntry, VolumeEntry

Count = Callable[[int], None]
Placed = InitEntry | VolumeEntry | ContainerEntry
SENTINEL = ".pxeserver"
_NOWHERE = Where()
_DOCKERFILE = b'\nFROM scratch\n\nCOPY . ./\n\nENTRYPOINT ["/bin/rc.init"]\n'


@dataclass(frozen=True, slots=True)
class Part:
    """Entries of one origin. `key` (JSON values) says what they depend on; None = made anew each time."""

    location: str  # LinuxKit's words: "kernel", "init[0]", "files[2]"; "" = none
    source: str  # full reference, or "linuxkit.files" and the like; "" = not recorded
    entries: Callable[[Count], Iterator[Entry]]  # the argument hears of the bytes read of base images
    key: Mapping[str, Any] | None = None
    size: int = 0  # bytes that will be read of base images
    where: Where = Where()  # in the spec

    def read(self, count: Count) -> Iterator[Entry]:
        """`entries`, whose errors name the place in the spec."""
        with self.placed():
            yield from self.entries(count)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Errors in here name the place in the spec: contents are read by whoever asked for the entries."""
        try:
            yield
        except PxeServerError as error:
            error.where = error.where or self.where
            raise

    @property
    def records(self) -> dict[str, str]:
        """What LinuxKit notes on each entry of a tar archive; entries of an earlier tar have their notes."""
        return {"LINUXKIT.location": self.location, "LINUXKIT.source": self.source} if self.source else {}

    @property
    def has_root_apk(self) -> bool:
        return self.location.startswith("init[")


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the tree besides the plan. `cmdline` stands in boot/cmdline; `sbom` "" = none."""

    name: str
    cmdline: bytes
    strict: bool = False
    decompress_kernel: bool = False
    sbom: str = ""
    now: float | None = None  # Unix seconds for the SBOM; None = LinuxKit's fixed time
    dockerfile: bool = False
    earlier: InputTar | None = None  # parts of it are taken over


@dataclass(frozen=True, slots=True)
class Tree:
    """`apk` takes the package databases of init images in their order; a part after them needs all of them."""

    parts: tuple[Part, ...]
    apk: list[bytes] = field(default_factory=list)
    sbom: bytes = b""  # the bill of materials that stands in the tree; b"" = none

    def read(self, part: Part, count: Count) -> Iterator[Entry]:
        """The entries of `part`, whose package database is put into `apk` when it comes by."""
        for entry in part.read(count):
            if part.has_root_apk and entry.name == APK_DATABASE and entry.kind == FILE:
                self.apk.append(content(entry))
                entry = entry._replace(open=partial(io.BytesIO, self.apk[-1]))
            yield entry


def tree(plan: Plan, bases: Mapping[str, BaseImage], options: Options) -> Tree:
    """All parts in LinuxKit's order; `bases` by full reference. Contents are read when a part's entries are."""
    apk: list[bytes] = []
    parts: list[Part] = []
    last_init = max((n for n, e in enumerate(plan.entries) if isinstance(e, InitEntry)), default=-1)
    for n, entry in enumerate(plan.entries):
        made = _parts(entry, bases, options)
        if isinstance(entry, InitEntry) and options.strict:
            later = [bases[e.ref] for e in plan.entries[n + 1 :] if isinstance(e, InitEntry) and e.ref in bases]
            made = [_before(part, later) for part in made]
        parts += made
        if n == last_init:
            parts.append(_generated("init", "LINUXKIT.apkinit", lambda: _apk(apk)))
    if options.dockerfile:
        parts.append(_generated("", "", lambda: [text("Dockerfile", _DOCKERFILE)]))
    bill = _bill(plan, bases, options) if options.sbom else b""
    if options.sbom:
        parts.append(_generated("", "", lambda: [text(options.sbom, bill)]))
    if not options.strict:
        mark = f"{options.name}\n".encode()
        parts.insert(0, _generated("", "", lambda: [folder(SENTINEL), text(f"{SENTINEL}/begin", mark)]))
        parts.append(_generated("", "", lambda: [text(f"{SENTINEL}/end", mark)]))
    return Tree(tuple(parts), apk, bill)


def _parts(entry: PlanEntry, bases: Mapping[str, BaseImage], options: Options) -> list[Part]:
    if options.earlier and entry.location in options.earlier.copied:
        return [_taken(entry.location, options.earlier)]
    if isinstance(entry, KernelEntry):
        return [_kernel(entry, bases[entry.ref], options)]
    if isinstance(entry, InitEntry):
        return [_root(entry, bases[entry.ref], flatten.Use.INIT, "", options)]
    if isinstance(entry, VolumeEntry):
        return list(_volume(entry, bases, options))
    if isinstance(entry, ContainerEntry):
        return list(_container(entry, bases, options))
    return [_generated(entry.location, "linuxkit.files", lambda: [_file(entry)], entry.where)]


def _generated(location: str, source: str, entries: Callable[[], Iterable[Entry]], where: Where = _NOWHERE) -> Part:
    return Part(location, source, lambda count: iter(entries()), where=where)


def _taken(location: str, earlier: InputTar) -> Part:
    return Part(location, "", lambda count: earlier.entries(location))


def _layers(base: BaseImage) -> list[str]:
    return [x.digest for x in base.layers]


def _kernel(entry: KernelEntry, base: BaseImage, options: Options) -> Part:
    what: dict[str, Any] = {
        "binaries": entry.binaries,
        "tar": entry.tar,
        "ucode": entry.ucode,
        "decompress": options.decompress_kernel,
        "strict": options.strict,
    }

    def entries(count: Count) -> Iterator[Entry]:
        return kernel.entries(replace(base, on_read=count), cmdline=options.cmdline, **what)

    key = {"use": "kernel", "layers": _layers(base), **what}
    return Part(entry.location, entry.ref, entries, key, base.size, entry.where)


def _root(entry: Placed, base: BaseImage, use: flatten.Use, prefix: str, options: Options) -> Part:
    key = {"use": use.value, "layers": _layers(base), "prefix": prefix, "strict": options.strict}

    def entries(count: Count) -> Iterator[Entry]:
        return flatten.root(replace(base, on_read=count), use, prefix, strict=options.strict)

    return Part(entry.location, base.ref, entries, key, base.size, entry.where)


def _before(part: Part, later: Sequence[BaseImage]) -> Part:
    """The same part without what stands below a folder that a later image first replaces, then makes again.

    LinuxKit writes both and leaves the outcome to whoever unpacks them; its recorded trees do not have the former.
    """
    if not later or part.key is None:
        return part

    def entries(count: Count) -> Iterator[Entry]:
        gone = tuple(sorted({f"{name}/" for base in later for name in flatten.replaced(base)}))
        return (entry for entry in part.entries(count) if not entry.name.startswith(gone))

    return replace(part, entries=entries, key={**part.key, "before": [_layers(base) for base in later]})


def _apk(databases: list[bytes]) -> list[Entry]:
    if len(databases) < 2:
        return []
    return [text(APK_DATABASE, b"".join(d + b"\n\n" for d in databases), mtime=0)]


def _volume(entry: VolumeEntry, bases: Mapping[str, BaseImage], options: Options) -> Iterator[Part]:
    lower = f"{entry.folder}/lower"
    if not entry.ref:
        yield _generated(entry.location, "empty", lambda: parents(lower))
    elif entry.format == "oci":
        base = bases[entry.ref]
        key = {
            "use": "oci", "digest": (base.index or base).digest, "ref": base.ref, "platforms": entry.platforms,
            "prefix": lower, "strict": options.strict,
        }  # fmt: skip

        def entries(count: Count) -> Iterator[Entry]:
            return ocivolume.entries(base, f"{lower}/", entry.platforms, strict=options.strict)

        yield Part(entry.location, entry.ref, entries, key, where=entry.where)
    else:
        yield _root(entry, bases[entry.ref], flatten.Use.VOLUME, f"{lower}/", options)
    after = [folder(f"{entry.folder}/tmp/"), folder(f"{entry.folder}/merged/")]  # spelled as LinuxKit does
    yield _generated(entry.location, "linuxkit.volumes", lambda: after)


def _container(entry: ContainerEntry, bases: Mapping[str, BaseImage], options: Options) -> Iterator[Part]:
    before: list[Entry] = []
    if entry.extract_to:
        yield _root(entry, bases[entry.ref], flatten.Use.CONTAINER, f"{entry.extract_to}/", options)
    else:
        before = parents(entry.folder)
    entries = [
        *before,
        text(f"{entry.folder}/config.json", entry.config_json),
        *map(folder, entry.folders),
        text(f"{entry.folder}/runtime.json", entry.runtime_json),
    ]
    yield _generated(entry.location, entry.ref, lambda: entries)


def _file(entry: TreeEntry) -> Entry:
    owner = {"uid": entry.uid, "gid": entry.gid}
    if entry.kind == "dir":
        return folder(entry.path, entry.mode, **owner)
    if entry.kind == "symlink":
        return symlink(entry.path, entry.target, entry.mode, **owner)
    if entry.content is not None:
        return text(entry.path, entry.content, entry.mode, **owner)
    assert entry.source is not None
    try:
        if entry.source.is_file():
            return from_disk(entry.path, entry.source, entry.mode, **owner)
        there = entry.source.exists()
    except OSError as error:  # too long, or in a folder that is closed to us
        text_ = f"cannot look for {entry.source}: {error.strerror}"
        raise NotFound("file-source-missing", text_, where=entry.where) from None
    if there:
        raise UsageError("file-source-kind", f"{entry.source} is no plain file", where=entry.where)
    hint = "" if entry.source.is_absolute() else f"it was looked for from {Path.cwd()}"
    raise NotFound("file-source-missing", f"no file {entry.source}", hint=hint, where=entry.where)


def _bill(plan: Plan, bases: Mapping[str, BaseImage], options: Options) -> bytes:
    """The SBOM of what was extracted, each base image under the folder it went to; of parts taken over it is lost."""
    uses: list[tuple[BaseImage, str]] = []
    for entry in plan.entries:
        if getattr(entry, "ref", "") not in bases:
            continue
        if isinstance(entry, KernelEntry | InitEntry):
            uses.append((bases[entry.ref], ""))
        elif isinstance(entry, VolumeEntry) and entry.ref and entry.format != "oci":
            uses.append((bases[entry.ref], f"{entry.folder}/lower"))
        elif isinstance(entry, ContainerEntry) and entry.extract_to:
            uses.append((bases[entry.ref], entry.extract_to))
    return sbom.merged(uses, strict=options.strict, now=options.now)
