"""`pxeserver demo`: the whole way on this host, watched."""

from __future__ import annotations

import contextlib
import html
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.model import STAGES, Stage
from pxeserver.units import size

if TYPE_CHECKING:
    from rich.spinner import Spinner
    from rich.table import Table

    from pxeserver.fleet.values import BootRecord
    from pxeserver.local.demo import Running

SAYS = {
    Stage.OFFER: "the proxyDHCP offer beside the site's own DHCP server",
    Stage.LOADER: "the boot loader by TFTP",
    Stage.SCRIPT: "this machine's own script by HTTP",
    Stage.KERNEL: "the kernel",
    Stage.INITRD: "the initrd",
    Stage.NETWORK: "the booted system asks for its address",
    Stage.CONTAINERD: "containerd runs",
    Stage.UP: "its services run",
}


@click.command()
@click.option("--once", is_flag=True, help="End as soon as the machine is up (exit 0) or will not come up.")
@click.option("--uefi", is_flag=True, help="A UEFI machine; BIOS by default.")
@click.option("--spec", default="web", show_default=True, help="Spec to boot: the name of a known one, or a file.")
@click.option("--mem", type=click.IntRange(128), default=1024, show_default=True, help="The machine's memory in MiB.")
@pass_context
def demo(context: Context, once: bool, uefi: bool, spec: str, mem: int) -> None:
    """Boot a diskless machine in a private network on this host (root).

    Builds the base images and the spec, starts a foreign DHCP server, this server and a machine with an ordinary PXE
    ROM in network namespaces, and shows the boot until the machine is up. Nothing of it stays but the data folder.
    """
    from pxeserver.cli.progress import drawn
    from pxeserver.local import demo as local
    from pxeserver.local.demo_prepare import prepare
    from pxeserver.local.qemu import Hardware

    data = context.config.data
    with ended_by_signals():
        with drawn() as progress:
            image = prepare(context.config, spec, progress)
        out.say(f"{image.short}: kernel {size(image.kernel.size)}, initrd {size(image.initrd.size)}")
        with local.running(data, image.spec, Hardware(uefi=uefi, rom="" if uefi else None, memory_mib=mem)) as site:
            out.say(f"page: {site.url}  (machine {site.machine.name}, {site.mac})")
            watch(site)
            url, page = site.page()
            out.say(f"\n{url} in the private network says:\n")
            out.say(as_text(page.decode(errors="replace")))
            if not once:
                out.say(f"\nThe machine stays up until Ctrl-C; look at {site.url}")
                with contextlib.suppress(KeyboardInterrupt):
                    signal.pause()
        out.say("network, server and machine are gone; images stay in " + str(data))


def as_text(page: str) -> str:
    """A small HTML page for a terminal: a line per heading, paragraph and table row."""
    body = re.sub(r"(?is)<(style|script|title)\b.*?</\1>", "", page)
    rows = re.split(r"(?i)</?(?:h[1-6]|p|div|tr|li|br|table|ul)\b[^>]*>", body)
    words = (html.unescape(re.sub(r"<[^>]+>", " ", row)).split() for row in rows)
    return "\n".join("  " + " ".join(line) for line in words if line)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that nothing is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        out.note("interrupted")
        sys.exit(130)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(site: Running) -> None:
    """Draw the boot until the machine is up: a live table on a terminal, a line per stage in a pipe."""
    with drawing(site.started) as show:
        for record in site.follow():
            show(record)


@contextlib.contextmanager
def drawing(started: float) -> Iterator[Callable[[BootRecord | None], None]]:
    """What to call with each state of the boot; `started` is the power-on in Unix seconds."""
    if not out.coloured():
        yield Lines(started)
        return
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots", style="cyan")
    with Live(console=out.console(), refresh_per_second=8) as live:
        yield lambda record: live.update(_timeline(record, started, spinner))


class Lines:
    """One line per stage, once, when it was reached."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.shown: set[Stage] = set()

    def __call__(self, record: BootRecord | None) -> None:
        for stage in STAGES:
            entry = None if record is None else record.stages.get(stage)
            if entry is not None and stage not in self.shown:
                self.shown.add(stage)
                sent = f"  {size(entry.bytes)}" if entry.bytes else ""
                out.say(f"{entry.at - self.started:6.1f} s  {stage:<10}  {SAYS[stage]}{sent}")


def _timeline(record: BootRecord | None, started: float, spinner: Spinner) -> Table:
    """All stages as a rich table: those reached with their second, the one in progress with the time running."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    reached = -1 if record is None else STAGES.index(record.stage)
    for index, stage in enumerate(STAGES):
        entry = None if record is None else record.stages.get(stage)
        if entry is not None:
            sent = size(entry.bytes) if entry.bytes else ""
            grid.add_row(
                Text("✓", "green"), f"{entry.at - started:6.1f} s", Text(stage, "bold"), SAYS[stage], Text(sent, "dim")
            )
        elif index == reached + 1:
            now = Text(f"{time.time() - started:6.1f} s", "cyan")
            grid.add_row(spinner, now, Text(stage, "cyan"), Text(SAYS[stage], "cyan"), "")
        elif index > reached:
            grid.add_row("", "", Text(stage, "dim"), Text(SAYS[stage], "dim"), "")
    return grid
