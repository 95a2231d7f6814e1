"""`pxeserver demo --once`: ends 0 only when the machine came up, leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxeserver.local import netlab


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    """A data folder with the session's images and a fleet of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("store", "cache"):
        (folder / name).symlink_to(built / name)
    return folder


class Demo:
    """A demo in the background; its words so far."""

    def __init__(self, data: Path) -> None:
        self.file = data / "said"
        argv = [sys.executable, "-m", "pxeserver", "--data", str(data), "demo", "--once"]
        with self.file.open("wb") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def prefix(self) -> str:
        """Of its private network, while it has one."""
        records = {record.name: record.read_text().split()[0] for record in netlab.RECORDS.glob("pxe-*")}
        return next((name for name, pid in records.items() if pid == str(self.process.pid)), "")

    @property
    def said(self) -> str:
        return self.file.read_text()

    def says(self, pattern: str) -> str:
        """Wait until it says something; the match."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.said)
            assert found or self.process.poll() is None, self.said
            return found

        return netlab.wait_until(look, 300, f"'{pattern}' from the demo")[0]


def namespaces(prefix: str) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(prefix)]


@pytest.fixture
def demo(data: Path) -> Iterator[Demo]:
    running = Demo(data)
    prefix = ""
    try:
        running.says("page: http://127.0.0.1:")
        prefix = running.prefix
        assert len(namespaces(prefix)) == 3
        yield running
    finally:
        netlab.stop(running.process, 30)
    assert namespaces(prefix) == []
    assert running.prefix == ""


def test_the_demo_ends_0_with_the_machine_s_page(demo: Demo) -> None:
    assert demo.process.wait(400) == 0, demo.said
    for stage in ("offer", "script", "kernel", "initrd", "network", "containerd", "up"):
        assert re.search(rf"^ *\d+\.\d s  {stage} ", demo.said, re.MULTILINE), demo.said
    assert "in the private network says" in demo.said


def test_with_the_server_killed_during_the_initrd_it_fails_and_names_the_stage(demo: Demo) -> None:
    demo.says(r"(?m)^ *[0-9.]+ s  kernel ")
    for pid in server_pids(demo.prefix):
        os.kill(pid, signal.SIGKILL)
    assert demo.process.wait(60) == 1, demo.said
    assert "error[demo-failed]: the boot server ended during initrd" in demo.said


def test_a_terminated_demo_leaves_nothing_behind(demo: Demo) -> None:
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(30) == 130, demo.said


def server_pids(prefix: str) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", f"{prefix}-srv"], capture_output=True, text=True, check=True)
    return [int(pid) for pid in listed.stdout.split()]
