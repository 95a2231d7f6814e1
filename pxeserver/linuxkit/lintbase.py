"""What lint rules look at and what they find: values only. The rules are in lint*.py, the list of them in lint.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pxeserver.errors import Where
from pxeserver.linuxkit import files, label, reference
from pxeserver.linuxkit.context import Context, Place, assign_ids
from pxeserver.linuxkit.entries import ImageDefaults, TreeEntry
from pxeserver.linuxkit.loader import Loaded
from pxeserver.linuxkit.spec import SECTIONS, ContainerSpec

Level = Literal["error", "warning"]
_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of a base image that is on this host. `paths` has no leading slashes; reading it may take long."""

    digest: str
    defaults: ImageDefaults
    paths: Callable[[], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a spec does and should not. An `error` will surely go wrong, a `warning` probably."""

    rule: str
    level: Level
    where: Where
    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.level}[{self.rule}]: {self.text}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What a rule yields; its name and level are the rule's."""

    where: Where
    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class Container:
    """An onboot, onshutdown or services entry; `merged` has the base image's label in it when that is known."""

    section: str
    own: ContainerSpec
    merged: ContainerSpec
    place: Place
    base: Base | None

    @property
    def command(self) -> tuple[str, ...]:
        """What it runs; () when only the base image knows, and that is not here."""
        if self.merged.command is not None:
            return self.merged.command
        image = self.base.defaults if self.base else ImageDefaults()
        return (*image.entrypoint, *image.cmd)

    @property
    def image(self) -> str:
        """The base image's name without registry and tag: linuxkit/dhcpcd."""
        return reference.parse(self.own.image).path

    def is_a(self, *words: str) -> bool:
        """Whether one of these words stands in its name, its image's name or its command."""
        texts = (self.own.name, self.image, *self.command)
        return not {w for text in texts for w in _WORD.split(text.lower())}.isdisjoint(words)

    @property
    def labelled(self) -> bool:
        """Whether the base image was made for LinuxKit: it says itself how it wants to be run."""
        return self.base is not None and bool(self.base.defaults.labels.get(label.LABEL))


def _read(path: Path) -> bytes | None:
    """The beginning of a file that the spec takes into the image; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 18)
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded spec from all sides. `pinned` are the references of the lock file; `bases` those that are here."""

    loaded: Loaded
    containers: tuple[Container, ...]
    files: tuple[TreeEntry, ...]
    bases: Mapping[str, Base] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()
    read: Callable[[Path], bytes | None] = _read

    @property
    def whole(self) -> bool:
        """A system of its own, no part that is appended to others."""
        return bool(self.loaded.spec.kernel.image)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words of the kernel's command line."""
        return tuple(self.loaded.spec.kernel.cmdline.split())

    def item(self, entry: TreeEntry) -> int:
        """The index of the item that a tree entry was made from."""
        return int(entry.location.removeprefix("files[").removesuffix("]"))

    def section(self, *names: str) -> Iterator[Container]:
        return (c for c in self.containers if c.section in names)


@dataclass(frozen=True, slots=True)
class Rule:
    """`summary` is the line of docs/lint.md."""

    slug: str
    level: Level
    summary: str
    check: Callable[[Subject], Iterator[Problem]]


def subject(loaded: Loaded, bases: Mapping[str, Base], pinned: frozenset[str]) -> Subject:
    """UsageError for faults of the spec or of a label that a build would refuse too."""
    containers = []
    for section in SECTIONS:
        for i, own in enumerate(getattr(loaded.spec, section)):
            base = bases.get(reference.expand(own.image))
            text = base.defaults.labels.get(label.LABEL, "") if base else ""
            merged = label.merge(own, text, strict=loaded.strict, place=loaded.below(section, i))
            containers.append(Container(section, own, merged.spec, merged.place, base))
    tree = files.entries(
        loaded.spec.files,
        Context(loaded.strict, assign_ids(loaded.spec), loaded.below("files")),
        folder=lambda i: loaded.folder("files", i),
        render=lambda form: b"",
        present=Path.exists,
    )
    return Subject(loaded, tuple(containers), tree, bases, pinned)
