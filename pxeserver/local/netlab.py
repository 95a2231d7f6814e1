"""A private network on this host: namespaces, a bridge, a foreign DHCP server, taps for machines.

    sw   bridge br0; machines' taps are its ports
    lan  10.77.0.1, the site's own DHCP server (dnsmasq): addresses and nothing else, IPv6 router advertisements
    srv  10.77.0.2, where the boot server runs

Nothing of it is visible outside its namespaces. `close` ends every process in them by pid and removes them. What a
run that died without closing left behind is removed by the next one: each lab leaves a record of its owner.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pxeserver.errors import PxeServerError, Refused, TimedOut, Unreachable
from pxeserver.mac import Mac
from pxeserver.tools import need_tools as need_tools

T = TypeVar("T")

RECORDS = Path("/run/pxeserver/labs")
ROLES = ("sw", "lan", "srv")
LAN_ADDRESS, SERVER_ADDRESS, NETWORK6 = "10.77.0.1", "10.77.0.2", "fd77::"
POOL = ("10.77.0.100", "10.77.0.199")
DHCP4 = (f"--dhcp-range={POOL[0]},{POOL[1]},255.255.255.0,1h", f"--dhcp-option=3,{LAN_ADDRESS}")
DHCP6 = (f"--dhcp-range={NETWORK6}100,{NETWORK6}1ff,64,1h", "--enable-ra")
TOOLS = {"ip": "iproute2", "dnsmasq": "dnsmasq-base", "setpriv": "util-linux"}
_FETCH = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])) as answer:
    sys.stdout.buffer.write(answer.read())
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that the foreign DHCP server handed out."""

    mac: Mac
    address: str


