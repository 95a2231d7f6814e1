"""What is remembered of MACs: the last so many of them, each with what it did lately."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

from pxeserver.model import Recent

V = TypeVar("V")


class Table(OrderedDict[str, V]):
    """Remembers the last `maximum` keys written."""

    def __init__(self, maximum: int) -> None:
        super().__init__()
        self._maximum = maximum

    def remember(self, key: str, value: V) -> None:
        if key in self:
            self.move_to_end(key)
        elif len(self) >= self._maximum:
            self.popitem(last=False)
        self[key] = value


@dataclass(slots=True)
class Trail:
    """A Recent and what deciding does not need."""

    recent: Recent
    offered: str = ""  # the loader offered last
    action: str = ""  # of the last script
    peer: str = ""  # who asked for the first one
    image: str = ""  # that it loads
    rivals: frozenset[str] = frozenset()  # other servers that told it what to boot
    noted: float = 0.0  # when that was last written down


class Random:
    """os.urandom for few bytes at a time, by few calls of the kernel."""

    def __init__(self) -> None:
        self._read = BytesIO().read

    def __call__(self, count: int) -> bytes:
        some = self._read(count)
        if len(some) < count:
            self._read = BytesIO(os.urandom(64 * count)).read
            some = self._read(count)
        return some
