"""DEFLATE blocks (RFC 1951) with klauspost/compress's choices: when to store, to reuse a table, to make a new one."""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack

from pxeserver.images.pgzip import huffman

_EOB = 256
_LITERALS, _DISTANCES = 286, 30
_PENALTY = 7  # a new table must win by a 128th
_PREDEFINED = 250  # tokens below which the fixed table is tried
_HEADER_GUESS = 70 * 8
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_RUN_BITS = {16: 2, 17: 3, 18: 7}
_LENGTH_EXTRA = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4 + (0,)
_DISTANCE_EXTRA = (0, 0, 0, 0, *(n for n in range(1, 14) for _ in (0, 1)))


def _starts(extra: tuple[int, ...]) -> list[int]:
    out, at = [], 0
    for bits in extra:
        out.append(at)
        at += 1 << bits
    return out


_LENGTH_START = [*_starts(_LENGTH_EXTRA)[:-1], 255]  # length 258 has a code of its own
_DISTANCE_START = _starts(_DISTANCE_EXTRA)
_LENGTH_CODE = [max(c for c in range(29) if _LENGTH_START[c] <= n) for n in range(256)]
_DISTANCE_LOW = [max(c for c in range(30) if _DISTANCE_START[c] <= n) for n in range(256)]
_DISTANCE_HIGH = [max(c for c in range(30) if _DISTANCE_START[c] <= n << 7) for n in range(256)]
_FIXED_LITERALS, _FIXED_DISTANCES = huffman.fixed()
_HUFFMAN_ONLY = huffman.make([1] + [0] * (_DISTANCES - 1), 15)


def _distance_code(distance: int) -> int:
    return _DISTANCE_LOW[distance] if distance < 256 else _DISTANCE_HIGH[distance >> 7]


def _f32(value: float) -> float:
    """Rounded to single precision, as the estimate that decides is computed."""
    return float(unpack("f", pack("f", value))[0])


_A, _B, _C = _f32(-0.34484843), _f32(2.02466578), _f32(0.67487759)


