"""A boot's stages as bars: when each began, how long until the next, what was sent."""

from __future__ import annotations

from collections.abc import Sequence

from pxeserver.cli import output as out
from pxeserver.fleet.values import BootRecord
from pxeserver.model import STAGES, Result

WIDTH = 40  # characters of the bars


def show_timeline(boot: BootRecord, now: float) -> None:
    """One line a stage reached; bars on a terminal, offsets and durations in a pipe as well."""
    reached = [(stage, boot.stages[stage]) for stage in STAGES if stage in boot.stages]
    if not reached:
        out.note("nothing happened in this boot yet")
        return
    end = boot.ended if boot.result is not Result.OPEN and boot.ended else max(boot.last, now)
    total = max(end - boot.started, 0.001)
    rows = []
    for n, (stage, record) in enumerate(reached):
        until = reached[n + 1][1].at if n + 1 < len(reached) else end
        took = max(until - record.at, 0.0)
        sent = out.size(record.bytes) if record.bytes else ""
        rows.append((stage, record.at - boot.started, took, sent, str(record.count) if record.count > 1 else ""))
    if out.coloured():
        _bars(rows, total, boot.result)
        return
    out.table(
        ("STAGE", "AT", "TOOK", "BYTES", "TIMES"),
        ((stage, f"+{at:.1f}s", f"{took:.1f}s", sent, times) for stage, at, took, sent, times in rows),
    )


def _bars(rows: Sequence[tuple[str, float, float, str, str]], total: float, result: Result) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "right", "left", "right", "left"):
        grid.add_column(justify=justify)
    for n, (stage, at, took, sent, times) in enumerate(rows):
        last = n == len(rows) - 1
        left = int(at / total * WIDTH)
        width = max(1, round(took / total * WIDTH)) if not (last and result is Result.UP) else 1
        colour = {"up": "green", "stuck": "red"}.get(result, "cyan") if last else "blue"
        bar = Text(" " * min(left, WIDTH - 1)) + Text("█" * min(width, max(1, WIDTH - left)), style=colour)
        bar.pad_right(max(0, WIDTH - len(bar)))
        grid.add_row(
            Text(stage), Text(f"+{at:.1f}s"), bar, Text(f"{took:.1f}s"), Text(sent + (f" ×{times}" if times else ""))
        )
    out.console().print(grid)
