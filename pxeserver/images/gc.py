"""Removing what nobody uses: images without a tag that no machine needs, and blobs that nothing in the store reaches.

What is younger than a grace period stays: a build or a download that is under way may be about to name it.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxeserver.images import signatures
from pxeserver.images.catalogue import ARTIFACT, CREATED, Catalogue
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store
from pxeserver.model import Digest

GRACE = 3600.0  # seconds
Keep = Callable[[], Collection[Digest]]


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, or would be: images by their short names, the number of files, their bytes."""

    images: tuple[str, ...]
    files: int
    bytes: int
    dry_run: bool


def collect(
    store: Store, keep: Keep, *, grace: float = GRACE, dry_run: bool = False, now: float | None = None
) -> Collected:
    """`keep` gives the digests of the images that machines need; it is asked while no image can be added or removed."""
    if not store.root.is_dir():
        return Collected((), 0, 0, dry_run)
    catalogue = Catalogue(store)
    before = (time.time() if now is None else now) - grace
    gone: dict[str, str] = {}  # digest of the manifest -> short name of the image

    def rest(entries: Iterable[Descriptor]) -> list[Descriptor]:
        gone.update(_unwanted(catalogue, entries, keep(), before))
        return _about_something(store, [e for e in entries if e.digest not in gone])

    if dry_run:
        entries = rest(store.index())
    else:
        store.edit_index(rest)
    with store.locked():
        used = store.references(entries if dry_run else store.index())
        files = list(_unused(store, used, before))
        for path, _ in () if dry_run else files:
            path.unlink(missing_ok=True)
    return Collected(tuple(sorted(gone.values())), len(files), sum(size for _, size in files), dry_run)


def _unwanted(
    catalogue: Catalogue, entries: Iterable[Descriptor], needed: Collection[Digest], before: float
) -> Iterator[tuple[str, str]]:
    """Images without a tag that are old enough and that no machine needs."""
    for entry in entries:
        if entry.artifact_type != ARTIFACT or entry.ref or float(entry.annotations.get(CREATED, "0")) > before:
            continue
        image = catalogue.read(entry.digest)
        if image.digest not in needed:
            yield entry.digest, image.short


def _about_something(store: Store, entries: Sequence[Descriptor]) -> list[Descriptor]:
    """The entries without signatures of images that are no longer here."""
    used = store.references(e for e in entries if e.artifact_type != signatures.ARTIFACT)
    return [e for e in entries if e.artifact_type != signatures.ARTIFACT or signatures.subject(e.ref) in used]


def _unused(store: Store, used: Collection[Digest], before: float) -> Iterator[tuple[Path, int]]:
    """Files of blobs that are not `used`, and of downloads that nobody works on, with their sizes."""
    blobs, partial = store.root / "blobs" / "sha256", store.root / "partial"
    for path in sorted(blobs.iterdir()) if blobs.is_dir() else ():
        stat = path.stat()
        if f"sha256:{path.name}" not in used and stat.st_mtime <= before:
            yield path, stat.st_size
    for path in sorted(partial.iterdir()) if partial.is_dir() else ():
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stat = path.stat()
            if stat.st_mtime <= before:
                yield path, stat.st_size
