"""Compressors: round trips, and the same bytes however the input was cut."""

from __future__ import annotations

import errno
import gzip
import io
import random

import pytest
import zstandard

from pxeserver.errors import UsageError
from pxeserver.images import compress

DATA = random.Random(5).randbytes(300_000) + b"abc" * 400_000
PLAIN = {
    "gzip": gzip.decompress,
    "zstd": lambda d: zstandard.ZstdDecompressor().decompressobj().decompress(d),
    "none": bytes,
}


def packed(kind: str, sizes: list[int]) -> bytes:
    out = io.BytesIO()
    writer = compress.compressor(kind, out)
    at = 0
    while at < len(DATA):
        size = sizes[at % len(sizes)]
        writer.write(DATA[at : at + size])
        at += size
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize("kind", list(compress.KINDS))
def test_the_bytes_depend_on_the_content_alone(kind: str) -> None:
    one = packed(kind, [len(DATA)])
    assert one == packed(kind, [4096]) == packed(kind, [7, 100_003, 512, 300_000])
    assert PLAIN[kind](one) == DATA
    assert len(one) < len(DATA) or kind == "none"


def test_gzip_carries_no_time_and_no_name() -> None:
    assert packed("gzip", [65536])[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@pytest.mark.parametrize("kind", list(compress.KINDS))
def test_an_empty_member_is_a_member(kind: str) -> None:
    out = io.BytesIO()
    compress.compressor(kind, out).finish()
    assert PLAIN[kind](out.getvalue()) == b""


class Full:
    def write(self, data: bytes, /) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", list(compress.KINDS))
def test_a_full_disk_is_heard_of(kind: str) -> None:
    writer = compress.compressor(kind, Full())
    with pytest.raises(OSError, match="No space"):
        writer.write(DATA)
        writer.finish()


def test_the_label_names_what_decides_the_bytes() -> None:
    assert compress.label("none") == "none"
    assert compress.label("gzip").startswith("gzip isal-")
    with pytest.raises(UsageError, match='no compression "gzipp" - did you mean "gzip"'):
        compress.label("gzipp")
