"""Fleet values -> what the pages draw: pure, no clock, no request. view_pages.py puts these into one value per page.

`tone` is ok, busy, warn, bad or idle: the sheet gives each a colour, and a word or sign always says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pxeserver import units
from pxeserver.fleet.boots import state as state_of
from pxeserver.fleet.values import BootRecord, MachineRow
from pxeserver.mac import Mac
from pxeserver.model import STAGES, Digest, Image, Result, Stage

_SIGNS = {"ok": "✓", "busy": "▸", "warn": "…", "bad": "✕", "idle": "–"}
# MachineRow.state -> (tone, words); booting and stuck add the stage
STATES: Mapping[str, tuple[str, str]] = {
    "stuck": ("bad", "stuck"),
    "booting": ("busy", "booting"),
    "waiting": ("warn", "waiting"),
    "queued": ("warn", "in the queue"),
    "network-only": ("warn", "network only"),
    "up": ("ok", "up"),
    "local": ("idle", "local disk"),
    "never": ("idle", "not booted yet"),
}


@dataclass(frozen=True, slots=True)
class Status:
    """A state as a chip: sign and words in a tone."""

    slug: str
    tone: str
    text: str

    @property
    def sign(self) -> str:
        return _SIGNS[self.tone]


@dataclass(frozen=True, slots=True)
class Cell:
    """One of the eight cells of a stage bar: done, now (being waited for), bad (stuck there), todo."""

    stage: Stage
    state: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image in a line of text; `digest` is "" for none, then `spec` says why."""

    spec: str = ""
    digest: Digest = ""

    @property
    def short(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]

    @property
    def href(self) -> str:
        return f"/images/{self.digest.removeprefix('sha256:')}"


@dataclass(frozen=True, slots=True)
class Row:
    """A machine in a table. `running` is the image that the last boot got when it is not the assigned one."""

    key: str  # usable as an HTML id
    href: str
    name: str
    mac: Mac
    more_macs: int
    status: Status
    cells: tuple[Cell, ...]
    label: str  # the bar in words
    since: float
    image: ImageRef
    newer: str
    running: str
    cause: str
    hardware: str


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a timeline. `kind`: done, wait, stuck, or "" for nothing to draw; left and width are per cent."""

    stage: Stage
    kind: str
    left: float
    width: float
    took: str
    offset: str
    bytes: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A boot drawn as bars, one line for each stage."""

    tone: str
    caption: str
    summary: str
    took: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class BootView:
    """A boot in a table or above its timeline."""

    id: str
    href: str
    machine: str
    machine_href: str
    image: ImageRef
    status: Status
    cells: tuple[Cell, ...]
    label: str
    started: float
    took: str
    cause: str
    line: Timeline


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a form."""

    value: str
    text: str


@dataclass(frozen=True, slots=True)
class ChoiceGroup:
    label: str
    choices: tuple[Choice, ...]


def machine_href(target: str) -> str:
    return f"/machines/{quote(target, safe=':')}"


def boot_href(ident: str) -> str:
    return f"/boots/{quote(ident, safe='')}"


def status(state: str, stage: Stage | None = None) -> Status:
    """The chip of a machine's state; `stage` is the last one reached."""
    tone, text = STATES.get(state, ("idle", state))
    if stage is not None and state == "booting":
        text = f"booting: {stage}"
    elif stage is not None and state == "stuck":
        text = f"stuck after {stage}"
    return Status(state, tone, text)


def boot_status(boot: BootRecord) -> Status:
    if boot.result is Result.REPLACED:
        return Status("replaced", "idle", f"restarted after {boot.stage}")
    return status(state_of(boot), boot.stage)


def cells(state: str, stage: Stage | None) -> tuple[Cell, ...]:
    """How far it came. Stages that a machine skips (its ROM is iPXE: no loader) count as done once it is past them."""
    reached = -1 if stage is None else STAGES.index(stage)
    following = {"booting": "now", "waiting": "now", "queued": "now", "stuck": "bad"}.get(state, "todo")
    return tuple(
        Cell(s, "done" if i <= reached else following if i == reached + 1 and stage is not None else "todo")
        for i, s in enumerate(STAGES)
    )


def bar_label(state: str, stage: Stage | None) -> str:
    """The bar for ears: 'initrd, 5 of 8 stages'."""
    if stage is None:
        return "no stage reached"
    return f"{stage}, {STAGES.index(stage) + 1} of {len(STAGES)} stages{', stuck' if state == 'stuck' else ''}"


