"""Every firmware against one's own running server: machines that exist for the test alone, and what each got."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from pxeserver.fleet.values import AssignOrder, ExplainOrder, FleetApi, MachineEdit
from pxeserver.mac import Mac
from pxeserver.model import Digest
from pxeserver.sim import packets
from pxeserver.sim.effects import Say
from pxeserver.sim.firmware import FIRMWARE, Firmware
from pxeserver.sim.machine import Machine, Outcome
from pxeserver.sim.packets import Card
from pxeserver.sim.run import Way, simulate
from pxeserver.units import size
from pxeserver.wire import pxe

PREFIX = "selftest-"
SETTLE = 0.6  # seconds until a server surely looks at the fleet as it is now
SILENCE = 12.0  # seconds that silent firmware is given; EDK2 would go on for 60
TRIES = 2

Verdict = Literal["ok", "waits", "not set up", "failed"]
Tell = Callable[[str, Say], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One firmware's way. `waits`: as far as its script, for want of an image. `not set up`: no loader for its kind."""

    firmware: str
    about: str
    mac: Mac
    result: Verdict
    got: tuple[str, ...]
    why: str
    seconds: float


def mac_for(firmware: Firmware) -> Mac:
    """The same one each time; locally administered, but for those who are known by their vendor."""
    return f"{firmware.oui}:53:54:{list(FIRMWARE).index(firmware.name) + 1:02x}"


def goarch_of(firmware: Firmware) -> str:
    """Which images it can run in the end; a Pi says BIOS and is arm64."""
    return "arm64" if firmware.loads == "pi" else pxe.arch_of(firmware.arch).goarch


@contextlib.contextmanager
def enrolled(fleet: FleetApi, names: Sequence[str], image: str = "") -> Iterator[frozenset[str]]:
    """Give every firmware a machine with an image for its processor, and take them all away at the end.

    `image` names one; otherwise the newest of each processor. The names of those that have one.
    """
    _remove(fleet, names)
    try:
        assigned = set()
        for name in names:
            fleet.add_machine(MachineEdit(name=PREFIX + name, macs=(mac_for(FIRMWARE[name]),)))
            wanted = image or _newest(fleet, goarch_of(FIRMWARE[name]))
            if wanted:
                fleet.assign([PREFIX + name], AssignOrder(wanted, by="selftest"))
                assigned.add(name)
        yield frozenset(assigned)
    finally:
        _remove(fleet, names)


def _newest(fleet: FleetApi, goarch: str) -> Digest:
    fitting = [image for image in fleet.images() if image.arch == goarch]
    return max(fitting, key=lambda image: image.created).digest if fitting else ""


def _remove(fleet: FleetApi, names: Sequence[str]) -> None:
    """What is there; also what an interrupted run left behind."""
    macs = {mac_for(FIRMWARE[name]) for name in names}
    for row in fleet.machines():
        if macs & set(row.macs):
            fleet.remove_machine(str(row.id), assigned=True)


async def run(names: Sequence[str], way: Way, assigned: frozenset[str], tell: Tell) -> tuple[Row, ...]:
    """Switch all of them on: at once where each has an address of its own, else one after the other."""

    async def one(name: str) -> Row:
        firmware, began = _hasty(FIRMWARE[name]), time.monotonic()
        machine = Machine(firmware, Card.of(mac_for(firmware)), tries=TRIES, report=True)
        outcome = await simulate(machine, way, watch=lambda _, say: tell(name, say))
        seconds = time.monotonic() - began
        return _row(firmware, outcome, name in assigned, seconds)

    if way.parallel:
        return tuple(await asyncio.gather(*map(one, names)))
    return tuple([await one(name) for name in names])


def _hasty(firmware: Firmware) -> Firmware:
    """The same, giving up after SILENCE."""
    waits = tuple(accumulate(firmware.discover))
    return replace(firmware, discover=firmware.discover[: sum(end <= SILENCE for end in waits)])


def _row(firmware: Firmware, outcome: Outcome, assigned: bool, seconds: float) -> Row:
    waits = outcome.result == "waits" and not assigned
    verdict: Verdict = "ok" if outcome.complete else "waits" if waits else "failed"
    got = tuple(f"{got.name} {size(got.size)}" for got in outcome.got)
    why = f"{outcome.stage}: {outcome.why}" if verdict == "failed" else outcome.why
    return Row(firmware.name, firmware.about, mac_for(firmware), verdict, got, why, round(seconds, 2))


def unanswered(name: str, fleet: FleetApi) -> Row | None:
    """The row of a firmware that the server would not answer, by its own word; None if it would."""
    firmware = FIRMWARE[name]
    packet = packets.discover(firmware, Card.of(mac_for(firmware)), bytes(4)).hex()
    found = fleet.explain(mac_for(firmware), ExplainOrder(packet=packet))
    if found.action == "answer":
        return None
    why = found.reasons[-1].text
    verdict: Verdict = "not set up" if why.startswith("no loader") else "failed"
    return Row(name, firmware.about, mac_for(firmware), verdict, (), f"the server does not answer: {why}", 0.0)