def _cost(share: float) -> float:
    """Bits of a symbol of this share: a fast logarithm between 1 and 15, in single precision."""
    raw = int(unpack("i", pack("f", share))[0])
    exponent = float(((raw >> 23) & 255) - 128)
    mantissa = float(unpack("f", pack("I", (raw & 0x807FFFFF) + (127 << 23)))[0])
    p = _f32(_f32(_A * mantissa) + _B)
    q = _f32(_f32(p * mantissa) - _C)
    return min(max(-_f32(exponent + q), 1.0), 15.0)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Symbol counts of a block: literals and lengths (286), distances (30); `n` tokens."""

    literals: list[int]
    distances: list[int]
    n: int

    @property
    def extra(self) -> int:
        lengths = sum(n * bits for n, bits in zip(self.literals[257:], _LENGTH_EXTRA, strict=True))
        return lengths + sum(n * bits for n, bits in zip(self.distances, _DISTANCE_EXTRA, strict=True))

    def estimate(self) -> int:
        """Bits of an optimal coding; only good enough to compare."""
        shannon = 0.0
        share = _f32(1.0 / self.n)

        def add(n: int, share: float) -> None:
            nonlocal shannon
            shannon = _f32(shannon + _f32(_cost(_f32(n * share)) * n))

        for n in self.literals[:256]:
            if n:
                add(n, share)
        shannon = _f32(shannon + 15)
        matches = 0
        for n in self.literals[257:]:
            if n:
                add(n, share)
                matches += n
        if matches:
            share = _f32(1.0 / matches)
            for n in self.distances:
                if n:
                    add(n, share)
        return int(shannon) + self.extra


def _count(tokens: list[int], ends: bool, real_distances: bool) -> _Counts:
    literals, distances = [0] * _LITERALS, [0] * _DISTANCES
    for token in tokens:
        if token < 256:
            literals[token] += 1
        else:
            literals[257 + _LENGTH_CODE[(token >> 16) - 3]] += 1
            distances[_distance_code(token & 0xFFFF)] += 1
    literals[_EOB] = 1
    if not real_distances and not any(distances):
        distances[0] = 1
    return _Counts(literals, distances, len(tokens) + ends)


class Writer:
    """The bit stream of one independent block of the gzip stream."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._bits = 0
        self._filled = 0
        self._header = 0  # size of the table in use; 0: none, or its block has ended
        self._literals_only = False
        self._literals = _FIXED_LITERALS
        self._distances = _FIXED_DISTANCES

    def _put(self, value: int, size: int) -> None:
        self._bits |= value << self._filled
        self._filled += size
        if self._filled >= 512:
            self.out += (self._bits & ((1 << 512) - 1)).to_bytes(64, "little")
            self._bits >>= 512
            self._filled -= 512

    def _end_block(self) -> None:
        """The end mark that the table in use still owes."""
        if self._header:
            self._put(self._literals.code[_EOB], self._literals.length[_EOB])
            self._header = 0

    def flush(self) -> None:
        """Fill up to a whole byte."""
        self._end_block()
        size = (self._filled + 7) // 8
        self.out += self._bits.to_bytes(size, "little")
        self._bits = self._filled = 0

    def stored(self, data: bytes) -> None:
        self._end_block()
        self._put(0, 3)
        self.flush()
        self._put(len(data), 16)
        self._put(len(data) ^ 0xFFFF, 16)
        self.flush()
        self.out += data

    def finish(self) -> None:
        """The last block: empty, in the fixed table."""
        self._end_block()
        self._put(3, 3)
        self._put(0, 7)
        self.flush()

    def literals(self, data: bytes, sync: bool) -> None:
        """A block without matches, stored when that is as small."""
        counts = [0] * (_EOB + 1)
        for value in set(data):
            counts[value] = data.count(value)
        stored = (len(data) + 5) * 8
        if len(data) > 1024:
            mean, most = len(data) / 256, float(len(data) * 2)
            spread = 0.0
            for n in counts[:256]:
                spread += (n - mean) * (n - mean)
                if spread > most:
                    break
            if spread < most:
                self.stored(data)
                return
        counts[_EOB] = 1
        fresh = huffman.make(counts, 15)
        size = fresh.bits(counts) + (self._header or _HEADER_GUESS)
        size += size >> _PENALTY
        if stored <= size:
            self.stored(data)
            return
        reusable = self._header and self._literals.covers(counts[:256])
        if self._header and not (reusable and size >= self._literals.bits(counts[:256])):
            self._end_block()
        if not self._header:
            self._literals = fresh
            self._header = self._table(_EOB + 1, 1, fresh, _HUFFMAN_ONLY).write(self)
            self._literals_only = True
        code, length = self._literals.code, self._literals.length
        for value in data:
            self._put(code[value], length[value])
        if sync:
            self._end_block()
            self._literals_only = False

    def matches(self, tokens: list[int], data: bytes, sync: bool) -> None:
        """A block of tokens in the smallest form; `data` is what they stand for."""
        if self._literals_only and self._header:
            self._end_block()
            self._literals_only = False
        counts = _count(tokens, sync, real_distances=True)
        if self._header and not self._can_reuse(counts, sync):
            self._end_block()
        counts = _count(tokens, sync, real_distances=False)
        extra = counts.extra
        stored = (len(data) + 5) * 8
        if self._header and self._reuse(counts, extra, stored, tokens, data):
            return
        if not self._header and self._fresh(counts, extra, stored, tokens, data, sync):
            return
        self._tokens(tokens, self._literals, self._distances)
        if sync:
            self._put(self._literals.code[_EOB], self._literals.length[_EOB])
            self._header = 0

    def _can_reuse(self, counts: _Counts, sync: bool) -> bool:
        literals = list(counts.literals)
        literals[_EOB] = int(sync)
        return self._distances.covers(counts.distances) and self._literals.covers(literals)

    def _reuse(self, counts: _Counts, extra: int, stored: int, tokens: list[int], data: bytes) -> bool:
        """Go on with the table in use, or end it (header 0); True if the block is written already."""
        fresh = self._header + counts.estimate()
        fresh += self._literals.length[_EOB] + (fresh >> _PENALTY)
        size = self._literals.bits(counts.literals) + self._distances.bits(counts.distances) + extra
        if fresh < size:
            self._end_block()
            size = fresh
        if counts.n < _PREDEFINED and self._fixed_size(counts, extra) + 7 < size:
            self._small(stored, size, tokens, data)
            return True
        if stored <= size:
            self.stored(data)
            return True
        return False

    def _fresh(self, counts: _Counts, extra: int, stored: int, tokens: list[int], data: bytes, sync: bool) -> bool:
        """Make and write a new table; True if the block was written without one."""
        self._literals = huffman.make(counts.literals, 15)
        self._distances = huffman.make(counts.distances, 15)
        n_literals = max(i for i, n in enumerate(counts.literals) if n) + 1
        n_distances = max(i for i, n in enumerate(counts.distances) if n) + 1
        table = self._table(n_literals, n_distances, self._literals, self._distances)
        size = table.size + self._literals.bits(counts.literals) + self._distances.bits(counts.distances) + extra
        if counts.n < _PREDEFINED:
            fixed = self._fixed_size(counts, extra)
            if fixed <= size:
                self._small(stored, fixed, tokens, data)
                return True
        if stored <= size:
            self.stored(data)
            return True
        table.write(self)
        self._header = 0 if sync else table.size
        self._literals_only = False
        return False

    def _fixed_size(self, counts: _Counts, extra: int) -> int:
        return 3 + _FIXED_LITERALS.bits(counts.literals) + _FIXED_DISTANCES.bits(counts.distances) + extra

    def _small(self, stored: int, size: int, tokens: list[int], data: bytes) -> None:
        """Stored or in the fixed table, whichever is smaller."""
        if stored <= size:
            self.stored(data)
            return
        self._end_block()
        self._put(2, 3)
        self._tokens(tokens, _FIXED_LITERALS, _FIXED_DISTANCES)
        self._put(_FIXED_LITERALS.code[_EOB], _FIXED_LITERALS.length[_EOB])

    def _tokens(self, tokens: list[int], literals: huffman.Codes, distances: huffman.Codes) -> None:
        code, length, put = literals.code, literals.length, self._put
        for token in tokens:
            if token < 256:
                put(code[token], length[token])
                continue
            n = (token >> 16) - 3
            symbol = _LENGTH_CODE[n]
            size = length[257 + symbol]
            put(code[257 + symbol] | (n - _LENGTH_START[symbol]) << size, size + _LENGTH_EXTRA[symbol])
            distance = token & 0xFFFF
            symbol = _distance_code(distance)
            size = distances.length[symbol]
            extra = distance - _DISTANCE_START[symbol]
            put(distances.code[symbol] | extra << size, size + _DISTANCE_EXTRA[symbol])

    def _table(self, literals: int, distances: int, lit: huffman.Codes, dist: huffman.Codes) -> _Table:
        runs = _runs([*lit.length[:literals], *dist.length[:distances]])
        counts = [0] * 19
        for symbol, _ in runs:
            counts[symbol] += 1
        codes = huffman.make(counts, 7)
        n = 19
        while n > 4 and counts[_ORDER[n - 1]] == 0:
            n -= 1
        size = 3 + 5 + 5 + 4 + 3 * n + codes.bits(counts) + sum(counts[s] * bits for s, bits in _RUN_BITS.items())
        return _Table(literals, distances, n, runs, codes, size)

    def put_table(self, table: _Table) -> None:
        self._put(4, 3)
        self._put(table.literals - 257, 5)
        self._put(table.distances - 1, 5)
        self._put(table.n - 4, 4)
        for symbol in _ORDER[: table.n]:
            self._put(table.codes.length[symbol], 3)
        for symbol, rest in table.runs:
            self._put(table.codes.code[symbol], table.codes.length[symbol])
            if symbol in _RUN_BITS:
                self._put(rest, _RUN_BITS[symbol])


@dataclass(frozen=True, slots=True)
class _Table:
    """A dynamic block's header: RFC 1951 section 3.2.7."""

    literals: int
    distances: int
    n: int
    runs: list[tuple[int, int]]
    codes: huffman.Codes
    size: int

    def write(self, writer: Writer) -> int:
        writer.put_table(self)
        return self.size


def _runs(lengths: list[int]) -> list[tuple[int, int]]:
    """Code lengths with their repetitions put together: (symbol, what follows it)."""
    out: list[tuple[int, int]] = []
    i = 0
    while i < len(lengths):
        size, n = lengths[i], 1
        while i + n < len(lengths) and lengths[i + n] == size:
            n += 1
        i += n
        if size:
            out.append((size, 0))
            n -= 1
            while n >= 3:
                part = min(6, n)
                out.append((16, part - 3))
                n -= part
        else:
            while n >= 11:
                part = min(138, n)
                out.append((18, part - 11))
                n -= part
            if n >= 3:
                out.append((17, n - 3))
                n = 0
        out.extend([(size, 0)] * n)
    return out
