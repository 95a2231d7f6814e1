"""Events on their way through a process of their own: written, refused with the fleet's own errors, written again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.config import Config, Database, Server
from pxeserver.errors import PxeServerError
from pxeserver.fleet.fleet import open_fleet
from pxeserver.model import Event, Stage
from pxeserver.serve.recording import Recording, pack_event, parse_event

MAC, BOOT = "52:54:00:00:00:01", "00112233445566ff"
NOW = time.time()  # what is older than `boot.keep_days` is cleared away


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(server=Server(data=str(tmp_path)))


@pytest.fixture
def recording(config: Config) -> Generator[Recording, None, None]:
    made = Recording(config)
    yield made
    made.close()


def texts(config: Config) -> list[str]:
    fleet = open_fleet(config)
    try:
        return [event.text for event in fleet.events()]
    finally:
        fleet.close()


def child() -> int:
    """The process that writes down: the only one of ours."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (pid,) = [pid for pid in found if b"pxeserver.serve.recording" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(pid)


@given(
    st.builds(
        Event,
        at=st.floats(allow_nan=False),
        kind=st.text(),
        mac=st.text(),
        boot=st.text(),
        stage=st.sampled_from([None, *Stage]),
        peer=st.text(),
        bytes=st.integers(),
        seconds=st.floats(allow_nan=False),
        text=st.text(st.characters(exclude_categories=())),
        data=st.dictionaries(st.text(), st.text(st.characters(exclude_categories=()))),
    )
)
def test_an_event_is_a_line_and_the_same_event_again(event: Event) -> None:
    line = pack_event(event)
    assert line.count(b"\n") == 1
    assert parse_event(line) == event


def test_events_are_in_the_fleet_once_they_are_recorded(config: Config, recording: Recording) -> None:
    recording.record(
        [Event(NOW + 1, "offer", MAC, BOOT, Stage.OFFER, text="a"), Event(NOW + 2, "note", MAC, text="b\ud800")]
    )
    recording.record([Event(NOW + 3, "script", MAC, BOOT, Stage.SCRIPT, text="c", data={"ip": "10.0.0.7"})])
    assert texts(config) == ["a", "b?", "c"]
    fleet = open_fleet(config)
    assert fleet.boots()[0].id == BOOT
    fleet.close()


def test_it_goes_behind_the_server(recording: Recording) -> None:
    recording.record([])  # it runs
    assert os.sched_getscheduler(child()) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, child()) > os.getpriority(os.PRIO_PROCESS, 0)


def test_a_process_that_died_is_started_anew(config: Config, recording: Recording) -> None:
    recording.record([Event(NOW + 1, "note", MAC, text="before")])
    os.kill(child(), signal.SIGKILL)
    with pytest.raises(PxeServerError, match="ended") as fault:
        recording.record([Event(NOW + 2, "note", MAC, text="again")])
    assert fault.value.slug == "part-died"
    recording.record([Event(NOW + 2, "note", MAC, text="again")])
    assert texts(config) == ["before", "again"]


def test_another_configuration_is_in_force_with_the_next_events(tmp_path: Path, recording: Recording) -> None:
    other = Config(server=Server(data=str(tmp_path / "other")))
    recording.config = other
    recording.record([Event(NOW + 1, "note", MAC, text="there")])
    assert texts(other) == ["there"]


def test_what_the_database_says_is_what_the_caller_hears(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    recording = Recording(
        Config(server=Server(data=str(tmp_path)), database=Database(url=f"sqlite:///{tmp_path}/file/x.db"))
    )
    with pytest.raises(PxeServerError) as fault:
        recording.record([Event(NOW + 1, "note", MAC)])
    assert fault.value.slug.startswith("database")
    recording.close()


def test_it_ends_with_who_started_it(recording: Recording) -> None:
    recording.record([])
    pid = child()
    recording.close()
    assert not Path(f"/proc/{pid}").exists()
