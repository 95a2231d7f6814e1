"""Random changes of good inputs, where parsers slip: lengths, ends, numbers at the edge of their range."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

EDGES = bytes((0, 1, 2, 5, 15, 16, 17, 31, 32, 127, 128, 254, 255))
LENGTHS = (0, 1, 2, 3, 126, 127, 128, 253, 254, 255)
CODES = (12, 43, 43, 52, 53, 60, 61, 67, 77, 82, 93, 94, 97, 175)
WORDS = (
    b"../",
    b"..",
    b"\\",
    b"//",
    b"\xff",
    b"\x1f",
    b"\x7f",
    b"0",
    b"-",
    b":",
    b"bytes=",
    b"65464",
    b"%2e",
    b"%00",
    b"\r\n",
)


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """One to five changes."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        rng.choice(_CHANGES)(data, rng)
    return bytes(data)


def inputs(seeds: Sequence[bytes], rng: random.Random, count: int) -> Iterator[bytes]:
    """The seeds, then so many changed ones."""
    yield from seeds
    for _ in range(count):
        yield mutated(rng.choice(seeds), rng)


def _edge(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(EDGES)


def _bump(data: bytearray, rng: random.Random) -> None:
    if data:
        at = rng.randrange(len(data))
        data[at] = (data[at] + rng.choice((-1, 1))) % 256


def _head(data: bytearray, rng: random.Random) -> None:
    """The first bytes decide most."""
    if data:
        data[rng.randrange(min(4, len(data)))] = rng.choice(EDGES + bytes((0x40, 0x44, 0x46, 0x4F)))


def _drop(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.randrange(1, 5)]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(WORDS) if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 5))


def _cut(data: bytearray, rng: random.Random) -> None:
    """Off at the end: anywhere, or at the edge of DHCP's header."""
    del data[rng.choice((rng.randrange(len(data) + 1), 239, 240, 241, 242)) :]


def _option(data: bytearray, rng: random.Random) -> None:
    """A DHCP option of an edgy length before the others; often one that is there already, so that both are joined."""
    length = rng.choice(LENGTHS)
    data[240:240] = bytes((rng.choice(CODES), length)) + rng.randbytes(length)


def _double(data: bytearray, rng: random.Random) -> None:
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 20)
    data[at:at] = data[at : at + length]


_CHANGES = (_edge, _bump, _head, _drop, _insert, _cut, _option, _double)
