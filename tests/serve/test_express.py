"""The loop's short way: whoever is called by it, asyncio gets its turn."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import pytest

from pxeserver.serve import express
from pxeserver.serve.express import ExpressLoop


def run(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=ExpressLoop) as runner:
        runner.run(asyncio.wait_for(scene, 20))


class Busy:
    """Descriptors that have something to read again as soon as they were read, and count it."""

    def __init__(self, loop: ExpressLoop, number: int) -> None:
        self.calls = 0
        self._loop = loop
        self._pairs = [socket.socketpair() for _ in range(number)]
        for mine, other in self._pairs:
            mine.setblocking(False)
            loop.watch(mine.fileno(), lambda now, mine=mine, other=other: self._called(mine, other))
            other.send(b"x")

    def _called(self, mine: socket.socket, other: socket.socket) -> None:
        self.calls += 1
        mine.recv(1)
        other.send(b"x")

    def close(self) -> None:
        for mine, other in self._pairs:
            self._loop.unwatch(mine.fileno())
            mine.close()
            other.close()


@pytest.fixture
def pair() -> Generator[tuple[socket.socket, socket.socket], None, None]:
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


@pytest.mark.parametrize("number", [1, 5, express.BATCH, 10 * express.BATCH])
def test_asyncio_is_served_while_transfers_never_pause(pair: tuple[socket.socket, socket.socket], number: int) -> None:
    mine, other = pair

    async def scene() -> None:
        loop = express.express()
        busy = Busy(loop, number)
        came: asyncio.Future[int] = loop.create_future()
        waits: list[int] = []

        def readable() -> None:
            mine.recv(1)
            waits.append(busy.calls - sent)
            if len(waits) < 20:
                send()
            else:
                came.set_result(0)

        def send() -> None:
            nonlocal sent
            sent = busy.calls
            other.send(b"x")

        sent = 0
        loop.add_reader(mine, readable)
        send()
        await came
        loop.remove_reader(mine)
        busy.close()
        assert max(waits) <= 3 * express.BATCH
        assert busy.calls > 0

    run(scene())


def test_timers_and_other_threads_are_heard_while_transfers_never_pause() -> None:
    async def scene() -> None:
        loop = express.express()
        busy = Busy(loop, 3)
        await asyncio.sleep(0.01)
        before = busy.calls
        assert await asyncio.to_thread(os.getpid) == os.getpid()
        await asyncio.sleep(0.01)
        assert busy.calls > before > 0
        busy.close()

    run(scene())


def _soon(done: asyncio.Event) -> None:
    express.express().call_soon(done.set)


def _task(done: asyncio.Event) -> None:
    async def task() -> None:
        done.set()

    _soon.kept = asyncio.get_running_loop().create_task(task())  # type: ignore[attr-defined]


def _timer(done: asyncio.Event) -> None:
    express.express().call_later(0.01, done.set)


def _future(done: asyncio.Event) -> None:
    future = express.express().create_future()
    future.add_done_callback(lambda _: done.set())
    future.set_result(None)


@pytest.mark.parametrize("schedule", [_soon, _task, _timer, _future])
def test_what_a_handler_gives_asyncio_to_do_is_done_though_nothing_else_happens(
    pair: tuple[socket.socket, socket.socket], schedule: Callable[[asyncio.Event], None]
) -> None:
    mine, other = pair

    async def scene() -> None:
        loop = express.express()
        done = asyncio.Event()

        def handler(now: float) -> None:
            assert abs(now - loop.time()) < 5
            loop.unwatch(mine.fileno())
            schedule(done)

        loop.watch(mine.fileno(), handler)
        other.send(b"x")
        await done.wait()

    run(scene())


def test_a_handler_may_close_another_one_s_descriptor() -> None:
    async def scene() -> None:
        loop = express.express()
        pairs = [socket.socketpair() for _ in range(2)]
        called: list[int] = []

        def handler(number: int, now: float) -> None:
            called.append(number)
            for mine, other in pairs:
                loop.unwatch(mine.fileno())
                mine.close()
                other.close()

        for number, (mine, other) in enumerate(pairs):
            loop.watch(mine.fileno(), partial(handler, number))
            other.send(b"x")
        await asyncio.sleep(0.01)
        assert len(called) == 1

    run(scene())


def test_a_handler_that_fails_costs_only_itself(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = pair
    calls = 0

    def handler(now: float) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    async def scene() -> None:
        loop = express.express()
        busy = Busy(loop, 2)
        loop.watch(mine.fileno(), handler)
        for _ in range(3):
            other.send(b"x")
            await asyncio.sleep(0.005)
        assert busy.calls > 0
        busy.close()

    run(scene())
    assert calls == 1
    assert "express handler failed" in caplog.text


def test_looking_ahead_in_vain_is_given_up_for_longer_each_time(pair: tuple[socket.socket, socket.socket]) -> None:
    async def scene() -> None:
        loop = express.express()
        loop.watch(pair[0].fileno(), lambda now: None)
        rests = []
        for _ in range(12):
            await asyncio.sleep(0.001)
            rests.append(loop._express._misses)
        assert rests == sorted(rests)
        assert rests[-1] >= 3
        loop.unwatch(pair[0].fileno())

    run(scene())


def test_another_loop_is_refused() -> None:
    async def scene() -> None:
        express.express()

    with pytest.raises(RuntimeError):
        asyncio.run(scene())
