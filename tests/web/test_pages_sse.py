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
        self.moves: list[frozenset[str]] = []
        self.looks = 0
        self.fault = False

    @property
    def now(self) -> Cursor:
        return Cursor(1, 10 + len(self.moves))

    def move(self, *topics: str) -> None:
        self.moves.append(frozenset(topics))

    def look(self, since: Cursor | None) -> Look:
        self.looks += 1
        if self.fault:
            raise PxeServerError("database-locked", "the database is locked")
        first = 0 if since is None else since.event - 10
        return Look(self.now, frozenset().union(*self.moves[first:]))


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
    return Hub(source.look, interval=0.005, rest=0.0, heartbeat=heartbeat)


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
        source.move("fleet")
        stream = hub(source).stream("1.10")
        assert b"event: fleet\nid: 1.11" in await anext(stream)
        await stream.aclose()

    asyncio.run(scene())


def test_every_listener_is_told_by_one_poller_that_ends_with_the_last() -> None:
    async def scene() -> None:
        source = Source()
        shared = Hub(source.look, interval=0.05, rest=0.0)
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


def test_a_storm_is_told_in_gusts_and_nothing_is_lost() -> None:
    async def scene() -> None:
        source = Source()
        stream = Hub(source.look, interval=0.001, rest=0.1).stream("1.10")
        await anext(stream)
        parts: list[bytes] = []

        async def listen() -> None:
            while not any(b"machine-39\n" in part for part in parts):
                parts.append(await anext(stream))

        async with asyncio.timeout(20):
            listening = asyncio.create_task(listen())
            for n in range(40):
                source.move("fleet", f"machine-{n}")
                await asyncio.sleep(0.005)
            await listening
        for n in range(40):
            assert sum(part.count(f"event: machine-{n}\n".encode()) for part in parts) == 1
        assert len(parts) < 40
        await stream.aclose()

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
