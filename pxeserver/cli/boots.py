"""pxeserver boots: the list, one boot's timeline, and following what happens."""

from __future__ import annotations

import json
import sys
import time

import click

from pxeserver.cli import output as out
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.timeline import show_timeline
from pxeserver.errors import NotFound, PxeServerError, TimedOut, UsageError
from pxeserver.fleet.values import BootDetail, BootRecord, EventRecord, FleetApi
from pxeserver.model import Result
from pxeserver.serial import to_json

POLL_SECONDS = 1.0
HEX = frozenset("0123456789abcdef")


@click.command()
@click.argument("what", required=False, metavar="[MACHINE|BOOT]")
@click.option("-n", "--limit", default=20, type=click.IntRange(1, 10_000), show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Print events as they happen, until Ctrl-C.")
@click.option("--wait", is_flag=True, help="With -f and a machine: end when its next boot has ended; exit 1 unless up.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds for --wait; exit 7 afterwards.")
@out.output_option
@pass_context
def boots(
    context: Context, what: str | None, limit: int, follow: bool, wait: bool, timeout: float | None, output: str
) -> None:
    """List boots, newest first; show the timeline of one (BOOT is the beginning of its id)."""
    if wait and not (follow and what):
        raise UsageError("boots-wait", "--wait follows one machine", hint="pxeserver boots MACHINE -f --wait")
    if follow:
        try:
            _follow(context, what, output, wait, timeout)
        except KeyboardInterrupt:
            sys.exit(130)  # as a shell says of what Ctrl-C ended; not a failure to tell of
        return
    with open_client(context) as fleet:
        try:
            records = fleet.boots(what, limit=limit)
        except NotFound as error:
            detail = _boot(fleet, what or "", error)
            out.emit(detail, output, lambda: show_boot(detail))
            return
    out.emit(records, output, lambda: _table(records))


def _boot(fleet: FleetApi, text: str, error: NotFound) -> BootDetail:
    """The boot whose id begins with `text`; `error` again if it is no such thing either."""
    if len(text) < 4 or not set(text.lower()) <= HEX:
        raise error
    try:
        return fleet.boot(text)
    except NotFound:
        raise NotFound(
            "boot-not-found", f'no machine and no boot "{text}"', hint="pxeserver boots, pxeserver machines ls"
        ) from None


def show_boot(detail: BootDetail) -> None:
    """Facts, timeline, events."""
    boot = detail.boot
    out.fields(
        [
            ("boot", boot.id),
            ("machine", boot.name if boot.name == boot.mac else f"{boot.name} ({boot.mac})"),
            ("image", boot.short),
            ("started", out.when(boot.started)),
            ("result", boot.result),
            ("stage", boot.stage),
            ("style", boot.style),
            ("loader", boot.loader),
        ]
    )
    show_cause(boot)
    out.say()
    show_timeline(boot, time.time())
    out.say()
    out.table(
        ("AT", "EVENT", "PEER", "BYTES", "TEXT"),
        (
            (f"+{e.at - boot.started:.1f}s", e.kind, e.peer, out.size(e.bytes) if e.bytes else "", _first_line(e.text))
            for e in detail.events
        ),
        empty="no events are kept of this boot",
    )


def show_cause(boot: BootRecord) -> None:
    """What it is stuck on, by what that was seen, and what to do."""
    if boot.cause is not None:
        out.fields(
            [
                ("cause", f"{boot.cause.slug}: {boot.cause.text}"),
                ("seen by", "\n".join(boot.cause.evidence)),
                ("fix", boot.cause.fix),
            ]
        )


def _table(records: tuple[BootRecord, ...]) -> None:
    out.table(
        ("BOOT", "MACHINE", "IMAGE", "STARTED", "TOOK", "STAGE", "RESULT", "CAUSE"),
        (
            (
                b.id[:8],
                b.name,
                b.short,
                out.when(b.started),
                out.duration(b.ended - b.started) if b.ended else "",
                b.stage,
                b.result,
                b.cause.slug if b.cause else "",
            )
            for b in records
        ),
        empty="no boots yet",
    )


def _follow(context: Context, what: str | None, output: str, wait: bool, timeout: float | None) -> None:
    """Events from now on. Asks anew each second, so that no connection or lock is held between."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with open_client(context) as fleet:
        last = fleet.events(limit=1)
        if what is not None:
            fleet.show(what)
    after, began = (last[-1].id if last else 0), time.time()
    out.note(f"following {what or 'all machines'}, Ctrl-C ends it")
    while True:
        with open_client(context) as fleet:
            fresh = fleet.events(what, after=after, limit=1000) if after else fleet.events(what, limit=1000)
            newest = fleet.boots(what, limit=1) if wait else ()
        for event in fresh:
            after = event.id
            _print_event(event, output)
        if wait and newest and newest[0].started >= began and newest[0].result is not Result.OPEN:
            end_of(newest[0])
            return
        if deadline is not None and time.monotonic() > deadline:
            stage = newest[0].stage if newest and newest[0].started >= began else "nothing heard"
            raise TimedOut("boot-timeout", f"{what} was not up after {timeout:g} s: {stage}")
        time.sleep(POLL_SECONDS)


def end_of(boot: BootRecord) -> None:
    """PxeServerError "boot-failed" unless the boot went as far as it can."""
    if boot.result not in (Result.UP, Result.NETWORK_ONLY, Result.LOCAL):
        cause = f": {boot.cause.text}" if boot.cause else ""
        raise PxeServerError("boot-failed", f"{boot.name} is {boot.result} at {boot.stage}{cause}")


def _print_event(event: EventRecord, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(to_json(event), ensure_ascii=False))
        return
    sent = out.size(event.bytes) if event.bytes else ""
    words = (out.when(event.at), event.mac.ljust(17), event.kind.ljust(10), sent, _first_line(event.text))
    click.echo("  ".join(word for word in words if word))


def _first_line(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 100 else line[:99] + "…"
