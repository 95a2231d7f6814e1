"""Progress on stderr: bars on a terminal, one line for each finished task in a pipe or a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pxeserver.images.progress import Progress, Silent, Task
from pxeserver.units import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Rich
    from rich.progress import TaskID


@contextlib.contextmanager
def drawn(quiet: bool = False) -> Iterator[Progress]:
    """The progress for a command; `quiet`: warnings only."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb":
        with _rich() as rich:
            yield _Bars(rich)
    else:
        yield _Lines()


def _rich() -> Rich:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=2)),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        transient=True,
        expand=True,
    )


class _Bars:
    def __init__(self, rich: Rich) -> None:
        self._rich = rich

    def task(self, name: str, total: int | None = None) -> Task:
        return _Bar(self._rich, name, self._rich.add_task(name, total=total or None))

    def say(self, text: str) -> None:
        self._rich.console.print(text)


class _Bar:
    """A bar while it runs; then a line that stays."""

    def __init__(self, rich: Rich, name: str, ident: TaskID) -> None:
        self._rich, self._name, self._ident = rich, name, ident

    def advance(self, n: int) -> None:
        self._rich.advance(self._ident, n)

    def done(self, text: str = "") -> None:
        self._rich.remove_task(self._ident)
        self._rich.console.print(_finished(self._name, text))


class _Lines:
    def task(self, name: str, total: int | None = None) -> Task:
        return _Line(name)

    def say(self, text: str) -> None:
        click.echo(text, err=True)


class _Line:
    def __init__(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()

    def advance(self, n: int) -> None:
        pass

    def done(self, text: str = "") -> None:
        took = time.monotonic() - self._began
        seconds = f"  ({duration(took)})" if took >= 1 else ""
        click.echo(_finished(self._name, text) + seconds, err=True)


class _Quiet(Silent):
    def say(self, text: str) -> None:
        click.echo(text, err=True)


def _finished(name: str, text: str) -> str:
    return f"{name}: {text}" if text else name
