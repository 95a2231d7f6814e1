"""Compressors for initrds: named functions, output decided by content and version alone."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from pxeserver.errors import UsageError, did_you_mean
from pxeserver.images.writers import CHUNK, Rechunk, Sink

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    """`finish` once at the end: nothing is complete before."""

    def write(self, data: bytes, /) -> object: ...
    def finish(self) -> None: ...


class _Deflated:
    """Passes on what a library's compressor makes of each piece."""

    def __init__(self, compress: Callable[[bytes], bytes], sink: Sink) -> None:
        self._compress, self._sink = compress, sink

    def write(self, piece: bytes, /) -> None:
        self._sink.write(self._compress(piece))


class _Gzip:
    """One member in one stream, in the caller's thread: segments are made at once (initrd.py), not parts of one. Blocks
    for several threads take a third more CPU, as each sets its window up anew."""

    def __init__(self, sink: Sink) -> None:
        from isal import isal_zlib

        self._sink, self._stream = sink, isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=31)
        self._pieces = Rechunk(_Deflated(self._stream.compress, sink))
        self.write = self._pieces.write

    def finish(self) -> None:
        self._pieces.finish()
        self._sink.write(self._stream.flush())


class _Zstd:
    def __init__(self, sink: Sink) -> None:
        import zstandard

        # threads=1 is the multi-threaded encoder with one worker: its output is the same for any number of them
        encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=1, write_checksum=True)
        self._file = encoder.stream_writer(_Open(sink), closefd=False)  # type: ignore[arg-type]
        self._pieces = Rechunk(self._file)
        self.write = self._pieces.write

    def finish(self) -> None:
        self._pieces.finish()
        self._file.close()  # type: ignore[no-untyped-call]


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self.write = sink.write

    def finish(self) -> None:
        pass


class _Open:
    """What zstandard wants around a sink: the three methods of a file that it calls."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


KINDS: dict[str, tuple[Callable[[Sink], Compressor], str, str]] = {
    "gzip": (_Gzip, "isal", f"level {_GZIP_LEVEL} in one stream"),
    "zstd": (_Zstd, "zstandard", f"level {_ZSTD_LEVEL}"),
    "none": (_Plain, "", ""),
}


def compressor(kind: str, sink: Sink) -> Compressor:
    """UsageError "compress-unknown"."""
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
    """What decides the compressed bytes besides the content: 'gzip isal-1.9.1 level 2 in one stream'."""
    _, package, how = _kind(kind)
    return f"{kind} {package}-{importlib.import_module(package).__version__} {how}" if package else kind


def _kind(kind: str) -> tuple[Callable[[Sink], Compressor], str, str]:
    if kind not in KINDS:
        raise UsageError(
            "compress-unknown",
            f'no compression "{kind}"{did_you_mean(kind, KINDS)}',
            hint=f"known: {', '.join(KINDS)}",
        )
    return KINDS[kind]
