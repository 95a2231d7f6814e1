"""Segments: compressed cpio archives, each complete with its own trailer, that an initrd is put together from.

A base image's part of the tree is cached under what it depends on; small generated parts are made anew each time. What
stands below boot/ is not for the initrd: kernel and microcode go into the store, the command line is remembered.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pxeserver.images import compress, kernel, oci
from pxeserver.images.cpio import CpioWriter
from pxeserver.images.entry import FILE, Entry
from pxeserver.images.store import Store, new_file, remove_abandoned
from pxeserver.images.writers import CHUNK, Checksum, Rechunk, Sink, Tally, content, copy
from pxeserver.model import Blob

APK_DATABASE = "lib/apk/db/installed"
SPEC_CMDLINE = b"\0"  # stands for the spec's own command line, so that changing it does not change the kernel's segment
_FORMAT = 3  # of what a segment's bytes depend on beyond its key; count up when flattening or writing changes
_KEEP_SECONDS = 30 * 86400


@dataclass(frozen=True, slots=True)
class Segment:
    """`size` and `crc` (CRC-32) of the compressed file, `raw_*` of the cpio in it; what else its entries gave.

    `apk` is the file's content.
    """

    size: int
    crc: int
    raw_digest: str
    raw_size: int
    kernel: Blob | None = None
    ucode: Blob | None = None
    cmdline: bytes | None = None
    apk: bytes | None = None

    @property
    def empty(self) -> bool:
        return self.raw_size == 0


class SegmentCache:
    """Segments on disk. Two builds at once may make the same one; the bytes are the same, whoever renames last."""

    def __init__(self, folder: Path, store: Store, compression: str) -> None:
        self._folder, self._store, self._compression = folder, store, compression
        self.label = compress.label(compression)

    def path(self, segment: Segment) -> Path:
        """Its file, by what decides the bytes in it: content and compressor."""
        return self._folder / hashlib.sha256(f"{segment.raw_digest} {self.label}".encode()).hexdigest()

    def cached(self, key: Mapping[str, Any], entries: Callable[[], Iterable[Entry]]) -> tuple[Segment, bool]:
        """The segment of `entries()`, made only if none is kept for `key` (JSON values); and whether one was."""
        full = {**key, "format": _FORMAT, "compression": self.label}
        file = self._folder / (hashlib.sha256(oci.dump(full)).hexdigest() + ".json")
        known = self._load(file)
        if known is not None:
            return known, True
        made = self.make(entries())
        self._save(file, made)
        return made, False

    def make(self, entries: Iterable[Entry]) -> Segment:
        """Write a segment; without any entry no file is written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fd, temporary = new_file(self._folder)
        try:
            with os.fdopen(fd, "wb", buffering=CHUNK) as file:
                os.fchmod(fd, 0o644)
                compressed = Checksum(file)
                writer = _Writer(compressed, self._compression, self._store)
                for entry in entries:
                    writer.add(entry)
                segment = writer.finish()
                segment = replace(segment, size=compressed.size, crc=compressed.crc)
                if not segment.empty:
                    file.flush()
                    temporary.rename(self.path(segment))
            return segment
        finally:
            temporary.unlink(missing_ok=True)

    def _load(self, file: Path) -> Segment | None:
        """None unless all of it is there: the segment's file, and the kernel and microcode in the store."""
        try:
            body = json.loads(file.read_bytes())
            segment = Segment(**{k: _FROM_JSON.get(k, _same)(v) for k, v in body.items()})
            if not segment.empty and self.path(segment).stat().st_size != segment.size:
                return None
        except (OSError, ValueError, TypeError):
            return None
        if any(b is not None and not self._store.has(b.digest) for b in (segment.kernel, segment.ucode)):
            return None
        for used in (file, self.path(segment)):
            with contextlib.suppress(OSError):
                os.utime(used)
        return segment

    def _save(self, file: Path, segment: Segment) -> None:
        body = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in asdict(segment).items()}
        self._replace(file, oci.dump(body))

    def _replace(self, file: Path, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        fd, temporary = new_file(self._folder)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(fd, 0o644)
            out.write(data)
            out.flush()
            temporary.rename(file)

    def joined(self, names: Iterable[str]) -> Blob | None:
        """The initrd that was put together from files of these names, if the store still has it."""
        try:
            blob = Blob(**json.loads(self._joined_file(names).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return blob if self._store.has(blob.digest) else None

    def remember_joined(self, names: Iterable[str], blob: Blob) -> None:
        self._replace(self._joined_file(names), oci.dump(asdict(blob)))

    def _joined_file(self, names: Iterable[str]) -> Path:
        return self._folder / (hashlib.sha256("".join(names).encode()).hexdigest() + ".initrd.json")

    def sweep(self, now: float) -> None:
        """Remove what no build has used for a month, and what killed builds left behind."""
        every = list(self._folder.iterdir()) if self._folder.is_dir() else []
        remove_abandoned(path for path in every if path.name.startswith("new-"))
        for path in every:
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _KEEP_SECONDS:
                    path.unlink()


def _same(value: Any) -> Any:
    return value


def _bytes(value: Any) -> bytes | None:
    return None if value is None else base64.b64decode(value)


def _blob(value: Any) -> Blob | None:
    return None if value is None else Blob(**value)


_FROM_JSON: dict[str, Callable[[Any], Any]] = {"kernel": _blob, "ucode": _blob, "cmdline": _bytes, "apk": _bytes}


class _Writer:
    """Sorts entries: boot/ aside, the rest into a cpio that is begun with the first entry."""

    def __init__(self, out: Sink, compression: str, store: Store) -> None:
        self._out, self._compression, self._store = out, compression, store
        self._raw: Tally | None = None
        self._segment = Segment(0, 0, "", 0)

    def add(self, entry: Entry) -> None:
        if entry.name.startswith("boot/"):
            self._aside(entry)
            return
        if entry.name == APK_DATABASE and entry.kind == FILE:
            data = content(entry)
            self._segment = replace(self._segment, apk=data)
            entry = entry._replace(open=lambda: io.BytesIO(data))
        if self._raw is None:
            self._compressor = compress.compressor(self._compression, self._out)
            self._raw = Tally(self._compressor)
            self._pieces = Rechunk(self._raw)  # hashing a few large pieces costs less than many small ones
            self._cpio = CpioWriter(self._pieces)
        self._cpio.add(entry)

    def finish(self) -> Segment:
        if self._raw is None:
            return self._segment
        self._cpio.finish()
        self._pieces.finish()
        self._compressor.finish()
        return replace(self._segment, raw_digest=self._raw.digest, raw_size=self._raw.size)

    def _aside(self, entry: Entry) -> None:
        """The last one of each name counts, as in LinuxKit; other files below boot/ are dropped."""
        if entry.kind != FILE:
            return
        if entry.name == kernel.CMDLINE:
            self._segment = replace(self._segment, cmdline=content(entry))
        elif entry.name in (kernel.KERNEL, kernel.UCODE):
            assert entry.open is not None
            with self._store.writer() as blob:
                copy(entry.open(), blob, entry.size, entry.name)
                made = blob.commit()
            if entry.name == kernel.KERNEL:
                self._segment = replace(self._segment, kernel=made)
            else:
                self._segment = replace(self._segment, ucode=made)
