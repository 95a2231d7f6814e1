"""CPU seconds and memory of a process with all its descendants, dead ones included: control groups, version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def _base(controller: str) -> Path:
    """Where groups of this controller are made: its own hierarchy (version 1), or the unified one."""
    return _ROOT / controller if (_ROOT / controller / "tasks").exists() else _ROOT


class Group:
    """`argv` starts a command inside the group; `close` removes the group once its processes are gone."""

    def __init__(self) -> None:
        name = f"pxe-bench-{secrets.token_hex(3)}"
        self.cpu, self.memory = _base("cpuacct") / name, _base("memory") / name
        for folder in {self.cpu, self.memory}:
            if folder.parent == _ROOT:
                with contextlib.suppress(OSError):
                    (_ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
            folder.mkdir()
        self.peak = 0  # bytes, while `watching`
        self._stop = threading.Event()

    def argv(self, argv: list[str]) -> list[str]:
        """A shell puts itself into the group before it becomes the command, so that nothing is missed."""
        joins = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in sorted({self.cpu, self.memory}))
        return ["sh", "-c", f'{joins}exec "$@"', "sh", *argv]

    def cpu_seconds(self) -> float:
        usage = self.cpu / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        stat = dict(line.split() for line in (self.cpu / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def memory_bytes(self) -> int:
        """What the processes hold now, less page cache."""
        stat = dict(line.split()[:2] for line in (self.memory / "memory.stat").read_text().splitlines())
        return int(stat["total_rss"] if "total_rss" in stat else stat["anon"])

    @contextlib.contextmanager
    def watching(self, every: float = 0.005) -> Iterator[Group]:
        """Note the highest `memory_bytes` seen in `peak` (bytes), looking every few milliseconds."""
        self.peak = 0
        self._stop.clear()
        thread = threading.Thread(target=self._watch, args=(every,))
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _watch(self, every: float) -> None:
        while not self._stop.wait(every):
            self.peak = max(self.peak, self.memory_bytes())

    def close(self) -> None:
        for folder in {self.cpu, self.memory}:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
                    break
                time.sleep(0.02)
