"""Length-limited Huffman codes, with the ties broken as klauspost/compress breaks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Codes:
    """For each symbol its code, bits reversed as RFC 1951 sends them, and its length (0: no code)."""

    code: tuple[int, ...]
    length: tuple[int, ...]

    def bits(self, counts: Sequence[int]) -> int:
        """How many bits that many of each symbol take."""
        return sum(n * size for n, size in zip(counts, self.length, strict=False) if n)

    def covers(self, counts: Sequence[int]) -> bool:
        return all(size for n, size in zip(counts, self.length, strict=False) if n)


def make(counts: Sequence[int], longest: int) -> Codes:
    """The codes for these symbol counts, none longer than `longest` bits."""
    used = [symbol for symbol, n in enumerate(counts) if n]
    lengths = [0] * len(counts)
    if len(used) <= 2:
        code = [0] * len(counts)
        for i, symbol in enumerate(used):
            code[symbol], lengths[symbol] = i, 1
        return Codes(tuple(code), tuple(lengths))
    used.sort(key=lambda symbol: counts[symbol])
    per_length = _per_length([counts[symbol] for symbol in used], min(longest, len(used) - 1))
    end = len(used)
    for size, n in enumerate(per_length):
        for symbol in used[end - n : end]:
            lengths[symbol] = size
        end -= n
    return canonical(lengths, per_length)


def canonical(lengths: Sequence[int], per_length: Sequence[int]) -> Codes:
    """RFC 1951 section 3.2.2: codes of one length follow each other in the order of their symbols."""
    following = [0] * len(per_length)
    code = 0
    for size in range(1, len(per_length)):
        code = (code + per_length[size - 1]) << 1
        following[size] = code
    out = [0] * len(lengths)
    for symbol, size in enumerate(lengths):
        if size:
            out[symbol] = int(f"{following[size]:0{size}b}"[::-1], 2)
            following[size] += 1
    return Codes(tuple(out), tuple(lengths))


def _per_length(weights: list[int], longest: int) -> list[int]:
    """[n] = how many symbols get n bits: package-merge, a package going before a leaf of the same weight."""
    levels: list[list[bool]] = []  # of each level, is the item a leaf
    row = weights
    kinds = [True] * len(weights)
    levels.append(kinds)
    for _ in range(longest - 1):
        packages = [row[i] + row[i + 1] for i in range(0, len(row) - 1, 2)]
        row, kinds = [], []
        leaf = package = 0
        while leaf < len(weights) or package < len(packages):
            take = package == len(packages) or (leaf < len(weights) and weights[leaf] < packages[package])
            kinds.append(take)
            if take:
                row.append(weights[leaf])
                leaf += 1
            else:
                row.append(packages[package])
                package += 1
        levels.append(kinds)
    wanted = 2 * len(weights) - 2
    leaves = []
    for kinds in reversed(levels):
        here = sum(kinds[:wanted])
        leaves.append(here)
        wanted = 2 * (wanted - here)
    leaves.append(0)
    return [0] + [leaves[i] - leaves[i + 1] for i in range(longest)]


def fixed() -> tuple[Codes, Codes]:
    """The literal and distance codes of RFC 1951 section 3.2.6 (286 and 30 symbols of them)."""
    sizes = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
    counts = [sizes.count(n) for n in range(10)]
    literals = canonical(sizes, counts)
    distances = canonical([5] * 32, [0, 0, 0, 0, 0, 32])
    return Codes(literals.code[:286], literals.length[:286]), Codes(distances.code[:30], distances.length[:30])
