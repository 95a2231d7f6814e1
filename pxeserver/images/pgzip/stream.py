"""The gzip stream: independent blocks of 1 MiB, each knowing the last 16 KiB of the one before."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from pxeserver.images.pgzip.blocks import Writer
from pxeserver.images.pgzip.match import WINDOW, Matcher

_BLOCK = 1 << 20
_TAIL = 16384
# gzip, deflate, no flags; the time is the low half of Go's zero time; unknown system (RFC 1952)
_HEADER = bytes.fromhex("1f8b080000096e8800ff")


def compress(data: Iterable[bytes]) -> Iterator[bytes]:
    """The compressed stream of `data`, piece by piece. About 1 s of CPU per MiB."""
    yield _HEADER
    check = size = 0
    pending, tail = bytearray(), b""
    for piece in data:
        check = zlib.crc32(piece, check)
        size += len(piece)
        pending += piece
        while len(pending) >= _BLOCK:
            block = bytes(pending[:_BLOCK])
            del pending[:_BLOCK]
            yield _compressed(block, tail, last=False)
            tail = block[-_TAIL:]
    yield _compressed(bytes(pending), tail, last=True)
    yield check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _compressed(block: bytes, tail: bytes, *, last: bool) -> bytes:
    matcher, writer = Matcher(), Writer()
    matcher.tokens(tail)
    for at in range(0, len(block), WINDOW):
        part = block[at : at + WINDOW]
        sync = at + WINDOW >= len(block)
        if len(part) < 128:
            if len(part) <= 32:
                writer.stored(part)
            else:
                writer.literals(part, sync=True)
            continue
        tokens = matcher.tokens(part)
        if not tokens:
            writer.stored(part)
        elif len(tokens) > len(part) - (len(part) >> 4):
            writer.literals(part, sync)
        else:
            writer.matches(tokens, part, sync)
    writer.stored(b"")
    writer.flush()
    if last:
        writer.finish()
    return bytes(writer.out)
