"""What the fleet's use cases take and return: frozen values, the same in process, over REST and in `-o json`.

Times are Unix seconds here and RFC 3339 in JSON (`serial.When`). Nothing here needs the database or Flask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pxeserver.mac import Mac
from pxeserver.model import Digest, Event, Image, Machine, Policy, Reason, Result, Stage
from pxeserver.when import When


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of a boot: when it was reached first and last, how often, what was sent."""

    at: When
    last: When = 0.0
    count: int = 1
    bytes: int = 0
    seconds: float = 0.0
    peer: str = ""


@dataclass(frozen=True, slots=True)
class CauseInfo:
    """What a boot is stuck on: the name, a sentence, what it was seen by, what to do."""

    slug: str
    text: str
    evidence: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True, slots=True)
class BootRecord:
    """One power-on. `stages` holds the stages reached, in their order; `ended` is 0 while the boot is open."""

    id: str
    machine: int | None
    name: str  # the machine's name, or its MAC
    mac: Mac
    started: When
    last: When
    stage: Stage
    result: Result = Result.OPEN
    ended: When = 0.0
    image: Digest = ""
    spec: str = ""
    revision: int = 0
    style: str = ""
    loader: str = ""
    queued: int = 0  # how often it was told that the link is full, while it waits for that
    stages: Mapping[Stage, StageRecord] = field(default_factory=dict)
    cause: CauseInfo | None = None

    @property
    def short(self) -> str:
        """'web@3f2a9c1d0b7e', or "" before an image was chosen."""
        return short_image(self.spec, self.image)


