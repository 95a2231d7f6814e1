"""Compressors for initrds: named functions, output decided by content and version alone."""

from __future__ import annotations

import importlib
import io
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from pxeserver.errors import UsageError, did_you_mean
from pxeserver.images.writers import CHUNK, Rechunk, Sink

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_AHEAD = 4  # pieces that wait for the thread that compresses


class Compressor(Protocol):
    """`finish` once at the end: nothing is complete before. `close` in any case, so that no thread stays."""

    def write(self, data: bytes, /) -> object: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class _Beside:
    """A sink whose work is done by a thread of its own, a few pieces behind; its fault is raised by a later call."""

    def __init__(self, work: Callable[[bytes], object]) -> None:
        self._work = work
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="compress", daemon=True)
        self._thread.start()

    def write(self, piece: bytes, /) -> None:
        if self._fault is not None:
            raise self._fault
        self._waiting.put(piece)

    def _run(self) -> None:
        while (piece := self._waiting.get()) is not None:
            try:
                if self._fault is None:
                    self._work(piece)
            except Exception as error:
                self._fault = error

    def finish(self) -> None:
        self.close()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()


class _Gzip:
    """One member in one stream. Blocks for several threads would cost a third more CPU: each needs its own window."""

    def __init__(self, sink: Sink) -> None:
        from isal import isal_zlib

        self._sink, self._stream = sink, isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=31)
        self._beside = _Beside(lambda piece: sink.write(self._stream.compress(piece)))
        self._pieces = Rechunk(self._beside)
        self.write = self._pieces.write

    def finish(self) -> None:
        self._pieces.finish()
        self._beside.finish()
        self._sink.write(self._stream.flush())

    def close(self) -> None:
        self._beside.close()


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

    def close(self) -> None:
        pass


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self.write = sink.write

    def finish(self) -> None:
        pass

    def close(self) -> None:
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
