"""Files to be sent are opened once a second at most, and no longer than anybody needs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pxeserver.serve.openfiles import KEPT_MAX, KEPT_SECONDS, OpenFile, OpenFiles


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def is_open(file: OpenFile) -> bool:
    try:
        os.fstat(file.fd)
    except OSError:
        return False
    return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_file_is_opened_once_for_all_who_come_within_a_second(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"old, of 10")
    files = OpenFiles(clock)
    first, second = files.take(path), files.take(path)
    assert first is second and first.size == 10
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(path)
    clock.now += KEPT_SECONDS
    third = files.take(path)
    assert os.pread(third.fd, 10, 0) == b"new" and third.size == 3
    assert os.pread(first.fd, 10, 0) == b"old, of 10", "who has it goes on with it"
    first.close()
    assert is_open(second)
    second.close()
    assert not is_open(second)
    third.close()
    assert is_open(third)
    files.close()
    assert not is_open(third)


def test_what_nobody_asks_for_any_more_is_closed(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(b"x")
    files = OpenFiles(clock)
    file = files.take(path)
    file.close()
    files.sweep()
    assert is_open(file)
    clock.now += KEPT_SECONDS
    files.sweep()
    assert not is_open(file)


def test_no_more_than_a_number_are_kept(tmp_path: Path, clock: Clock) -> None:
    files = OpenFiles(clock)
    taken = []
    for number in range(KEPT_MAX + 3):
        path = tmp_path / str(number)
        path.touch()
        taken.append(files.take(path))
        taken[-1].close()
    assert [is_open(file) for file in taken] == [True] * KEPT_MAX + [False] * 3
    files.close()
    assert not any(map(is_open, taken))


def test_only_files_are_opened(tmp_path: Path, clock: Clock) -> None:
    files = OpenFiles(clock)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "pipe"):
        with pytest.raises(OSError):
            files.take(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            files.take(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
