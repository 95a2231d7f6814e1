"""What archives are written to: anything with `write`. Copying in bounded memory, counting and hashing on the way."""

from __future__ import annotations

import hashlib
import io
from typing import Protocol, cast

from isal import isal_zlib

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import Entry, Readable

CHUNK = 256 * 1024


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Tally:
    """Passes bytes on, remembering how many and their sha256."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._sink.write(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class Checksum:
    """Passes bytes on, remembering how many and their CRC-32: it tells damage ten times faster than sha256 does."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = self.crc = 0

    def write(self, data: bytes, /) -> None:
        self.crc = isal_zlib.crc32(data, self.crc)
        self.size += len(data)
        self._sink.write(data)


class Rechunk:
    """Passes bytes on in pieces of exactly CHUNK (the last is shorter).

    A compressor's output may depend on how its input was cut; this makes it depend on the content alone.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes, /) -> None:
        if not self._size and len(data) == CHUNK:
            self._sink.write(data)
            return
        self._held.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            whole = memoryview(b"".join(self._held))
            end = self._size - self._size % CHUNK
            for start in range(0, end, CHUNK):
                self._sink.write(cast(bytes, whole[start : start + CHUNK]))  # a view spares a copy
            self._held = [bytes(whole[end:])]
            self._size -= end

    def finish(self) -> None:
        if self._size:
            self._sink.write(b"".join(self._held))
            self._held.clear()
            self._size = 0


def copy(source: Readable, sink: Sink, size: int, name: str) -> None:
    """Exactly `size` bytes; PxeServerError "file-changed" when the source has fewer (it shrank while it was read)."""
    try:
        left = size
        while left:
            data = source.read(min(CHUNK, left))
            if not data:
                raise PxeServerError("file-changed", f"{name} became shorter while it was read", hint="build again")
            sink.write(data)
            left -= len(data)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def content(entry: Entry) -> bytes:
    """A small file's content, whole."""
    kept = io.BytesIO()
    assert entry.open is not None
    copy(entry.open(), kept, entry.size, entry.name)
    return kept.getvalue()
