"""Compressors for initrds: named functions, output decided by content and version alone."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import IO, BinaryIO, Protocol, cast

from pxeserver.errors import UsageError, did_you_mean
from pxeserver.images.writers import CHUNK, Rechunk, Sink

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    def write(self, data: bytes, /) -> object: ...
    def finish(self) -> None: ...


class _Member:
    """One compressed member around a file-like writer of a library."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pieces = Rechunk(file)
        self.write = self._pieces.write

    def finish(self) -> None:
        self._pieces.finish()
        self._file.close()


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self.write = sink.write

    def finish(self) -> None:
        pass


class _Open:
    """What the libraries want around a sink: the three methods of a file that they call."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _gzip(sink: Sink) -> Compressor:
    from isal import igzip_threaded

    # one thread beside ours: compressing overlaps with reading and hashing
    file = igzip_threaded.open(_Open(sink), "wb", compresslevel=_GZIP_LEVEL, threads=1)  # type: ignore[no-untyped-call]
    return _Member(file)


def _zstd(sink: Sink) -> Compressor:
    import zstandard

    # threads=1 is the multi-threaded encoder with one worker: its output is the same for any number of them
    encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=1, write_checksum=True)
    return _Member(encoder.stream_writer(_Open(sink), closefd=False))  # type: ignore[arg-type]


KINDS: dict[str, tuple[Callable[[Sink], Compressor], str, int]] = {
    "gzip": (_gzip, "isal", _GZIP_LEVEL),
    "zstd": (_zstd, "zstandard", _ZSTD_LEVEL),
    "none": (_Plain, "", 0),
}


def compressor(kind: str, sink: Sink) -> Compressor:
    """Call `finish` once at the end; nothing is complete before. UsageError "compress-unknown"."""
    return _kind(kind)[0](sink)


def opened(file: io.BufferedReader) -> BinaryIO:
    """What `file` holds, unpacked if one of the compressors above made it; several members read as one.

    Told by the first bytes, not by a media type: registries hold both under either name.
    """
    start = file.peek(4)[:4]
    if start.startswith(b"\x1f\x8b"):
        from isal import igzip

        return cast(BinaryIO, igzip.open(file, "rb"))  # type: ignore[no-untyped-call]
    if start == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, reader), CHUNK))
    return cast(BinaryIO, file)


def label(kind: str) -> str:
    """What decides the compressed bytes besides the content: 'gzip isal-1.9.1 level 2'."""
    _, package, level = _kind(kind)
    return f"{kind} {package}-{importlib.import_module(package).__version__} level {level}" if package else kind


def _kind(kind: str) -> tuple[Callable[[Sink], Compressor], str, int]:
    if kind not in KINDS:
        raise UsageError(
            "compress-unknown",
            f'no compression "{kind}"{did_you_mean(kind, KINDS)}',
            hint=f"known: {', '.join(KINDS)}",
        )
    return KINDS[kind]
