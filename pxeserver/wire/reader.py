"""Reading bytes without ever reading past their end: one reader, one error."""

from __future__ import annotations

from pxeserver.errors import UsageError


class WireError(UsageError):
    """Bytes that are not the packet they claim to be. The only exception that parsing in `wire/` raises."""

    def __init__(self, message: str) -> None:
        super().__init__("bad-packet", message)


class Reader:
    """A cursor over bytes; every read checks the bounds and raises WireError beyond them."""

    __slots__ = ("_data", "_end", "_name", "position")

    def __init__(self, data: bytes, name: str = "packet", position: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self._name = name
        self.position = position

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return self._end - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.position
        if count > self._end - start:
            raise WireError(f"{self._name} ends at byte {self._end}, {count} more wanted at byte {start}")
        self.position = start + count
        return self._data[start : start + count]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes, network order."""
        return int.from_bytes(self.take(2), "big")

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.left)

    def until_nul(self, *, open_end: bool = False) -> bytes:
        """The bytes up to the next NUL, which is skipped. With `open_end` the end of the data counts as a NUL too."""
        stop = self._data.find(0, self.position)
        if stop < 0:
            if not open_end:
                raise WireError(f"{self._name}: text at byte {self.position} has no end")
            return self.rest()
        out = self._data[self.position : stop]
        self.position = stop + 1
        return out
