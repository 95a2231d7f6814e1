"""Lock files of specs: written from a source, read from beside the spec."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pxeserver.config import Config
from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.images import trust
from pxeserver.images.sources import Source
from pxeserver.images.target import whole_file
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


def write(spec: SpecSource, source: Source, arch: str, config: Config, *, pull: bool = False) -> Locked:
    """Resolve every reference of `spec` and write its lock file, unless it stands there already as it would be.

    What the spec's trust section wants signed is locked only if it is: a locked build does not ask again.
    """
    path = lockfile.path_of(spec)
    if path is None:
        raise UsageError("spec-lock-no-place", f"{spec.name} is no file, so nothing can be put beside it")
    loaded = loader.load([spec])
    uses = {use.ref: use for use in reversed(plan.uses(loaded))}
    source = trust.guarded(loaded, source, config)
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
