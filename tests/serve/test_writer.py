"""Events on their way to the database: never lost while there is room, never a wait for who brings them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from pxeserver.errors import PxeServerError
from pxeserver.model import Event
from pxeserver.serve import writer as module
from pxeserver.serve.writer import Writer


class Database:
    """Takes events, refuses them while `broken`, waits while `held`."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken: Exception | None = None
        self.held = threading.Event()
        self.held.set()
        self.called = threading.Event()

    def record(self, events: Sequence[Event]) -> None:
        self.called.set()
        assert self.held.wait(20)
        if self.broken is not None:
            raise self.broken
        self.events += [event.text for event in events]


@pytest.fixture
def database() -> Database:
    return Database()


def put(writer: Writer, *numbers: int) -> None:
    for number in numbers:
        writer.put(Event(0.0, "note", text=str(number)))


def test_events_arrive_in_their_order(database: Database) -> None:
    writer = Writer(database.record)
    put(writer, *range(5000))
    writer.close()
    assert database.events == [str(n) for n in range(5000)]
    assert (writer.written, writer.dropped) == (5000, 0)


def test_a_broken_database_gets_them_when_it_is_whole_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.01)
    database.broken = PxeServerError("database", "disk full")
    writer = Writer(database.record)
    put(writer, 1, 2)
    assert database.called.wait(20)
    put(writer, 3)
    database.broken = None
    writer.close(20)
    assert database.events == ["1", "2", "3"]
    assert caplog.text.count("disk full") == 1


def test_a_full_queue_drops_the_newest_and_counts_them(database: Database) -> None:
    database.held.clear()
    writer = Writer(database.record, maximum=10)
    put(writer, *range(30))
    assert (writer.waiting, writer.dropped) == (10, 20)
    database.held.set()
    writer.close(20)
    assert database.events == [str(n) for n in range(10)]


def test_what_the_database_can_never_take_does_not_block_the_rest(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.broken = ValueError("a bug")
    writer = Writer(database.record)
    put(writer, 1)
    while writer.dropped == 0:
        time.sleep(0.01)
    database.broken = None
    put(writer, 2)
    writer.close(20)
    assert database.events == ["2"]
    assert "a bug" in caplog.text


def test_closing_does_not_wait_for_a_database_that_stays_broken(database: Database) -> None:
    database.broken = PxeServerError("database", "locked")
    writer = Writer(database.record)
    put(writer, 1)
    writer.close(20)
    assert not writer._thread.is_alive()
    assert database.events == []
