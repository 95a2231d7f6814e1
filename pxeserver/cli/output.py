"""What verbs print: data on stdout, talk on stderr; tables with colour on a terminal, plain text in a pipe.

@output_option
def ls(output: str) -> None:
    rows = ...frozen values...
    emit(rows, output, lambda: table(("NAME", "AGE"), ((r.name, age(r.at)) for r in rows), empty="no images"))
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from pxeserver.units import age as age
from pxeserver.units import duration as duration
from pxeserver.units import size as size
from pxeserver.units import when as when

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., object])

# the colour of words that mean the same in every table
_COLOURS = {
    "up": "green",
    "open": "cyan",
    "booting": "cyan",
    "waiting": "yellow",
    "queued": "yellow",
    "network-only": "yellow",
    "stuck": "bold red",
    "replaced": "dim",
    "local": "dim",
    "never": "dim",
    "-": "dim",
}


def output_option(function: F) -> F:
    """`-o table|json`, passed as `output`."""
    kinds = click.Choice(["table", "json"])
    return click.option("-o", "--output", type=kinds, default="table", show_default=True, help="Form of the output.")(
        function
    )


def coloured() -> bool:
    """Colour and bars are wanted: stdout is a terminal that has them, and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"


def console() -> Console:
    """A rich console for stdout (imported here: a pipe needs none of it)."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def emit(value: object, output: str, show: Callable[[], None]) -> None:
    """`json`: the REST form of `value`; `table`: whatever `show` prints."""
    if output == "json":
        write_json(value)
    else:
        show()


def write_json(value: object) -> None:
    """The same names and forms as the REST API sends."""
    from pxeserver.serial import to_json

    click.echo(json.dumps(to_json(value), indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Rows under `columns`; without rows the note `empty` on stderr. Cells: None and "" show as -."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        if empty:
            note(empty)
        return
    if coloured():
        _rich_table(columns, cells)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """'name   web-1' lines; pairs whose value is None or "" are left out; more lines of a value are indented."""
    shown = [(name, str(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = value.splitlines() or [""]
        label = click.style(name.ljust(width), dim=True) if coloured() else name.ljust(width)
        click.echo(f"{label}  {paint(first)}")
        for line in rest:
            click.echo(" " * (width + 2) + line)


def paint(word: str) -> str:
    """A state word in its colour, when colour is wanted."""
    colour = _COLOURS.get(word, "")
    if not colour or not coloured():
        return word
    name = colour.removeprefix("bold ")
    return click.style(word, dim=True) if colour == "dim" else click.style(word, fg=name, bold=colour != name)


def note(text: str) -> None:
    """Talk: on stderr, never mixed into the data."""
    click.echo(text, err=True)


def say(text: str = "") -> None:
    """A line of the answer itself, on stdout."""
    click.echo(text)


def utc(at: float) -> str:
    """RFC 3339 as in JSON; for lines that a program may read."""
    from pxeserver.when import rfc3339

    return rfc3339(at) or "never"


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    for line in cells:
        grid.add_row(*(Text(text, style=_COLOURS.get(text, "")) for text in line))
    console().print(grid)
