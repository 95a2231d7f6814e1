"""Lock files at work: writing one from a source, and a source that refuses everything but what is locked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images.layers import BaseImage
from pxeserver.images.outputs import whole_file
from pxeserver.images.sources import Platforms, Source
from pxeserver.linuxkit import loader, lockfile, plan, reference
from pxeserver.linuxkit.entries import Use
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.linuxkit.lockfile import Lock, Pin

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Locked:
    """What was written. `changed` are the references that were locked to something else, `added` and `removed` those
    that the file had not or has no more."""

    file: str
    images: dict[str, Pin]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def write(spec: SpecSource, source: Source, arch: str, *, pull: bool = False) -> Locked:
    """Resolve every reference of `spec` and write its lock file, unless it stands there already as it would be."""
    path = lockfile.path_of(spec)
    if path is None:
        raise UsageError("spec-lock-no-place", f"{spec.name} is no file, so nothing can be put beside it")
    uses = {use.ref: use for use in reversed(plan.uses(loader.load([spec])))}
    images = dict(zip(uses, _resolved(uses.values(), source, arch, pull), strict=True))
    old = read(path) or Lock(str(path))
    text = lockfile.render(path.name.removesuffix(lockfile.SUFFIX), images)
    if not path.is_file() or path.read_bytes() != text:
        with whole_file(path) as file:
            file.write(text)
    return Locked(
        str(path),
        dict(sorted(images.items())),
        tuple(sorted(images.keys() - old.images.keys())),
        tuple(sorted(r for r in images.keys() & old.images.keys() if images[r] != old.images[r])),
        tuple(sorted(old.images.keys() - images.keys())),
    )


def _resolved(uses: Iterable[Use], source: Source, arch: str, pull: bool) -> list[Pin]:
    def one(use: Use) -> Pin:
        try:
            return reference.parse(use.ref).digest or source.pin(use.ref, arch, pull)
        except PxeServerError as error:
            error.where = error.where or use.where
            raise

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lock") as pool:
        return list(pool.map(one, uses))


def read(path: Path) -> Lock | None:
    """The lock file, None when there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return lockfile.parse(text, str(path))


def pinned(spec: SpecSource) -> frozenset[str]:
    """The references that the lock beside `spec` knows; none without one."""
    path = lockfile.path_of(spec)
    lock = read(path) if path else None
    return frozenset(lock.images) if lock else frozenset()


def of(specs: Iterable[SpecSource]) -> tuple[Lock, ...]:
    """The lock of each spec; NotFound "spec-lock-not-found" when one has none."""
    found = []
    for spec in specs:
        path = lockfile.path_of(spec)
        lock = read(path) if path else None
        if lock is None:
            name = path.name if path else f"{spec.name}{lockfile.SUFFIX}"
            raise NotFound(
                "spec-lock-not-found", f"{spec.name} has no {name} beside it", hint=f"pxeserver specs lock {spec.name}"
            )
        found.append(lock)
    return tuple(found)


@dataclass(frozen=True)
class LockedSource:
    """`source`, but what it gives must be what every lock that knows the reference says, and one must know it."""

    source: Source
    locks: Sequence[Lock]

    @property
    def name(self) -> str:
        return self.source.name

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        """As `sources.Source`; Refused "base-not-locked", "base-lock-differs"."""
        wanted = {d: lock for lock in self.locks if (d := lock.digest(ref, arch))}
        files = ", ".join(lock.file for lock in self.locks)
        if not wanted:
            raise Refused(
                "base-not-locked", f"{ref} is not locked for {arch} in {files}", hint="pxeserver specs lock SPEC"
            )
        base = self.source.base(ref, arch, pull, also)
        got = {base.digest, *([base.index.digest] if base.index else [])}
        for digest, lock in wanted.items():
            if digest not in got:
                is_now = base.index.digest if base.index else base.digest
                raise Refused(
                    "base-lock-differs",
                    f"{ref} is locked to {digest} in {lock.file}, but {self.name} has {is_now}",
                    hint="pxeserver specs lock SPEC takes the new one; build without --locked does not look",
                )
        return base

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        return self.source.pin(ref, arch, pull)

    def names(self) -> Iterable[str]:
        return self.source.names()
