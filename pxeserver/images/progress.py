"""How long work tells about itself; what draws it lives in cli/."""

from __future__ import annotations

from typing import Protocol


class Task(Protocol):
    def advance(self, n: int) -> None:
        """`n` more bytes (or steps) are done. May be called from any thread."""

    def done(self, text: str = "") -> None:
        """The task has ended; `text` says how ("cached", "75.2 MiB")."""


class Progress(Protocol):
    def task(self, name: str, total: int | None = None) -> Task:
        """A new line of progress; `total` in bytes (or steps), None = not known. May be called from any thread."""

    def say(self, text: str) -> None:
        """A sentence for a person: a warning, a retry."""


class _Quiet:
    def advance(self, n: int) -> None:
        pass

    def done(self, text: str = "") -> None:
        pass


class Silent:
    """Progress that nobody looks at."""

    def task(self, name: str, total: int | None = None) -> Task:
        return _Quiet()

    def say(self, text: str) -> None:
        pass
