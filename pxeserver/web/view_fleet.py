"""The fleet page as a value: filters, counts, one page of rows, unknown machines, or what to do next. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pxeserver.fleet.values import MachineRow
from pxeserver.model import STAGES, Policy
from pxeserver.web.view import STATES, ChoiceGroup, Row, row, since

PAGE_ROWS = 100
UNKNOWN_ROWS = 8
SORTS = (("name", "name"), ("since", "latest change"), ("stage", "worst first"))
_WORST = list(STATES)
_POLICY = {
    Policy.WAIT: "they wait, and boot the moment they are assigned",
    Policy.DEFAULT: "they boot the default spec",
    Policy.LOCAL: "they are sent to their local disk",
    Policy.IGNORE: "they get no answer",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """What the URL asks for. `stage` is a state (stuck, up, ...) or a stage reached (kernel, initrd, ...)."""

    text: str = ""
    stage: str = ""
    spec: str = ""
    sort: str = "name"
    page: int = 1

    @property
    def active(self) -> bool:
        return bool(self.text or self.stage or self.spec)

    def href(self, **changes: str | int) -> str:
        """The fleet page's address with these changes; a changed filter begins at page 1."""
        values = {"q": self.text, "stage": self.stage, "spec": self.spec, "sort": self.sort, "page": 1} | changes
        default = {"q": "", "stage": "", "spec": "", "sort": "name", "page": 1}
        query = urlencode({k: v for k, v in values.items() if v != default[k]})
        return f"/?{query}" if query else "/"


@dataclass(frozen=True, slots=True)
class Count:
    """A number that is also a filter."""

    text: str
    value: str
    tone: str
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Hint:
    """One step, and the commands that do it."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Empty:
    """What a newcomer does next."""

    title: str
    steps: tuple[Hint, ...]


@dataclass(frozen=True, slots=True)
class FleetPage:
    title: str
    summary: str
    filter: Filter
    total: int
    counts: tuple[Count, ...]
    stages: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    specs: tuple[str, ...]
    sorts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    range: str
    previous: str
    next: str
    unknown: tuple[Row, ...]
    unknown_total: int
    policy: str
    choices: tuple[ChoiceGroup, ...]
    empty: Empty | None


def filter_of(args: Mapping[str, str]) -> Filter:
    """The filter in a URL's query; what makes no sense is left out rather than refused."""
    stage, sort = args.get("stage", ""), args.get("sort", "")
    page = args.get("page", "1")
    return Filter(
        text=args.get("q", "").strip()[:200],
        stage=stage if stage in STATES or stage in STAGES else "",
        spec=args.get("spec", "").strip(),
        sort=sort if sort in dict(SORTS) else "name",
        page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
    )


def fleet_page(
    machines: Sequence[MachineRow], wanted: Filter, *, policy: Policy, images: int, choices: tuple[ChoiceGroup, ...]
) -> FleetPage:
    """`machines` are all of them, known and unknown; only the rows shown are turned into view values."""
    known = [m for m in machines if m.known]
    text = Filter(wanted.text)
    unknown = sorted((m for m in machines if not m.known and matches(m, text)), key=lambda m: -m.seen)
    states = Counter(m.state for m in known)
    matching = sorted((m for m in known if matches(m, wanted)), key=_order(wanted.sort))
    pages = max(1, -(-len(matching) // PAGE_ROWS))
    page = min(wanted.page, pages)
    first = (page - 1) * PAGE_ROWS
    shown = matching[first : first + PAGE_ROWS]
    stuck = states["stuck"]
    return FleetPage(
        title=f"{stuck} stuck - Fleet" if stuck else "Fleet",
        summary=_plural(len(known), "machine") if known else "",
        filter=wanted,
        total=len(known),
        counts=_counts(states, len(known), wanted),
        stages=_stage_words(),
        specs=tuple(sorted({m.assignment.spec for m in known if m.assignment})),
        sorts=SORTS,
        rows=tuple(row(m) for m in shown),
        range=f"{first + 1} to {first + len(shown)} of {len(matching)}" if len(matching) > len(shown) else "",
        previous=wanted.href(page=page - 1) if page > 1 else "",
        next=wanted.href(page=page + 1) if page < pages else "",
        unknown=tuple(row(m) for m in unknown[:UNKNOWN_ROWS]),
        unknown_total=len(unknown),
        policy=_POLICY[policy],
        choices=choices,
        empty=None if known or wanted.active else _empty(bool(unknown), images),
    )


def matches(machine: MachineRow, wanted: Filter) -> bool:
    boot = machine.boot
    if wanted.stage in STATES:
        if machine.state != wanted.stage:
            return False
    elif wanted.stage and (boot is None or boot.stage != wanted.stage):
        return False
    if wanted.spec and (machine.assignment is None or machine.assignment.spec != wanted.spec):
        return False
    return not wanted.text or wanted.text.lower() in _haystack(machine) or _digits(wanted.text) in _macs(machine)


def _haystack(machine: MachineRow) -> str:
    boot, assignment = machine.boot, machine.assignment
    words = [machine.name, *machine.macs, machine.ip, machine.arch]
    words += [f"{k}={v}" for k, v in machine.labels.items()]
    words += [boot.cause.slug, boot.cause.text] if boot and boot.cause else []
    words += [assignment.short] if assignment else []
    return "\n".join(words).lower()


def _digits(text: str) -> str:
    """A MAC, or part of one, in any spelling as hex digits; "-" (which is in no MAC) for anything else."""
    digits = re.sub(r"[:.\-]", "", text.lower())
    return digits if re.fullmatch(r"[0-9a-f]{4,12}", digits) else "-"


def _macs(machine: MachineRow) -> str:
    return "\n".join(mac.replace(":", "") for mac in machine.macs)


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which rack2 comes before rack10."""
    parts = re.findall(r"\d+|\D+", text.lower())
    return tuple((0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts)


def _order(sort: str) -> Callable[[MachineRow], tuple[Any, ...]]:
    if sort == "since":
        return lambda m: (-since(m), natural(m.title))
    if sort == "stage":
        return lambda m: (_WORST.index(m.state) if m.state in _WORST else 0, natural(m.title))
    return lambda m: natural(m.title)


def _counts(states: Mapping[str, int], total: int, wanted: Filter) -> tuple[Count, ...]:
    counts = [Count("all", str(total), "", wanted.href(stage=""), not wanted.stage)]
    for state, (tone, text) in STATES.items():
        if states.get(state) or wanted.stage == state:
            number = str(states.get(state, 0))
            counts.append(Count(text, number, tone, wanted.href(stage=state), wanted.stage == state))
    return tuple(counts)


def _stage_words() -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    return (
        ("state", tuple((state, text) for state, (_, text) in STATES.items())),
        ("last stage reached", tuple((str(s), str(s)) for s in STAGES if s != "up")),
    )


def _empty(unknown: bool, images: int) -> Empty:
    build = Hint(
        "Build an image of a spec; some come with the program.", ("pxeserver specs ls", "pxeserver build SPEC")
    )
    first = () if images else (build,)
    if unknown:
        adopt = Hint("Give a machine above a name or an image: all of them were heard on the boot network.")
        return Empty("No machine is named or assigned yet", (*first, adopt))
    power = Hint(
        "Power a machine on, with network boot first in its boot order. It appears here with its first packet."
    )
    doctor = Hint("Nothing appears? Check ports, interfaces and loaders.", ("pxeserver doctor",))
    return Empty("No machine seen yet", (*first, power, doctor))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
