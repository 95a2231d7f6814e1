"""Server-sent events: what listeners are told, when, and that none costs anything once it has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pxeserver.errors import PxeServerError
from pxeserver.web.sse import Cursor, Hub, Look, frames, parse_cursor, topic


class Source:
    """A fleet that moves when told to; counts how often it was looked at."""

    def __init__(self) -> None:
        self.now = Cursor(1, 10)
        self.topics: frozenset[str] = frozenset()
        self.looks = 0
        self.fault = False

    def move(self, *topics: str) -> None:
        self.now = Cursor(self.now.generation, self.now.event + 1)
        self.topics = frozenset(topics)

    def look(self, since: Cursor | None) -> Look:
        self.looks += 1
        if self.fault:
            raise PxeServerError("database-locked", "the database is locked")
        return Look(self.now, self.topics if since != self.now else frozenset())


async def until(stream: AsyncGenerator[bytes, None], text: bytes) -> bytes:
    """What is sent, up to and with the part that has `text` in it."""
    got = b""
    async with asyncio.timeout(10):
        async for part in stream:
            got += part
            if text in part:
                return got
    raise AssertionError(f"the stream ended without {text!r}")


def hub(source: Source, heartbeat: float = 60.0) -> Hub:
    return Hub(source.look, interval=0.005, heartbeat=heartbeat)


def test_a_page_that_is_current_is_told_nothing_until_something_moves() -> None:
    async def scene() -> None:
        source = Source()
        stream = hub(source).stream("1.10")
        assert await anext(stream) == b"retry: 1000\n\n"
        source.move("fleet", topic("52:54:00:00:00:01"))
        got = await until(stream, b"fleet")
        assert got == b"event: fleet\nid: 1.11\ndata: 1.11\n\nevent: machine-525400000001\nid: 1.11\ndata: 1.11\n\n"
        await stream.aclose()

    asyncio.run(scene())


def test_a_page_that_fell_behind_is_told_at_once() -> None:
    async def scene() -> None:
        source = Source()
        source.topics = frozenset({"fleet"})
        stream = hub(source).stream("1.9")
        assert b"event: fleet\nid: 1.10" in await anext(stream)
        await stream.aclose()

    asyncio.run(scene())


def test_every_listener_is_told_by_one_poller_that_ends_with_the_last() -> None:
    async def scene() -> None:
        source = Source()
        shared = Hub(source.look, interval=0.05)
        streams = [shared.stream("1.10") for _ in range(50)]
        for stream in streams:
            await anext(stream)
        before = source.looks
        source.move("fleet")
        for stream in streams:
            await until(stream, b"fleet")
        assert source.looks - before < 25  # one look per interval, not one per listener
        for stream in streams:
            await stream.aclose()
        assert not shared.listeners
        rest = source.looks
        await asyncio.sleep(0.05)
        assert source.looks <= rest + 1

    asyncio.run(scene())


def test_silence_is_broken_by_comments() -> None:
    async def scene() -> None:
        stream = hub(Source(), heartbeat=0.01).stream("1.10")
        await until(stream, b": still here\n\n")
        await stream.aclose()

    asyncio.run(scene())


def test_a_locked_database_delays_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        source = Source()
        stream = hub(source).stream("1.10")
        await anext(stream)
        source.fault = True
        await asyncio.sleep(0.05)
        source.move("fleet")
        source.fault = False
        await until(stream, b"fleet")
        await stream.aclose()

    asyncio.run(scene())
    assert [r.message for r in caplog.records].count(
        "live pages stand still: error[database-locked]: the database is locked"
    ) == 1


@pytest.mark.parametrize("text", ["", "1", "1.", "a.b", "-1.5", "1.2.3", "9" * 30 + ".1"])
def test_a_cursor_that_nobody_gave_out_counts_as_none(text: str) -> None:
    assert parse_cursor(text) is None


def test_cursors_survive_the_way_through_a_page() -> None:
    assert parse_cursor(str(Cursor(3, 14))) == Cursor(3, 14)


def test_frames_are_events_without_content() -> None:
    assert frames(["resync"], Cursor(2, 3)) == b"event: resync\nid: 2.3\ndata: 2.3\n\n"
