"""Two hosts on one machine: `srv` with one CPU of its own, `cli` with the others, a wire between them (root).

cli 10.77.0.2 ---- 10.77.0.1 srv              Wire()
cli 10.77.0.2 ---- shim ---- 10.77.0.1 srv    Wire(delay_us=1000, loss=1.0): the shim delays and loses frames
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Self

from bench.cgroup import Group

SERVER, CLIENT, BITS = "10.77.0.1", "10.77.0.2", 16
LOAD = Path(__file__).parent / "load"
WORK = Path("var/bench")


def load_client(name: str) -> str:
    """The path of a load client, compiled anew when its source is younger."""
    source, binary = LOAD / f"{name}.c", (WORK / name).absolute()
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return str(binary)


def version(*argv: str) -> str:
    """The first line of what a program says about its version."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def package(name: str) -> str:
    """A distribution package's version."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", name], capture_output=True, text=True, check=False)
    return done.stdout or "absent"


@dataclass
class Server:
    """A process in `srv` on the servers' CPU, with all that it started."""

    process: subprocess.Popen[bytes]
    group: Group
    log: Path
    _since: float = 0.0

    def mark(self) -> None:
        self._since = self.group.cpu_seconds()

    def cpu(self) -> float:
        """CPU seconds since `mark`."""
        return self.group.cpu_seconds() - self._since


@dataclass
class Wire:
    """The two namespaces, from `with` on. What runs in them is ended when the block ends."""

    delay_us: int = 0  # one way
    loss: float = 0.0  # per cent, each way
    realtime: bool = False  # servers and clients go before everything else on this machine: it need not be quiet
    prefix: str = field(default_factory=lambda: f"pxb-{secrets.token_hex(3)}")
    _servers: list[Server] = field(default_factory=list)

    def __enter__(self) -> Self:
        WORK.mkdir(parents=True, exist_ok=True)
        self.folder = (WORK / self.prefix).absolute()
        self.folder.mkdir()
        self.folder.chmod(0o755)
        shimmed = bool(self.delay_us or self.loss)
        try:
            for role in ("srv", "cli", "shim")[: 3 if shimmed else 2]:
                self._run("ip", "netns", "add", self.namespace(role))
                self.ip(role, "link", "set", "lo", "up")
            if shimmed:
                for role in ("srv", "cli"):
                    self._join(role, "shim", role)
            else:
                self._join("cli", "srv", "eth0")
            for role, address in (("srv", SERVER), ("cli", CLIENT)):
                self.ip(role, "addr", "add", f"{address}/{BITS}", "dev", "eth0")
            # the same for all servers, and no bbr, which a host may have: its timers would be most of what is measured
            here = ["dev", "eth0", "src", SERVER, "congctl", "cubic"]
            self.ip("srv", "route", "replace", str(ip_interface(f"{SERVER}/{BITS}").network), *here)
            if shimmed:
                shim = [load_client("netshim"), "srv", "cli", str(self.delay_us), str(self.loss)]
                self.shim = self._spawn("shim", shim, "shim")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _join(self, one: str, other: str, name: str) -> None:
        self.ip(one, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", self.namespace(other))
        self.ip(one, "link", "set", "eth0", "up")
        self.ip(other, "link", "set", name, "up")

    def __exit__(self, *_: object) -> None:
        for server in reversed(self._servers):
            self.stop(server)
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
        for name in [x for x in names if x.startswith(f"{self.prefix}-")]:
            for pid in self._run("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            self._run("ip", "netns", "del", name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def namespace(self, role: str) -> str:
        return f"{self.prefix}-{role}"

    def ip(self, role: str, *argv: str) -> str:
        return self._run("ip", "-n", self.namespace(role), *argv)

    def argv(self, role: str, argv: Sequence[str]) -> list[str]:
        """A command inside a namespace: on CPU 0 in `srv`, elsewhere on the other CPUs. It dies with us."""
        cpus = "0" if role == "srv" or os.cpu_count() == 1 else f"1-{(os.cpu_count() or 2) - 1}"
        inside = ["ip", "netns", "exec", self.namespace(role)]
        first = ["chrt", "--rr", "10"] if self.realtime else []
        return [*first, "taskset", "-c", cpus, *inside, "setpriv", "--pdeathsig", "TERM", *argv]

    def serve(self, argv: Sequence[str], ready: Callable[[], bool], name: str = "", seconds: float = 30) -> Server:
        """Start a server and wait until `ready`."""
        server = self._spawn("srv", argv, name or Path(argv[0]).name)
        end = time.monotonic() + seconds
        while not ready():
            if server.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{argv[0]} did not start: {server.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return server

    def _spawn(self, role: str, argv: Sequence[str], name: str) -> Server:
        group = Group()
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                group.argv(self.argv(role, argv)), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        server = Server(process, group, log)
        self._servers.append(server)
        return server

    def stop(self, server: Server) -> None:
        """End a server and whatever it started."""
        if server in self._servers:
            self._servers.remove(server)
        if server.process.poll() is None:
            server.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(5)
        for pid in (server.group.cpu / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        server.process.wait()
        server.group.close()

    @contextlib.contextmanager
    def serving(self, argv: Sequence[str], ready: Callable[[], bool], name: str = "") -> Iterator[Server]:
        server = self.serve(argv, ready, name)
        try:
            yield server
        finally:
            self.stop(server)

    def client(self, argv: Sequence[str], timeout: float = 300) -> str:
        """Run a command in `cli`; its standard output. A load client's exit code is not judged here."""
        done = subprocess.run(self.argv("cli", argv), capture_output=True, text=True, timeout=timeout, check=False)
        if not done.stdout:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def probe(self, code: str) -> bool:
        """True when this Python, run in `cli`, exits 0: what `ready` is made of."""
        argv = self.argv("cli", [sys.executable, "-c", code])
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode == 0

    def http_ready(self, url: str) -> Callable[[], bool]:
        return lambda: self.probe(f"import urllib.request as r; r.urlopen({url!r}, timeout=2).read()")

    def udp_bound(self, port: int) -> Callable[[], bool]:
        """True once something in `srv` has a UDP port."""

        def bound() -> bool:
            listing = self._run("ip", "netns", "exec", self.namespace("srv"), "cat", "/proc/net/udp")
            return any(int(row.split()[1].rpartition(":")[2], 16) == port for row in listing.splitlines()[1:])

        return bound

    @staticmethod
    def _run(*argv: str) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout


def ours(wire: Wire, data: Path, settings: dict[str, Any]) -> Server:
    """Our server in `srv`, with a configuration on top of the defaults; both its processes."""
    import yaml  # only a run of ours needs it

    config = wire.folder / "pxeserver.yaml"
    merged: dict[str, dict[str, Any]] = {
        "server": {"data": str(data.absolute()), "interfaces": ["eth0"]},
        "admin": {"socket": str(wire.folder / "api.sock")},
    }
    for section, keys in settings.items():
        merged.setdefault(section, {}).update(keys)
    config.write_text(yaml.safe_dump(merged))
    argv = [sys.executable, "-m", "pxeserver", "--config", str(config), "serve"]
    return wire.serve(argv, wire.http_ready(f"http://{SERVER}:8080/healthz"), "pxeserver", seconds=60)
