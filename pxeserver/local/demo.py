"""The whole way on this host: build, serve, power on a diskless machine in a private network, follow it until it is up.

What is built stays in the data folder; the network, the server and the machine are gone when the block ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from pxeserver import config as configuration
from pxeserver.config import Config
from pxeserver.errors import PxeServerError, TimedOut, Unreachable
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.fleet.values import AssignOrder, BootRecord, MachineEdit
from pxeserver.local import netlab, qemu
from pxeserver.local.demo_forward import forward
from pxeserver.local.loaders_fetch import ensure
from pxeserver.mac import Mac
from pxeserver.model import STAGES, Result, Stage

# No new stage for so long: the demo gives up. The slowest one, the initrd in software emulation, takes some 30 s.
PATIENCE = 180.0
_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Running:
    """A demo whose machine has power. Times are Unix seconds."""

    fleet: Fleet
    lab: netlab.Lab
    server: subprocess.Popen[bytes]
    machine: qemu.Machine
    url: str  # of the admin page, on this host's loopback

    @property
    def mac(self) -> Mac:
        return self.machine.hardware.mac

    @property
    def started(self) -> float:
        return self.machine.started

    def record(self) -> BootRecord | None:
        """The machine's boot of this demo as far as it has come; None before its first packet."""
        newest = self.fleet.boots(self.mac, limit=1)
        return newest[0] if newest and newest[0].last >= self.started else None

    def follow(self) -> Iterator[BootRecord | None]:
        """The record, again and again, until the machine is up.

        PxeServerError "demo-failed" when the server or the machine ended or the boot is stuck, TimedOut
        "demo-stuck" when nothing new happened for PATIENCE seconds; both name the stage it was in.
        """
        reached, since = None, time.monotonic()
        while True:
            record = self.record()
            yield record
            stage = None if record is None else record.stage
            if record is not None and record.result == Result.UP:
                return
            if stage != reached:
                reached, since = stage, time.monotonic()
            self._check(record)
            if time.monotonic() - since > PATIENCE:
                raise TimedOut(
                    "demo-stuck", f"nothing new for {PATIENCE:g} s {during(stage)}", hint=f"logs: {self.lab.folder}"
                )
            time.sleep(_POLL)

    def _check(self, record: BootRecord | None) -> None:
        """Say why it cannot go on, if it cannot."""
        why = ""
        if self.server.poll() is not None:
            why = "the boot server ended"
        elif not self.machine.running:
            why = "the machine ended"
        elif record is not None and record.cause is not None:
            why = record.cause.text
        if why:
            stage = None if record is None else record.stage
            raise PxeServerError("demo-failed", f"{why} {during(stage)}", hint=f"logs: {self.lab.folder}")

    def page(self, patience: float = 30.0) -> tuple[str, bytes]:
        """(URL, content) of what the machine's own web server shows; Unreachable when it does not come."""
        end = time.monotonic() + patience
        while True:
            # the booted system may ask for another address than its firmware did
            for address in reversed([x.address for x in self.lab.leases() if x.mac == self.mac]):
                with contextlib.suppress(Unreachable):
                    return f"http://{address}/", self.lab.fetch("lan", f"http://{address}/", timeout=3)
            if time.monotonic() > end:
                raise Unreachable(
                    "demo-no-page",
                    "the machine is up, but its web server does not answer",
                    hint=self.machine.console[-500:],
                )
            time.sleep(_POLL)


def during(reached: Stage | None) -> str:
    """'during the initrd': the stage that a boot is in, from the last one that it has reached."""
    if reached is None:
        return "before the machine's first DHCP packet"
    if reached is Stage.UP:
        return "after it was up"
    return f"during {STAGES[STAGES.index(reached) + 1]}"


def configure(data: Path, folder: Path) -> Path:
    """The configuration file of the demo's server."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pxeserver.yaml"
    settings = {
        "server": {"data": str(data.absolute()), "interfaces": ["eth0"]},
        "admin": {"socket": str((folder / "api.sock").absolute())},
    }
    file.write_text(yaml.safe_dump(settings))
    return file


def serve(lab: netlab.Lab, config_file: Path, config: Config) -> subprocess.Popen[bytes]:
    """Start `pxeserver serve` in the lab and wait until it answers; PxeServerError "demo-failed" if it ends before."""
    socket = Path(config.admin.socket)
    socket.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pxeserver", "--config", str(config_file), "serve"]
    server = lab.spawn("srv", argv, "serve")
    health = f"http://{netlab.SERVER_ADDRESS}:{config.http.port}/healthz"

    def ready() -> bool:
        if server.poll() is not None:
            raise PxeServerError("demo-failed", f"the boot server ended: {lab.log('serve').strip()[-1500:]}")
        if not socket.exists():
            return False
        with contextlib.suppress(Unreachable):
            return bool(lab.fetch("srv", health, timeout=2))
        return False

    netlab.wait_until(ready, 60, "the start of the boot server")
    return server


def name_of(mac: Mac) -> str:
    """'demo-1' for ...:01: what the machine is called in the fleet and in the logs."""
    return f"demo-{int(mac[-2:], 16)}"


def register(fleet: Fleet, mac: Mac, spec: str, loader: str = "") -> None:
    """Make the machine known, if it is not, and give it the newest image of `spec`; `loader` pins it to that one."""
    if mac not in fleet.view().by_mac:
        fleet.add_machine(MachineEdit(name=name_of(mac), macs=(mac,)))
    if loader:
        fleet.pin(mac, loader=loader)
    fleet.assign([mac], AssignOrder(what=spec, reason="demo"))


@contextlib.contextmanager
def running(data: Path, spec: str, hardware: qemu.Hardware, loader: str = "") -> Iterator[Running]:
    """The demo from the private network to the machine's power; `spec` must have been built in `data`."""
    folder = data.absolute().parent / "demo"
    config_file = configure(data, folder)
    config = configuration.load(config_file, environ={})
    ensure(data)
    with contextlib.ExitStack() as stack:
        fleet = open_fleet(config)
        stack.callback(fleet.close)
        register(fleet, hardware.mac, spec, loader)
        lab = stack.enter_context(netlab.Lab(folder))
        server = serve(lab, config_file, config)
        url = stack.enter_context(forward(Path(config.admin.socket), config.admin.port))
        machine = stack.enter_context(qemu.Machine(lab, name_of(hardware.mac), hardware))
        yield Running(fleet, lab, server, machine, url)
