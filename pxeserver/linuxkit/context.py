"""What every step of making a container needs to know: strictness, ids, where the spec says what, whom to warn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pxeserver.errors import UsageError, Where, did_you_mean
from pxeserver.linuxkit.spec import SECTIONS, Spec
from pxeserver.yamlpos import dotted

ID_MAX = (1 << 32) - 2  # 2^32-1 means "leave the owner alone" to the kernel


class Place(Protocol):
    def __call__(self, *path: str | int) -> Where: ...


def somewhere(*path: str | int) -> Where:
    """The place of a field of which the file is not known."""
    return Where(field=dotted(path))


@dataclass(frozen=True, slots=True)
class Context:
    """`place` takes paths below the part at hand: place("binds", 1). `notes` collects warnings for a person."""

    strict: bool = False
    ids: Mapping[str, int] = field(default_factory=dict)
    place: Place = somewhere
    notes: list[str] = field(default_factory=list)

    def fault(self, slug: str, message: str, *path: str | int, hint: str = "") -> UsageError:
        return UsageError(slug, message, hint=hint, where=self.place(*path))

    def warn(self, message: str, *path: str | int) -> None:
        """A strict build says nothing that LinuxKit does not say."""
        if not self.strict:
            self.notes.append(f"{self.place(*path)}: {message}")

    def numeric(self, value: int | str | None, *path: str | int) -> int:
        """A uid or gid: a number as it is (negative ones wrap), or the id of a container of the spec."""
        if isinstance(value, int):
            if not 0 <= value <= ID_MAX:
                self.warn(f"{value} is not an id that a process or file can have", *path)
            return value & 0xFFFFFFFF
        if not value or value == "root":
            return 0
        if value not in self.ids:
            known = ["root", *self.ids]
            hint = (
                f"write {value} without quotes"
                if value.isdecimal()
                else "ids are given by the names " + ", ".join(known)
            )
            raise self.fault("unknown-id", f'no id is known as "{value}"{did_you_mean(value, known)}', *path, hint=hint)
        return self.ids[value]


def assign_ids(spec: Spec) -> dict[str, int]:
    """Each onboot, onshutdown and services entry gets the next id from 100; a repeated name keeps its last."""
    names = [container.name for section in SECTIONS for container in getattr(spec, section)]
    return {name: 100 + i for i, name in enumerate(names)}