def wait_until(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first thing that `look` finds; TimedOut naming `what` after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise TimedOut("lab-timeout", f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


def stop(process: subprocess.Popen[Any], patience: float = 5.0) -> None:
    """SIGTERM, then SIGKILL after `patience` seconds; returns when the process is gone."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Lab:
    """One private network. `folder` keeps the logs of what runs in it, and stays.

    `next_server` is what the site's DHCP server says of it; "" as dnsmasq does by itself: its own address.
    """

    dhcp: tuple[str, ...] = (*DHCP4, *DHCP6)  # what the site's DHCP server, dnsmasq, is told besides

    def __init__(self, folder: Path, next_server: str = "") -> None:
        self.folder = folder
        self.next_server = next_server
        self.prefix = f"pxe-{secrets.token_hex(3)}"
        self.processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Refused("not-root", "a private network needs root", hint="run it with sudo")
        need_tools(TOOLS)
        clear_stale()
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_record(self.prefix)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        for role in ROLES:
            _run("ip", "netns", "add", self.namespace(role))
            self.ip(role, "link", "set", "lo", "up")
        # no spanning tree and no snooping: a frame passes from the first moment
        self.ip("sw", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        self.ip("sw", "link", "set", "br0", "up")
        self.attach("lan", LAN_ADDRESS, f"{NETWORK6}1")
        self.attach("srv", SERVER_ADDRESS, f"{NETWORK6}2")
        self.ip("srv", "route", "add", "default", "via", LAN_ADDRESS)
        self._start_dhcp()

    def attach(self, role: str, address: str = "", address6: str = "") -> None:
        """Give the namespace of `role` an eth0 on the bridge, made first when it is a new role."""
        if self.namespace(role) not in _namespaces():
            _run("ip", "netns", "add", self.namespace(role))
        self.ip("sw", "link", "add", role, "type", "veth", "peer", "name", "eth0", "netns", self.namespace(role))
        self.ip("sw", "link", "set", role, "master", "br0", "up")
        self.ip(role, "link", "set", "eth0", "up")
        if address:
            self.ip(role, "addr", "add", f"{address}/24", "dev", "eth0")
        if address6:
            self.ip(role, "addr", "add", f"{address6}/64", "dev", "eth0", "nodad")

    def _start_dhcp(self) -> None:
        """The site's DHCP server: no boot options. Old iPXE waits 16 s for an IPv6 router, so one is advertised."""
        self.spawn(
            "lan",
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"),
                *("--log-dhcp", "--log-facility=-", "--no-ping", "--dhcp-authoritative"),
                *(f"--pid-file={self.folder}/lan.pid", f"--dhcp-leasefile={self.folder}/lan.leases"),
                *self.dhcp,
                *([f"--dhcp-boot=,,{self.next_server}"] if self.next_server else []),
            ],
        )
        wait_until(lambda: ", IP range" in self.log("lan"), 10, "the start of the foreign DHCP server")

    def namespace(self, role: str) -> str:
        return f"{self.prefix}-{role}"

    def ip(self, role: str, *argv: str) -> str:
        """Run `ip` on the namespace of `role`; its output."""
        return _run("ip", "-n", self.namespace(role), *argv)

    def tap(self, name: str) -> str:
        """A new port of the bridge for a machine; its interface name in namespace sw."""
        self.ip("sw", "tuntap", "add", "dev", name, "mode", "tap")
        self.ip("sw", "link", "set", name, "master", "br0", "up")
        return name

    def untap(self, name: str) -> None:
        self.ip("sw", "link", "del", name)

    def argv(self, role: str, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside the namespace of `role`; it is ended should we die first."""
        return ["ip", "netns", "exec", self.namespace(role), "setpriv", "--pdeathsig", "TERM", *argv]

    def spawn(self, role: str, argv: Sequence[str], log: str = "") -> subprocess.Popen[bytes]:
        """Start a process in a namespace; what it says goes to <folder>/<log or role>.log."""
        with (self.folder / f"{log or role}.log").open("ab") as out:
            process = subprocess.Popen(
                self.argv(role, argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        """What <folder>/<name>.log says by now."""
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def leases(self) -> tuple[Lease, ...]:
        """The IPv4 addresses that the foreign DHCP server handed out."""
        file = self.folder / "lan.leases"
        rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        # "expiry mac address name client-id"; IPv6 rows have a number where the MAC would be
        return tuple(Lease(row[1], row[2]) for row in rows if len(row) == 5 and row[1].count(":") == 5)

    def fetch(self, role: str, url: str, timeout: float = 10.0) -> bytes:
        """GET `url` from inside a namespace; Unreachable when that fails."""
        argv = self.argv(role, [sys.executable, "-c", _FETCH, url, str(timeout)])
        done = subprocess.run(argv, capture_output=True, check=False)
        if done.returncode:
            why = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
            raise Unreachable("lab-fetch", f"{url} does not answer: {why}")
        return done.stdout

    def close(self) -> None:
        """End what runs in the namespaces and remove them; safe to call again."""
        for process in reversed(self.processes):
            stop(process)
        self.processes.clear()
        _remove(self.prefix)


def clear_stale() -> tuple[str, ...]:
    """Remove the labs whose owner is gone; their prefixes."""
    stale = []
    for record in RECORDS.glob("pxe-*"):
        pid, _, born = record.read_text().partition(" ")
        if _born(int(pid)) != born.strip():
            _remove(record.name)
            stale.append(record.name)
    return tuple(stale)


def _write_record(prefix: str) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    # whole or not at all: another run may be looking for stale ones right now
    fresh = RECORDS / f".{prefix}"
    fresh.write_text(f"{os.getpid()} {_born(os.getpid())}")
    fresh.rename(RECORDS / prefix)


def _remove(prefix: str) -> None:
    """Kill by pid whatever still runs in the lab's namespaces, then remove them and the record."""
    mine = [name for name in _namespaces() if name.startswith(f"{prefix}-")]
    for name in mine:
        for pid in _run("ip", "netns", "pids", name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself meanwhile
    for name in mine:
        _run("ip", "netns", "del", name)
    (RECORDS / prefix).unlink(missing_ok=True)


def _namespaces() -> set[str]:
    return {line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line}


def _born(pid: int) -> str:
    """When a process was started, in clock ticks since boot; "" when there is none. Tells a reused pid from ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PxeServerError("lab-failed", f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
