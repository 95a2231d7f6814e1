"""Archives as sources of base images: `docker save` and OCI archives, unpacked once into a layout of their own.

A tar cannot be read at any place, and layers must be: so an archive is taken into `cache/archives`, and taken again
only when its size or time changed. What was not used for a month goes away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pxeserver.errors import NotFound, UsageError
from pxeserver.images import oci, tarstore
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Progress
from pxeserver.images.store import Store
from pxeserver.linuxkit import reference

_KEEP_SECONDS = 30 * 86400
_CONTAINERD_NAME = "io.containerd.image.name"  # the whole name, where REF_NAME is the tag alone


def layout(path: Path, cache: Path, progress: Progress) -> Layout:
    """The images of the archive `path`, by their full references.

    UsageError "archive-bad", NotFound "source-not-found".
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise NotFound("source-not-found", f"cannot read {path}: {error.strerror}") from None
    stamp = f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    folder = cache / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "stamp"
        if not done.is_file() or done.read_text() != stamp:
            shutil.rmtree(folder, ignore_errors=True)
            _take(path, stat.st_size, Store(folder), progress)
            done.write_text(stamp)
        os.utime(done)
        _sweep(cache, time.time())
    return Layout(folder)


def _sweep(cache: Path, now: float) -> None:
    for done in cache.glob("*/stamp"):
        with contextlib.suppress(OSError):
            if now - done.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(done.parent)


def _take(path: Path, size: int, store: Store, progress: Progress) -> None:
    task = progress.task(f"unpack {path.name}", size)
    with path.open("rb") as file:
        files = tarstore.unpack(file, str(path), store, task.advance)
    for name, entry in _of_index(files, store):
        store.tag(name, entry)
    for image in tarstore.saved(files, store, str(path)):
        for name in {full for own in image.names for full in _names(own)}:
            if not store.named(name):
                store.write_base(name, image.config, image.layers, image.arch)
    if not store.list():
        raise UsageError(
            "archive-bad",
            f"{path} names no image",
            hint="docker save NAME:TAG -o FILE keeps the name, docker save ID does not",
        )
    task.done()


def _names(text: str) -> Iterator[str]:
    """The full references that a spec may use for the image that the archive calls `text`."""
    with contextlib.suppress(UsageError):
        full = reference.parse(text)
        yield str(full)
        if full.tag == "latest" and not full.digest:
            yield full.name


def _of_index(files: tarstore.Files, store: Store) -> Iterator[tuple[str, Descriptor]]:
    """Images of an OCI layout; a name that is a tag alone tells nothing, and is passed over."""
    index = tarstore.listed(files, "index.json", store)
    for entry in oci.descriptors(index or {}, "manifests"):
        name = entry.annotations.get(_CONTAINERD_NAME) or entry.ref
        if "/" in name or ":" in name:
            yield from ((full, entry) for full in _names(name))