@dataclass(frozen=True, slots=True)
class EventRecord(Event):
    """An event with its number: later events have higher ones."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class BootDetail:
    """A boot with everything that happened in it, oldest first."""

    boot: BootRecord
    events: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class AssignmentInfo:
    """An assignment as people see it; `ended` is 0 for the one in force."""

    spec: str
    image: Digest
    short: str
    revision: int
    follow: bool = False
    args: tuple[str, ...] = ()
    at: When = 0.0
    by: str = ""
    reason: str = ""
    ended: When = 0.0
    newer: str = ""  # a newer build of the spec that this assignment does not give: "web@9a8b.."


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A machine in a list. `state`: never, waiting, queued, booting, up, network-only, stuck, local."""

    id: int
    name: str  # "" for a machine that nobody named
    mac: Mac
    macs: tuple[Mac, ...]
    known: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    arch: str = ""
    memory_mib: int | None = None
    ip: str = ""
    seen: When = 0.0
    state: str = "never"
    assignment: AssignmentInfo | None = None
    boot: BootRecord | None = None  # the latest

    @property
    def title(self) -> str:
        """How people call it: the name, or the MAC."""
        return self.name or self.mac


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of a command line or script and where it came from."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """What a machine would get now. `action`: boot, wait, local, ignore, refuse; `image` is "" unless it boots one.

    `gets` says it in words. `problem` is why it is refused, or why no script can be made (a fault in a template).
    """

    action: str
    policy: Policy | None  # None: by its own assignment
    gets: str
    image: Digest = ""
    short: str = ""
    kernel: str = ""  # digest
    initrd: str = ""
    initrd_size: int = 0
    initrd_raw_size: int = 0
    cmdline: str = ""
    parts: tuple[TextPart, ...] = ()
    template: str = ""
    script: str = ""
    reasons: tuple[Reason, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MachineDetail:
    """Everything about one machine: what it is, what it gets and why, what it did."""

    machine: Machine
    row: MachineRow
    profile: ProfileInfo
    history: tuple[AssignmentInfo, ...] = ()  # newest first, the one in force included
    boots: tuple[BootRecord, ...] = ()  # newest first
    events: tuple[EventRecord, ...] = ()  # of the latest boot, oldest first


@dataclass(frozen=True, slots=True)
class Diff:
    """One changed field."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a write did to one machine, what the machine will get, and the command that undoes it ("" if none can)."""

    machine: int
    name: str
    mac: Mac
    changes: tuple[Diff, ...]
    image: str = ""  # "web@3f2a9c1d0b7e"
    cmdline: str = ""
    gets: str = ""  # "web@3f2a.. at its next boot"
    undo: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineEdit:
    """Changes to a machine; None leaves a field alone, a list replaces the whole field.

    In `labels` and `vars` a key with None goes away and keys not named stay, unless `whole` says that this is all.
    """

    name: str | None = None
    macs: tuple[str, ...] | None = None  # any spelling
    labels: Mapping[str, str | None] | None = None
    vars: Mapping[str, str | None] | None = None
    cmdline: tuple[str, ...] | None = None
    template: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class AssignOrder:
    """What to give: `what` is SPEC, SPEC:TAG, SPEC@DIGEST or a digest.

    `force`: also to machines that are known not to fit.
    """

    what: str
    follow: bool = False
    args: tuple[str, ...] = ()
    reason: str = ""
    by: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class ExplainOrder:
    """Which packet to decide on. All empty: the machine's last recorded one, else a made-up one for its firmware."""

    arch: int | None = None  # DHCP option 93
    firmware: str = ""  # bios, efi, ipxe
    vendor_class: str = ""  # option 60
    packet: str = ""  # hex of a whole client packet


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """A DHCP option of the answer, decoded for people."""

    code: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole decision for one packet; `payload` is the hex of the bytes that would leave on the wire."""

    mac: Mac
    name: str
    source: str  # where the packet came from: "recorded ...", "made up ..."
    action: str  # answer, ignore
    style: str
    loader: str
    kind: str  # loader, script
    reasons: tuple[Reason, ...]
    packet: str = ""
    payload: str = ""
    to: str = ""  # "255.255.255.255:68"
    boot_file: str = ""
    options: tuple[OptionInfo, ...] = ()
    profile: ProfileInfo | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """A machine's script or command line, whole and in parts."""

    what: str
    text: str
    parts: tuple[TextPart, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecInfo:
    """A spec that can be built or assigned; `newest` is "" when it was never built."""

    name: str
    file: str
    newest: str = ""
    built: When = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """Who answers: a client compares `data` with its own --data."""

    version: str
    data: str
    generation: int
    machines: int
    images: int


def short_image(spec: str, digest: Digest) -> str:
    """'web@3f2a9c1d0b7e' as model.Image.short has it, or "" without a digest."""
    return f"{spec}@{digest.removeprefix('sha256:')[:12]}" if digest else ""


class FleetApi(Protocol):
    """Every fleet use case. `fleet.Fleet` does them, `cli.client.RestClient` asks a server to."""

    def status(self) -> Status: ...
    def machines(self, *, known: bool | None = None) -> tuple[MachineRow, ...]: ...
    def show(self, target: str) -> MachineDetail: ...
    def add_machine(self, edit: MachineEdit) -> Change: ...
    def set_machine(self, target: str, edit: MachineEdit) -> Change: ...
    def remove_machine(self, target: str, *, assigned: bool = False) -> Change: ...
    def assign(self, targets: Sequence[str], order: AssignOrder) -> tuple[Change, ...]: ...
    def unassign(self, targets: Sequence[str]) -> tuple[Change, ...]: ...
    def pin(self, target: str, *, style: str | None = None, loader: str | None = None) -> Change: ...
    def explain(self, target: str, order: ExplainOrder) -> Explanation: ...
    def render(self, target: str, what: str) -> Rendering: ...
    def boots(self, target: str | None = None, *, limit: int = 50) -> tuple[BootRecord, ...]: ...
    def boot(self, boot: str) -> BootDetail: ...
    def events(
        self, target: str | None = None, *, boot: str = "", after: int = 0, limit: int = 200
    ) -> tuple[EventRecord, ...]: ...
    def images(self) -> tuple[Image, ...]: ...
    def needed_images(self) -> tuple[Digest, ...]: ...
    def specs(self) -> tuple[SpecInfo, ...]: ...
