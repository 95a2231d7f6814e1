"""From the parts of a tree to kernel, command line and one initrd blob in the store."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pxeserver import units
from pxeserver.errors import PxeServerError
from pxeserver.images import cpio, oci
from pxeserver.images.entry import Entry
from pxeserver.images.progress import Progress
from pxeserver.images.segments import SPEC_CMDLINE, Segment, SegmentCache
from pxeserver.images.store import Store
from pxeserver.images.tree import Part, Tree
from pxeserver.images.writers import Checksum, Sink, Tally
from pxeserver.model import Blob

DAMAGED = "cache-damaged"
_CHUNK = 1 << 20
_AT_ONCE_MAX = 4  # segments; each takes about 10 MiB while it is made


@dataclass(frozen=True, slots=True)
class Assembled:
    """`digest` is the image's: over uncompressed content, so that no compressor and no clock is in it.

    `initrd` begins with the microcode, byte for byte, when there is one.
    """

    digest: str
    kernel: Blob | None
    ucode: Blob | None
    initrd: Blob
    cmdline: str
    segments: tuple[Segment, ...]
    arch: str = "amd64"


def assemble(
    tree: Tree, cache: SegmentCache, store: Store, *, spec_cmdline: str, arch: str, progress: Progress
) -> Assembled:
    """Make or take from the cache every segment of `tree`, then put the initrd together."""
    kept = _kept(tree, cache, progress)
    segments: list[Segment] = []
    kernel: Blob | None = None
    ucode: Blob | None = None
    cmdline = b""
    for part, run in _runs(tree):
        if part.key is None:
            segment = cache.make(entry for one in run for entry in _read(one, tree.read(one, _nobody)))
        else:
            segment = kept[_name(part.key)]
            if segment.apk is not None and part.has_root_apk:
                tree.apk.append(segment.apk)
        segments.append(segment)
        kernel, ucode = segment.kernel or kernel, segment.ucode or ucode
        cmdline = cmdline if segment.cmdline is None else segment.cmdline
    filled = tuple(s for s in segments if not s.empty)
    words = spec_cmdline if cmdline == SPEC_CMDLINE else cmdline.decode("utf-8", "surrogateescape")
    digest = content_digest(
        arch=arch,
        cmdline=words,
        kernel=kernel.digest if kernel else "",
        segments=[s.raw_digest for s in filled],
        ucode=ucode.digest if ucode else "",
    )
    return Assembled(digest, kernel, ucode, _join(ucode, filled, cache, store, progress), words, filled, arch)


def content_digest(*, arch: str, cmdline: str, kernel: str, segments: Sequence[str], ucode: str) -> str:
    """An image's digest: over its arch, command line, and the digests of kernel, unpacked segments and microcode."""
    content = {"arch": arch, "cmdline": cmdline, "kernel": kernel, "segments": list(segments), "ucode": ucode}
    return "sha256:" + hashlib.sha256(oci.dump(content)).hexdigest()


def _runs(tree: Tree) -> Iterator[tuple[Part, tuple[Part, ...]]]:
    """Parts that are cached stand alone; generated ones that follow one another share a segment."""
    for cached, group in itertools.groupby(tree.parts, key=lambda p: p.key is not None):
        if cached:
            yield from ((part, (part,)) for part in group)
        else:
            run = tuple(group)
            yield run[0], run


def _kept(tree: Tree, cache: SegmentCache, progress: Progress) -> dict[str, Segment]:
    """The segments of base images by their keys, taken from the cache or made: as many at once as there are CPUs.

    Each is compressed in one stream by one thread, so their bytes are the same however many are made at a time.
    """
    parts: dict[str, Part] = {}
    for part in tree.parts:
        if part.key is not None:
            parts.setdefault(_name(part.key), part)
    stop = threading.Event()

    def one(part: Part) -> Segment:
        return _segment(part, cache, progress, stop)

    if not parts:
        return {}
    # the largest first, so that it does not begin when all else is done; in this thread, whose memory costs least
    first, *others = sorted(parts, key=lambda name: -parts[name].size)
    with ThreadPoolExecutor(_helpers(), thread_name_prefix="segment") as pool:
        waiting = {name: pool.submit(one, parts[name]) for name in others}
        try:
            made = {first: one(parts[first])}
            for name, future in waiting.items():
                made[name] = one(parts[name]) if future.cancel() else future.result()
            return made
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _helpers() -> int:
    return max(1, min(_AT_ONCE_MAX, len(os.sched_getaffinity(0))) - 1)


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _segment(part: Part, cache: SegmentCache, progress: Progress, stop: threading.Event) -> Segment:
    assert part.key is not None
    task = progress.task(f"{part.location} {part.source}", part.size)

    def advance(count: int) -> None:
        if stop.is_set():
            raise CancelledError
        task.advance(count)

    with part.placed():
        segment, known = cache.cached(part.key, lambda: _read(part, part.read(advance)))
    task.done("cached" if known else units.size(segment.raw_size))
    return segment


def _read(part: Part, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of a part; one that no initrd can hold is a fault at the part's place in the spec."""
    for entry in entries:
        if (fault := cpio.too_large(entry)) is not None:
            fault.where = part.where
            raise fault
        yield entry


def _nobody(count: int) -> None:
    pass


def _join(
    ucode: Blob | None, segments: tuple[Segment, ...], cache: SegmentCache, store: Store, progress: Progress
) -> Blob:
    """The initrd: microcode, then every segment; taken as it is when the store has it from an earlier build."""
    parts = [*([store.blob_path(ucode.digest)] if ucode else []), *map(cache.path, segments)]
    raw_size = (ucode.size if ucode else 0) + sum(s.raw_size for s in segments)
    known = cache.joined(p.name for p in parts)
    if known is not None:
        return replace(known, raw_size=raw_size)
    task = progress.task("initrd", sum(p.stat().st_size for p in parts))
    with store.writer() as out:
        if ucode:
            whole = Tally(out)
            _append(store.blob_path(ucode.digest), whole, task.advance)
            _check(whole.digest == ucode.digest, store.blob_path(ucode.digest))
        for segment in segments:
            summed = Checksum(out)
            _append(cache.path(segment), summed, task.advance)
            _check(summed.crc == segment.crc, cache.path(segment))
        blob = replace(out.commit(), raw_size=raw_size)
    cache.remember_joined((p.name for p in parts), blob)
    task.done(units.size(blob.size))
    return blob


def _append(path: Path, out: Sink, count: Callable[[int], None]) -> None:
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            out.write(data)
            count(len(data))


def _check(whole: bool, path: Path) -> None:
    """A checksum is enough for segments: this program wrote them, and what a disk does to them is no attack."""
    if not whole:
        path.unlink()  # the next build makes it again
        raise PxeServerError(DAMAGED, f"{path} was damaged and is removed", hint="build again")
