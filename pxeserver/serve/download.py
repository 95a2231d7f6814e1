"""A file on its way out: what the pump moves, and what became of it."""

from __future__ import annotations

from collections.abc import Callable

from pxeserver.serve.exchange import Sent
from pxeserver.serve.httpwire import Selected
from pxeserver.serve.openfiles import OpenFile


class Download:
    """A `filepump.Transfer` of the selected part of `file`, which it owns until `close`; `now` is the loop's time."""

    def __init__(
        self,
        fd: int,
        file: OpenFile,
        part: Selected,
        now: float,
        ended: Callable[[], None],
    ) -> None:
        self.fd, self.source = fd, file.fd
        self.offset, self.left = part.first, part.length
        self.moved, self.ended = now, ended
        self._file, self._part, self._began = file, part, now

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def out(self) -> int:
        """Bytes that went out."""
        return self.offset - self._part.first

    def sent(self, now: float) -> Sent:
        """What went out of the file."""
        return Sent(self._part.first, self.out, self._part.length, self._file.size, now - self._began)
