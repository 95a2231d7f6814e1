"""The machine, boot and image pages as values. Pure; see view.py for the pieces."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pxeserver import units
from pxeserver.boot.preflight import memory_need, preflight
from pxeserver.fleet.values import (
    AssignmentInfo,
    BootDetail,
    BootRecord,
    CauseInfo,
    Explanation,
    MachineDetail,
    MachineRow,
    ProfileInfo,
    TextPart,
)
from pxeserver.mac import Mac
from pxeserver.model import Digest, Event, Image, Pin, Reason
from pxeserver.web.view import (
    BootView,
    Choice,
    ChoiceGroup,
    ImageRef,
    Row,
    Status,
    boot_view,
    row,
    since,
    status,
)
from pxeserver.web.view_fleet import natural

# words for the facts that a machine's iPXE or agent sends; others keep their names
_FACTS = {
    "manufacturer": "Manufacturer",
    "product": "Product",
    "serial": "Serial number",
    "uuid": "UUID",
    "firmware": "Firmware",
    "ip": "Address",
}


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """The assignment in force; `image.digest` is "" for none."""

    image: ImageRef
    note: str
    follow: bool = False
    args: tuple[str, ...] = ()
    at: float = 0.0
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NextBoot:
    """What the machine would get now, and why."""

    image: ImageRef
    summary: str
    newer: str
    reasons: tuple[Reason, ...]
    packet: str  # which packet the reasons are about
    parts: tuple[TextPart, ...]
    script: str
    script_note: str
    problem: str


@dataclass(frozen=True, slots=True)
class MachinePage:
    key: str  # what addresses it in forms
    name: str
    own_name: str
    macs: tuple[str, ...]
    status: Status
    since: float
    cause: CauseInfo | None
    boot: BootView | None
    next: NextBoot
    assignment: AssignmentView
    history: tuple[AssignmentView, ...]  # those that ended, newest first
    earlier: tuple[BootView, ...]
    choices: tuple[ChoiceGroup, ...]
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    pin: Pin
    styles: tuple[Choice, ...]
    loaders: tuple[str, ...]
    with_machine: bool = False


@dataclass(frozen=True, slots=True)
class EventView:
    """A line of a boot's log."""

    at: float
    clock: str
    offset: str
    kind: str
    stage: bool
    text: str
    data: str
    bytes: str
    took: str
    peer: str


@dataclass(frozen=True, slots=True)
class BootPage:
    boot: BootView
    mac: Mac
    cause: CauseInfo | None
    events: tuple[EventView, ...]


@dataclass(frozen=True, slots=True)
class BootsPage:
    earlier: tuple[BootView, ...]
    with_machine: bool = True


@dataclass(frozen=True, slots=True)
class ImageView:
    ref: ImageRef
    tags: tuple[str, ...]
    arch: str
    size: str
    memory: str
    created: float
    newest: bool
    users: int
    users_href: str


@dataclass(frozen=True, slots=True)
class ImagesPage:
    summary: str
    images: tuple[ImageView, ...]


@dataclass(frozen=True, slots=True)
class ImagePage:
    image: ImageView
    facts: tuple[tuple[str, str], ...]
    machines: tuple[Row, ...]


def machine_page(
    detail: MachineDetail,
    explained: Explanation,
    now: float,
    *,
    choices: tuple[ChoiceGroup, ...],
    styles: tuple[Choice, ...],
    loaders: Sequence[str],
) -> MachinePage:
    machine, mine = detail.machine, detail.row
    boots = tuple(boot_view(b, now) for b in detail.boots)
    pinned = machine.pin.loader
    return MachinePage(
        key=machine.mac,
        name=mine.title,
        own_name=machine.name,
        macs=machine.macs,
        status=status(mine.state, mine.boot.stage if mine.boot else None),
        since=since(mine),
        cause=mine.boot.cause if mine.boot else None,
        boot=boots[0] if boots else None,
        next=next_boot(detail.profile, explained, mine.assignment),
        assignment=assignment_view(mine.assignment),
        history=tuple(assignment_view(a) for a in detail.history if a.ended),
        earlier=boots[1:],
        choices=choices,
        facts=facts(detail),
        settings=settings(detail),
        pin=machine.pin,
        styles=styles,
        loaders=tuple(sorted({*loaders, *([pinned] if pinned else [])})),
    )


def next_boot(profile: ProfileInfo, explained: Explanation, assignment: AssignmentInfo | None) -> NextBoot:
    spec = profile.short.partition("@")[0]
    size = profile.initrd_size
    return NextBoot(
        image=ImageRef(spec, profile.image) if profile.image else ImageRef(profile.gets),
        summary=f"initrd {units.size(size)}" if size else "",
        newer=assignment.newer if assignment else "",
        reasons=explained.reasons,
        packet=explained.source,
        parts=profile.parts,
        script=profile.script,
        script_note=f"from {profile.template}" if profile.template else "",
        problem=profile.problem,
    )


