"""The nouns of the program as frozen values. No behaviour beyond small derived facts; see docs/architecture.md.

What is made for every packet is a NamedTuple: a frozen dataclass takes up to five times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pxeserver.mac import Mac
from pxeserver.when import When

Digest = str  # "sha256:<64 hex>"


STYLE_FACT = "style"  # of a machine: the shape of the offer that its firmware took last


class Stage(StrEnum):
    """How far a boot has come, in order."""

    OFFER = "offer"
    LOADER = "loader"
    SCRIPT = "script"
    KERNEL = "kernel"
    INITRD = "initrd"
    NETWORK = "network"
    CONTAINERD = "containerd"
    UP = "up"


STAGES: tuple[Stage, ...] = tuple(Stage)

UKI = "uki"  # unified kernel image: what a machine is pinned to that boots its image without a loader


class Result(StrEnum):
    """How a boot ended; OPEN while it has not."""

    OPEN = "open"
    UP = "up"
    NETWORK_ONLY = "network-only"
    STUCK = "stuck"
    REPLACED = "replaced"
    LOCAL = "local"


class Policy(StrEnum):
    """What a machine without an assignment gets."""

    WAIT = "wait"
    DEFAULT = "default"
    LOCAL = "local"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of an image: digest and size of the bytes served, size after decompression."""

    digest: Digest
    size: int
    raw_size: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """What a spec builds to. `digest` covers kernel, uncompressed initrd, cmdline and arch; never changes."""

    digest: Digest
    spec: str
    kernel: Blob
    initrd: Blob
    cmdline: str
    arch: str  # Go spelling: amd64, arm64
    created: When = 0.0  # Unix seconds of the build, for people only
    tags: tuple[str, ...] = ()  # "web:latest"
    uki: Blob | None = None  # kernel, initrd and cmdline as one EFI program, when one was made

    @property
    def short(self) -> str:
        """'web@3f2a9c1d0b7e': how people see it."""
        return f"{self.spec}@{self.digest.removeprefix('sha256:')[:12]}"


@dataclass(frozen=True, slots=True)
class Pin:
    """An administrator's word that overrides what decide() would choose; empty = not pinned."""

    style: str = ""  # see boot/decide.py STYLES
    loader: str = ""  # a file name of the loader set, or UKI: no loader, the image itself


@dataclass(frozen=True, slots=True)
class Machine:
    """A physical host. `known` is false for one that only showed up on the wire."""

    id: int
    name: str
    macs: tuple[Mac, ...]
    known: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    vars: Mapping[str, str] = field(default_factory=dict)
    cmdline: tuple[str, ...] = ()  # edits, see boot/cmdline.py: "k=v" replaces, "-k" removes
    template: str = ""  # own iPXE template, a file name in the template directories
    pin: Pin = Pin()
    arch: str = ""  # learnt: amd64, arm64, ... ("" = not seen yet)
    memory_mib: int | None = None  # learnt from iPXE or the agent
    facts: Mapping[str, str] = field(default_factory=dict)  # uuid, serial, manufacturer, product, firmware, ...

    @property
    def mac(self) -> Mac:
        """The first MAC; the one people see."""
        return self.macs[0]


@dataclass(frozen=True, slots=True)
class Assignment:
    """machine -> image, bound by digest. `follow` means: the newest build of `spec` at each boot."""

    machine: int
    spec: str
    image: Digest
    revision: int
    follow: bool = False
    args: tuple[str, ...] = ()  # --arg edits of the command line
    at: When = 0.0
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """One step of a decision: where the fact came from, what it says ("arch", "7 (x86-64 EFI) from option 93")."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a boot or a machine. `stage` set = the boot reached that stage."""

    at: When  # Unix seconds
    kind: str  # "offer", "loader", ... one of STAGES, or "note", "log", "cause"
    mac: Mac = ""
    boot: str = ""  # hex boot id, "" when the event belongs to no boot
    stage: Stage | None = None
    peer: str = ""  # "10.0.0.17" or "10.0.0.17:1234"
    bytes: int = 0
    seconds: float = 0.0  # how long a transfer took
    text: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


class Recent(NamedTuple):
    """What one MAC did lately: what decide() may look at besides the fleet. Times are Unix seconds, 0 = never."""

    boot: str  # hex boot id of the current boot
    started: float
    last: float
    image: Digest = ""  # that the last answer bound to this boot, "" for none
    revision: int = 0  # of the assignment that it was bound by
    style: str = ""  # style of the last answer
    discovers: int = 0  # DISCOVERs answered since the last sign of life (4011, TFTP, HTTP)
    loader: str = ""  # last loader wholly fetched
    loader_at: float = 0.0
    loader_cycles: int = 0  # loaders fetched in a row with no script asked for
    script_at: float = 0.0
    stage: Stage = Stage.OFFER


@dataclass(frozen=True, slots=True)
class FleetView:
    """All that deciding needs, immutable; swapped when `generation` moves. Never a database read per packet."""

    generation: int = 0
    machines: Mapping[int, Machine] = field(default_factory=dict)
    by_mac: Mapping[Mac, int] = field(default_factory=dict)
    assignments: Mapping[int, Assignment] = field(default_factory=dict)
    past: Mapping[int, tuple[Assignment, ...]] = field(default_factory=dict)  # replaced in the last hour, newest first
    images: Mapping[Digest, Image] = field(default_factory=dict)
    newest: Mapping[str, Digest] = field(default_factory=dict)  # spec name -> newest built image
    policy: Policy = Policy.WAIT

    def machine(self, mac: Mac) -> Machine | None:
        ident = self.by_mac.get(mac)
        return None if ident is None else self.machines.get(ident)

    def image_by_prefix(self, hex_prefix: str) -> Image | None:
        """The image whose digest begins with these hex digits (tokens carry 16 of its 32 bytes)."""
        want = "sha256:" + hex_prefix
        return next((i for d, i in self.images.items() if d.startswith(want)), None)
