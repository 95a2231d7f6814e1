"""Matches as level 5 of klauspost/compress finds them: a table of 4-byte and one of 7-byte hashes, the latter two deep.

A token is a literal (0 to 255) or a match (length << 16 | distance - 1, so at least 3 << 16).
"""

from __future__ import annotations

from struct import Struct

WINDOW = 65535  # bytes that are encoded together
_HISTORY = WINDOW * 5
_REACH = 1 << 15
_MARGIN = 11  # loads of 8 bytes stay inside
_LENGTH_MAX = 258
_LENGTH_BASE = 3
_P4 = 2654435761
_P7 = 58295818150454627
_MASK = (1 << 15) - 1
_u64 = Struct("<Q").unpack_from


def _common(data: bytearray, s: int, t: int, end: int) -> int:
    """How many bytes from `s` (up to `end`) equal those from `t`."""
    n = 0
    room = end - s
    while n + 32 <= room and data[s + n : s + n + 32] == data[t + n : t + n + 32]:
        n += 32
    while n < room and data[s + n] == data[t + n]:
        n += 1
    return n


class Matcher:
    """Tables and history of one independent block of the stream."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._base = WINDOW  # position of data[0]; entries of 0 are out of reach from the start
        self._short = [0] * (_MASK + 1)
        self._long = [0] * (_MASK + 1)
        self._older = [0] * (_MASK + 1)

    def forget(self) -> None:
        """Nothing seen so far can be matched any more."""
        self._base += _REACH + len(self._data)
        self._data = bytearray()

    def tokens(self, block: bytes) -> list[int]:
        """Tokens of the next `block` (up to WINDOW bytes); empty when it has no match at all."""
        data = self._data
        if len(data) + len(block) > _HISTORY:
            drop = len(data) - _REACH
            del data[:drop]
            self._base += drop
        start = len(data)
        data += block
        if len(block) < _MARGIN + 2:
            return []
        out: list[int] = []
        literals = self._run(data, start, out)
        if out:
            out.extend(data[literals:])
        return out

    def _run(self, data: bytearray, s: int, out: list[int]) -> int:
        """Append tokens up to the last match; where the literals begin that are left."""
        short, long, older, base = self._short, self._long, self._older, self._base
        size = len(data)
        limit = size - _MARGIN
        emitted = s
        value = _u64(data, s)[0]
        while True:
            following = s
            while True:
                at_short = (value * _P4 >> 17) & _MASK
                at_long = (value * _P7 >> 41) & _MASK
                s = following
                following = s + 1 + ((s - emitted) >> 6)
                if following > limit:
                    return emitted
                near = short[at_short]
                first, second = long[at_long], older[at_long]
                ahead = _u64(data, following)[0]
                short[at_short] = long[at_long] = s + base
                older[at_long] = first
                four = data[s : s + 4]
                t = first - base
                if s - t < _REACH:
                    found = self._by_long(data, s, t, second - base, four, following, ahead)
                    if found is not None:
                        t, length = found
                        break
                t = near - base
                if s - t < _REACH and four == data[t : t + 4]:
                    s, t, length = self._by_short(data, s, t, following, ahead)
                    break
                value = ahead
            if length == 0:
                length = _common(data, s + 4, t + 4, size) + 4
            elif length == _LENGTH_MAX:
                length += _common(data, s + length, t + length, size)
            s, t, length = self._better_at_end(data, s, t, length, limit)
            while t > 0 and s > emitted and data[t - 1] == data[s - 1]:
                s, t, length = s - 1, t - 1, length + 1
            if emitted < s:
                out.extend(data[emitted:s])
            _add_match(out, length, s - t - 1)
            s += length
            emitted = s
            if following >= s:
                s = following + 1
            if s >= limit:
                return emitted
            self._remember(data, s - length + 1, s - 1)
            back = _u64(data, s - 1)[0]
            short[(back * _P4 >> 17) & _MASK] = base + s - 1
            at = (back * _P7 >> 41) & _MASK
            older[at], long[at] = long[at], base + s - 1
            value = back >> 8

    def _store(self, ahead: int, position: int) -> None:
        self._short[(ahead * _P4 >> 17) & _MASK] = position
        at = (ahead * _P7 >> 41) & _MASK
        self._older[at], self._long[at] = self._long[at], position

    def _by_long(
        self, data: bytearray, s: int, t: int, t2: int, four: bytearray, following: int, ahead: int
    ) -> tuple[int, int] | None:
        """(match position, length or 0 if not yet measured) from the table of 7-byte hashes."""
        end = min(s + _LENGTH_MAX, len(data))
        if four == data[t : t + 4]:
            self._store(ahead, following + self._base)
            if s - t2 < _REACH and four == data[t2 : t2 + 4]:
                length = _common(data, s + 4, t + 4, end) + 4
                other = _common(data, s + 4, t2 + 4, end) + 4
                return (t2, other) if other > length else (t, length)
            return t, 0
        if s - t2 < _REACH and four == data[t2 : t2 + 4]:
            self._store(ahead, following + self._base)
            return t2, 0
        return None

    def _by_short(self, data: bytearray, s: int, t: int, following: int, ahead: int) -> tuple[int, int, int]:
        """A match of four bytes, or a longer one that begins at the next position."""
        length = _common(data, s + 4, t + 4, min(s + _LENGTH_MAX, len(data))) + 4
        at = (ahead * _P7 >> 41) & _MASK
        candidates = (self._long[at] - self._base, self._older[at] - self._base)
        self._store(ahead, following + self._base)
        four = data[following : following + 4]
        end = min(following + _LENGTH_MAX, len(data))
        if following - candidates[0] < _REACH:
            for t2 in candidates:
                if following - t2 < _REACH and data[t2 : t2 + 4] == four:
                    other = _common(data, following + 4, t2 + 4, end) + 4
                    if other > length:
                        return following, t2, other
        return s, t, length

    def _better_at_end(self, data: bytearray, s: int, t: int, length: int, limit: int) -> tuple[int, int, int]:
        """Look for a longer match by what follows a short one; its first two bytes may differ."""
        end = s + length
        if length >= 30 or end >= limit:
            return s, t, length
        known = self._long[(_u64(data, end)[0] * _P7 >> 41) & _MASK]
        t2 = known - self._base - length + 2
        s2 = s + 2
        if t2 >= 0 and 0 < s2 - t2 < _REACH:
            other = _common(data, s2, t2, len(data))
            if other > length:
                return s2, t2, other
        return s, t, length

    def _remember(self, data: bytearray, i: int, end: int) -> None:
        """Put positions inside a match into the tables: the first ones densely, then every third."""
        if i >= end:
            return
        short, long, older, base = self._short, self._long, self._older, self._base
        value = _u64(data, i)[0]
        self._store(value, base + i)
        at = ((value >> 8) * _P7 >> 41) & _MASK
        older[at], long[at] = long[at], base + i + 1
        short[((value >> 16) * _P4 >> 17) & _MASK] = base + i + 2
        for j in range(i + 4, end, 3):
            value = _u64(data, j)[0]
            at = (value * _P7 >> 41) & _MASK
            older[at], long[at] = long[at], base + j
            short[((value >> 8) * _P4 >> 17) & _MASK] = base + j + 1


def _add_match(out: list[int], length: int, distance: int) -> None:
    while length > 0:
        part = length
        if part > _LENGTH_MAX:
            # what is left over must still be long enough for a match
            part = _LENGTH_MAX if part > _LENGTH_MAX + _LENGTH_BASE else _LENGTH_MAX - _LENGTH_BASE
        length -= part
        out.append(part << 16 | distance)
