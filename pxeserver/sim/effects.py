"""What a simulated machine asks of the world around it, and what it is told. Values only."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Peer: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A DHCP packet from 0.0.0.0:68 to everybody's port 67."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """A UDP datagram from the machine's address and its local `port`."""

    payload: bytes
    to: Peer
    port: int


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for a datagram to a local port until then; answered by Heard, or None when it is later than `until`."""

    port: int
    until: float


@dataclass(frozen=True, slots=True)
class Heard:
    payload: bytes
    peer: Peer
    at: float


@dataclass(frozen=True, slots=True)
class Open:
    """A local UDP port at the machine's address, 0 for any; answered by its number."""

    port: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    port: int


@dataclass(frozen=True, slots=True)
class Clock:
    """Answered by the machine's seconds."""


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Use:
    """This address is the machine's now, by this DHCP server; answered by the address that it really gets to use."""

    address: str
    server: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """HTTP from the machine's address. `keep` bytes of the body come back, the rest is only counted and hashed."""

    method: str
    url: str
    keep: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What HTTP gave; `status` 0 with `why` when no whole answer came. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    sha256: str = ""
    body: bytes = b""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """A step for the person who watches."""

    stage: str
    text: str


Effect: TypeAlias = Broadcast | Send | Listen | Open | Close | Clock | Sleep | Use | Fetch | Say
Play: TypeAlias = Generator[Effect, Any, T]


class Stopped(Exception):
    """The machine cannot go on: at which stage, and why."""

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(f"{stage}: {why}")
        self.stage, self.why = stage, why