def row(machine: MachineRow) -> Row:
    boot, assignment = machine.boot, machine.assignment
    stage = boot.stage if boot else None
    image = ImageRef(assignment.spec, assignment.image) if assignment else ImageRef("not assigned")
    running = ""
    if boot and boot.image and assignment and boot.image != assignment.image:
        running = boot.short
    return Row(
        key=machine.mac.replace(":", ""),
        href=machine_href(machine.mac),
        name=machine.title,
        mac=machine.mac,
        more_macs=len(machine.macs) - 1,
        status=status(machine.state, stage),
        cells=cells(machine.state, stage),
        label=bar_label(machine.state, stage),
        since=since(machine),
        image=image,
        newer=assignment.newer if assignment else "",
        running=running,
        cause=boot.cause.text if boot and boot.cause else "",
        hardware=hardware(machine),
    )


def since(machine: MachineRow) -> float:
    """When the machine came to the state it is in; 0 = never seen."""
    boot = machine.boot
    if boot is None:
        return machine.seen
    if boot.ended:
        return boot.ended
    record = boot.stages.get(boot.stage)
    return record.at if record else boot.started


def hardware(machine: MachineRow) -> str:
    """'amd64, 2.0 GiB, 10.0.0.5': what helps to tell an unknown machine from another."""
    memory = units.size(machine.memory_mib << 20) if machine.memory_mib else ""
    return ", ".join(part for part in (machine.arch, memory, machine.ip) if part)


def timeline(boot: BootRecord, now: float) -> Timeline:
    """Each stage's bar runs from the stage before it to its own first sign: the time that it was waited for.

    A wait that goes on or ended in nothing is drawn at most as long as all before it, lest the rest become invisible.
    """
    pending = {Result.OPEN: "wait", Result.STUCK: "stuck"}.get(boot.result, "")
    reached = max((STAGES.index(s) for s in boot.stages), default=-1)
    done = max(0.0, *(r.at - boot.started for r in boot.stages.values()), 0.0)
    after = 0.0
    if pending and reached + 1 < len(STAGES):
        after = max(0.0, (boot.ended or now) - boot.started - done)
    total = max(done + min(after, max(done, 1.0)), 0.001)
    steps: list[Step] = []
    before = 0.0
    for i, stage in enumerate(STAGES):
        record = boot.stages.get(stage)
        kind, until = ("done", max(before, record.at - boot.started)) if record else ("", before)
        took = until - before
        if i == reached + 1 and pending:
            kind, until, took = pending, total, after
        left, wide = 100 * before / total, max(100 * (until - before) / total, 0.5)
        steps.append(
            Step(
                stage,
                kind,
                round(min(left, 99.5), 3),
                round(wide, 3),
                units.duration(took) if kind else "skipped" if i < reached else "",
                "+" + units.duration(record.at - boot.started) if record else "",
                _sent(record.bytes, record.count) if record else "",
            )
        )
        before = until
    words = units.duration(done) + (f", then {units.duration(after)} of waiting" if after else "")
    whole = units.duration(done + after)
    return Timeline(boot_status(boot).tone, words, _summary(boot, whole), whole, tuple(steps))


def _sent(count: int, times: int) -> str:
    text = units.size(count) if count else ""
    return f"{text} ({times} times)".strip() if times > 1 else text


def _summary(boot: BootRecord, took: str) -> str:
    return {
        Result.OPEN: f"{took} so far",
        Result.UP: f"up in {took}",
        Result.NETWORK_ONLY: f"network in {took}, no word from an agent",
        Result.STUCK: f"stuck after {took}",
        Result.LOCAL: f"went to the local disk after {took}",
        Result.REPLACED: f"restarted after {took}",
    }[boot.result]


def boot_view(boot: BootRecord, now: float) -> BootView:
    state = boot_status(boot)
    line = timeline(boot, now)
    return BootView(
        id=boot.id,
        href=boot_href(boot.id),
        machine=boot.name,
        machine_href=machine_href(boot.mac),
        image=ImageRef(boot.spec, boot.image) if boot.image else ImageRef("no image"),
        status=state,
        cells=cells(state.slug, boot.stage),
        label=bar_label(state.slug, boot.stage),
        started=boot.started,
        took=line.took,
        cause=boot.cause.text if boot.cause else "",
        line=line,
    )


def choices(images: Iterable[Image], newest: Mapping[str, Digest], now: float) -> tuple[ChoiceGroup, ...]:
    """What a form offers to assign: the newest build of each spec first, then everything older."""
    ordered = sorted(images, key=lambda i: (i.spec, -i.created))
    latest = [i for i in ordered if newest.get(i.spec) == i.digest]
    older = [i for i in ordered if newest.get(i.spec) != i.digest]
    groups = (("newest builds", latest), ("older builds", older))
    return tuple(
        ChoiceGroup(label, tuple(Choice(i.digest, _choice_text(i, now)) for i in some))
        for label, some in groups
        if some
    )


def _choice_text(image: Image, now: float) -> str:
    size = units.size(image.kernel.size + image.initrd.size)
    return f"{image.short} ({units.age(image.created, now)} old, {image.arch}, {size})"