def assignment_view(info: AssignmentInfo | None) -> AssignmentView:
    if info is None:
        return AssignmentView(ImageRef("none"), "none")
    note = f"revision {info.revision}"
    return AssignmentView(ImageRef(info.spec, info.image), note, info.follow, info.args, info.at, info.by, info.reason)


def facts(detail: MachineDetail) -> tuple[tuple[str, str], ...]:
    """What was learnt from the machine itself, known words first."""
    machine, learnt = detail.machine, dict(detail.machine.facts)
    if detail.row.ip:
        learnt.setdefault("ip", detail.row.ip)
    known = [(text, learnt.pop(name)) for name, text in _FACTS.items() if learnt.get(name)]
    first = [("Architecture", machine.arch)] if machine.arch else []
    first += [("Memory", units.size(machine.memory_mib << 20))] if machine.memory_mib else []
    return (*first, *known, *sorted((k, v) for k, v in learnt.items() if v))


def settings(detail: MachineDetail) -> tuple[tuple[str, str], ...]:
    """What an administrator gave the machine besides name and pin."""
    machine = detail.machine
    pairs = [
        ("Labels", " ".join(f"{k}={v}" for k, v in sorted(machine.labels.items()))),
        ("Command line", " ".join(machine.cmdline)),
        ("Template", machine.template),
        # values may be keys or passwords: the names are enough here
        ("Variables", " ".join(sorted(machine.vars))),
    ]
    return tuple((name, value) for name, value in pairs if value)


def boot_page(detail: BootDetail, now: float) -> BootPage:
    boot = detail.boot
    return BootPage(
        boot_view(boot, now), boot.mac, boot.cause, tuple(event_view(e, boot.started) for e in detail.events)
    )


def boots_page(boots: Sequence[BootRecord], now: float) -> BootsPage:
    return BootsPage(tuple(boot_view(b, now) for b in boots))


def event_view(event: Event, began: float) -> EventView:
    return EventView(
        at=event.at,
        clock=time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at % 1 * 1000):03d}",
        offset="+" + units.duration(max(0.0, event.at - began)),
        kind=event.kind,
        stage=event.stage is not None,
        text=event.text,
        data=" ".join(f"{k}={v}" for k, v in event.data.items() if k != "packet"),
        bytes=units.size(event.bytes) if event.bytes else "",
        took=units.duration(event.seconds) if event.seconds else "",
        peer=event.peer,
    )


def image_view(image: Image, newest: Mapping[str, Digest], users: int) -> ImageView:
    return ImageView(
        ref=ImageRef(image.spec, image.digest),
        tags=image.tags,
        arch=image.arch,
        size=f"{units.size(image.kernel.size)} + {units.size(image.initrd.size)}",
        memory=_memory(image),
        created=image.created,
        newest=newest.get(image.spec) == image.digest,
        users=users,
        users_href=f"{ImageRef(image.spec, image.digest).href}#users",
    )


def _memory(image: Image) -> str:
    """What a machine must have, by firmware: the unpacked tree counts twice, so it is far more than the files."""
    bios, efi = memory_need(image, efi=False), memory_need(image, efi=True)
    return f"{bios} MiB (BIOS), {efi} MiB (UEFI)"


def images_page(images: Sequence[Image], newest: Mapping[str, Digest], machines: Sequence[MachineRow]) -> ImagesPage:
    users: dict[Digest, int] = {}
    for machine in machines:
        if machine.assignment:
            users[machine.assignment.image] = users.get(machine.assignment.image, 0) + 1
    ordered = sorted(images, key=lambda i: (i.spec, -i.created))
    size = sum({b.digest: b.size for i in images for b in (i.kernel, i.initrd)}.values())
    text = f"{len(images)} built, {units.size(size)}" if images else ""
    return ImagesPage(text, tuple(image_view(i, newest, users.get(i.digest, 0)) for i in ordered))


def image_page(image: Image, newest: Mapping[str, Digest], machines: Sequence[MachineRow]) -> ImagePage:
    users = (m for m in machines if m.assignment and m.assignment.image == image.digest)
    mine = sorted(users, key=lambda m: natural(m.title))
    takes = preflight(image)
    pairs = (
        ("Digest", image.digest),
        ("Tags", " ".join(image.tags)),
        ("Architecture", image.arch),
        ("Built", units.when(image.created)),
        ("Kernel", f"{units.size(image.kernel.size)}  {image.kernel.digest}"),
        ("Initrd", f"{units.size(image.initrd.size)}  {image.initrd.digest}"),
        ("Initrd unpacked", units.size(image.initrd.raw_size) if image.initrd.raw_size else ""),
        ("Sent to a machine", units.size(takes.transfer)),
        ("Memory while unpacked", units.size(takes.peak)),
        ("Memory needed", _memory(image)),
        ("Command line", image.cmdline),
        ("Its length", f"{takes.cmdline} of {takes.cmdline_limit} bytes"),
    )
    return ImagePage(image_view(image, newest, len(mine)), tuple(p for p in pairs if p[1]), tuple(row(m) for m in mine))
