"""Live pages: one poller tells all listeners what changed, as server-sent events; no thread and no query per listener.

An event has a name and no content: `fleet` (anything), `machine-<12 hex digits>` (that machine), `resync` (assignments
or images moved, or the listener was away too long to say what). A page listens for its names and fetches itself then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from pxeserver.errors import PxeServerError
from pxeserver.fleet.changes import changes
from pxeserver.fleet.fleet import Fleet
from pxeserver.mac import Mac

log = logging.getLogger(__name__)

PATH = "/events"
TYPE = "text/event-stream"
INTERVAL = 0.2  # seconds between looks at the database
REST = 0.5  # seconds between two tellings: a storm of events must not make every page draw itself all the time
HEARTBEAT = 15.0  # seconds of silence after which a comment keeps middle boxes and dead peers honest


@dataclass(frozen=True, slots=True)
class Cursor:
    """A moment of the fleet: its generation and its last event."""

    generation: int = -1
    event: int = -1

    def __str__(self) -> str:
        return f"{self.generation}.{self.event}"


@dataclass(frozen=True, slots=True)
class Look:
    """Where the fleet stands now, and the names of what changed since the cursor asked about."""

    cursor: Cursor
    topics: frozenset[str]


def parse_cursor(text: str) -> Cursor | None:
    """The inverse of str(Cursor); None for what no page of ours gave out."""
    generation, _, event = text.partition(".")
    if all(part.isascii() and part.isdigit() and len(part) < 20 for part in (generation, event)):
        return Cursor(int(generation), int(event))
    return None


def topic(mac: Mac) -> str:
    return "machine-" + mac.replace(":", "")


def look(fleet: Fleet, since: Cursor | None) -> Look:
    """Two small reads. Without `since` everything counts as changed."""
    generation = fleet.generation()
    found = changes(fleet.database, since.event if since else None)
    now = Cursor(generation, found.last)
    if now == since:
        return Look(now, frozenset())
    topics = {"fleet", *(topic(mac) for mac in found.macs)}
    if since is None or since.generation != generation or found.more:
        topics.add("resync")
    return Look(now, frozenset(topics))


def cursor(fleet: Fleet) -> Cursor:
    """Where the fleet stands. A page takes this before its data: a change in between is told, never lost."""
    return Cursor(fleet.generation(), changes(fleet.database, None).last)


def frames(names: Iterable[str], now: Cursor) -> bytes:
    """One event per name; each carries the cursor, so that a listener that comes back says where it was."""
    return b"".join(f"event: {name}\nid: {now}\ndata: {now}\n\n".encode() for name in sorted(names))


@dataclass(eq=False, slots=True)
class _Listener:
    topics: set[str] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Hub:
    """The listeners of one process. Looks run in a thread, and only while somebody listens."""

    look: Callable[[Cursor | None], Look]
    interval: float = INTERVAL
    rest: float = REST
    heartbeat: float = HEARTBEAT
    listeners: set[_Listener] = field(default_factory=set)
    _cursor: Cursor | None = None  # None: the poller has not looked yet
    _based: asyncio.Event = field(default_factory=asyncio.Event)
    _poller: asyncio.Task[None] | None = None

    async def stream(self, since: str) -> AsyncGenerator[bytes, None]:
        """What one listener is sent, until it is closed. `since` is the cursor of its page or its Last-Event-ID."""
        listener = _Listener()
        self.listeners.add(listener)
        try:
            if self._poller is None or self._poller.done():
                self._poller = asyncio.get_running_loop().create_task(self._poll())
            await (
                self._based.wait()
            )  # from here on the poller tells this listener everything; `first` is what was before
            first = await asyncio.to_thread(self.look, parse_cursor(since))
            yield b"retry: 1000\n\n" + frames(first.topics, first.cursor)
            while True:
                try:
                    await asyncio.wait_for(listener.wake.wait(), self.heartbeat)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                listener.wake.clear()
                topics, listener.topics = listener.topics, set()
                yield frames(topics, self._cursor or first.cursor)
                await asyncio.sleep(self.rest)
        finally:
            self.listeners.discard(listener)
            if not self.listeners and self._poller is not None:
                self._poller.cancel()
                self._poller, self._cursor = None, None
                self._based.clear()

    async def _poll(self) -> None:
        told = False
        while True:
            try:
                seen = await asyncio.to_thread(self.look, self._cursor)
            except PxeServerError as error:  # a locked database or a full disk passes; say so once
                if not told:
                    log.warning("live pages stand still: %s", error)
                told = True
            else:
                told = False
                news = seen.topics if self._cursor is not None else frozenset()
                self._cursor = seen.cursor
                self._based.set()
                for listener in self.listeners if news else ():
                    listener.topics |= news
                    listener.wake.set()
            await asyncio.sleep(self.interval)
