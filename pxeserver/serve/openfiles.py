"""Files to be sent, by descriptor. Machines that boot together ask for few, each in many parts: those are kept open."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

KEPT_SECONDS = 1.0  # a file that was replaced, by a repair of the store, is seen after that
KEPT_MAX = 64


class OpenFile:
    """A descriptor and the file's `size` in bytes; open until everybody who has it called `close`."""

    __slots__ = ("_takers", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = fd, size
        self._takers = 1

    @classmethod
    def at(cls, path: Path) -> Self:
        """Raises OSError, also for what is no regular file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # nobody waits for the other end of a pipe
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EISDIR, "not a file", str(path))
        return cls(fd, found.st_size)

    def take(self) -> Self:
        """For one more, who closes it as well."""
        self._takers += 1
        return self

    def close(self) -> None:
        self._takers -= 1
        if self._takers == 0:
            os.close(self.fd)


class OpenFiles:
    """`take(path)` opens a file, or gives one that was opened within the last second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Path, tuple[OpenFile, float]] = {}  # and until when; the oldest first

    def take(self, path: Path) -> OpenFile:
        """For the caller to close. Raises OSError."""
        now = self._clock()
        found = self._kept.get(path)
        if found is not None and now < found[1]:
            return found[0].take()
        self.sweep()
        file = OpenFile.at(path)
        if len(self._kept) < KEPT_MAX:
            self._kept[path] = file.take(), now + KEPT_SECONDS
        return file

    def sweep(self) -> None:
        """Let go of those that were opened more than a second ago: a file that was removed takes room no longer."""
        now = self._clock()
        for path in [path for path, (_, until) in self._kept.items() if until <= now]:
            self._kept.pop(path)[0].close()

    def close(self) -> None:
        """Let go of all."""
        for file, _ in self._kept.values():
            file.close()
        self._kept.clear()
