"""Whoever takes part of a file has a turn, and so has everybody else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pxeserver.serve.express import ExpressLoop
from pxeserver.serve.filepump import SHARE, FilePump


class Body:
    """A `Transfer` that counts; into /dev/null it is a peer that takes whatever it gets."""

    def __init__(self, fd: int, source: int, left: int) -> None:
        self.fd, self.source, self.offset, self.left = fd, source, 0, left
        self.shares = 0
        self.over = asyncio.Event()
        self.then: Callable[[], object] = lambda: None

    @property
    def moved(self) -> float:
        return 0.0

    @moved.setter
    def moved(self, now: float) -> None:
        self.shares += 1
        self.go_on()

    def go_on(self) -> None:
        pass

    def ended(self) -> None:
        self.over.set()
        self.then()


class Endless(Body):
    def go_on(self) -> None:
        self.offset, self.left = 0, 64 * SHARE


def endless(source: int, sinks: list[int]) -> list[Endless]:
    return [Endless(fd, source, 64 * SHARE) for fd in sinks]


@asynccontextmanager
async def begun(pump: FilePump, source: int, sink: int | None) -> AsyncGenerator[tuple[Body, socket.socket], None]:
    """A body that had its first turn, into `sink` or to the other end of a connection that nobody reads yet."""
    mine, other = socket.socketpair()
    with mine, other:
        mine.setblocking(False)
        other.setblocking(False)
        body = Body(mine.fileno() if sink is None else sink, source, 64 * SHARE)
        pump.start(body)
        await asyncio.sleep(0)
        yield body, other


@pytest.fixture
def source(tmp_path: Path) -> Generator[int, None, None]:
    path = tmp_path / "initrd"
    path.touch()
    os.truncate(path, 64 * SHARE)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def sinks() -> Generator[list[int], None, None]:
    fds = [os.open("/dev/null", os.O_WRONLY) for _ in range(20)]
    yield fds
    for fd in fds:
        os.close(fd)


def run(scene: Callable[[FilePump], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        pump = FilePump()
        pump.open()
        try:
            await asyncio.wait_for(scene(pump), 20)
        finally:
            pump.close()

    with asyncio.Runner(loop_factory=ExpressLoop) as runner:
        runner.run(whole())


def test_what_fits_into_one_share_is_out_in_one_turn(source: int, sinks: list[int]) -> None:
    async def scene(pump: FilePump) -> None:
        body = Body(sinks[0], source, SHARE)
        pump.start(body)
        assert body.left == SHARE, "whoever is ready has a turn before"
        await body.over.wait()
        assert (body.left, body.shares) == (0, 1)

    run(scene)


def test_all_get_on_together(source: int, sinks: list[int]) -> None:
    async def scene(pump: FilePump) -> None:
        bodies = [Body(fd, source, 64 * SHARE) for fd in sinks]
        for body in bodies:
            pump.start(body)
        seen: list[int] = []
        bodies[0].then = lambda: seen.extend(body.shares for body in bodies)
        await asyncio.gather(*(body.over.wait() for body in bodies))
        assert max(seen) - min(seen) <= 1
        assert [body.left for body in bodies] == [0] * len(bodies)

    run(scene)


def test_a_peer_with_a_full_buffer_gets_on_beside_those_that_take_everything(source: int, sinks: list[int]) -> None:
    async def scene(pump: FilePump) -> None:
        mine, other = socket.socketpair()
        with mine, other:
            mine.setblocking(False)
            other.setblocking(False)
            slow = Body(mine.fileno(), source, 3 * SHARE)
            pump.start(slow)
            fast = endless(source, sinks)
            for body in fast:
                pump.start(body)
            got = 0
            while got < 3 * SHARE:
                got += len(await asyncio.get_running_loop().sock_recv(other, 1 << 20))
            await slow.over.wait()
            assert slow.left == 0
            for body in fast:
                pump.stop(body)

    run(scene)


def test_the_loop_has_its_turn_while_peers_take_everything(source: int, sinks: list[int]) -> None:
    async def scene(pump: FilePump) -> None:
        bodies = endless(source, sinks)
        for body in bodies:
            pump.start(body)
        mine, other = socket.socketpair()
        with mine, other:
            mine.setblocking(False)
            other.send(b"x")
            await asyncio.sleep(0.01)
            assert await asyncio.get_running_loop().sock_recv(mine, 1) == b"x"
        for body in bodies:
            assert body.shares > 0
            pump.stop(body)

    run(scene)


@pytest.mark.parametrize("room", [True, False])
def test_a_transfer_that_was_stopped_is_not_touched_again(source: int, sinks: list[int], room: bool) -> None:
    async def scene(pump: FilePump) -> None:
        async with begun(pump, source, sinks[0] if room else None) as (body, other):
            before = body.offset
            pump.stop(body)
            if not room:
                other.recv(1 << 20)
            await asyncio.sleep(0.05)
            assert (body.offset, body.over.is_set()) == (before, False)

    run(scene)


@pytest.mark.parametrize("room", [True, False])
def test_a_file_that_became_shorter_ends_its_transfer(source: int, sinks: list[int], room: bool) -> None:
    async def scene(pump: FilePump) -> None:
        async with begun(pump, source, sinks[0] if room else None) as (body, other):
            os.truncate(source, 10)
            while not room and not body.over.is_set():
                try:
                    other.recv(1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0)
            await body.over.wait()
            assert body.left > 0

    run(scene)


def test_one_that_ends_may_begin_the_next_and_stop_another(source: int, sinks: list[int]) -> None:
    async def scene(pump: FilePump) -> None:
        first, second, third = (Body(fd, source, 2 * SHARE) for fd in sinks[:3])

        def go_on() -> None:
            pump.stop(second)
            pump.start(third)

        first.then = go_on
        pump.start(first)
        pump.start(second)
        await third.over.wait()
        assert (first.left, third.left) == (0, 0)
        assert not second.over.is_set() and second.left == SHARE

    run(scene)
