"""A whole site on this host for the end-to-end tests: the foreign DHCP server, our server, diskless machines.

Images are built once per session into var/e2e, which later sessions take up again; each test has its own fleet.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pxeserver import config as configuration
from pxeserver.config import Config, Server
from pxeserver.errors import Unreachable
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.fleet.values import BootRecord
from pxeserver.images.progress import Silent
from pxeserver.local import demo, netlab, qemu
from pxeserver.local.demo_prepare import prepare
from pxeserver.local.loaders import LoaderSet
from pxeserver.local.loaders_fetch import ensure
from pxeserver.mac import Mac
from pxeserver.model import Stage

TOP = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 420  # from power-on to `up` in software emulation, on a loaded host


def pxeserver(*argv: str) -> str:
    """Run the command line as a person does; its standard output."""
    done = subprocess.run([sys.executable, "-m", "pxeserver", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pxeserver {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built() -> Path:
    """A data folder with the base images and the images of the specs `web`, `tests/e2e/{other,personal}.yml`."""
    data = TOP / "var/e2e/data"
    config = Config(server=Server(data=str(data)))
    for spec in ("web", str(TOP / "tests/e2e/other.yml"), str(TOP / "tests/e2e/personal.yml")):
        prepare(config, spec, Silent())
    ensure(data)
    return data


@dataclass
class Site:
    """A running site. `started` are the machines that have power."""

    lab: netlab.Lab
    data: Path
    fleet: Fleet
    config_file: Path
    server: subprocess.Popen[bytes]
    power: contextlib.ExitStack

    def cli(self, *argv: str) -> Any:
        """A verb against the running server, its JSON output."""
        return json.loads(pxeserver("--config", str(self.config_file), *argv, "-o", "json"))

    def switch_on(self, name: str, hardware: qemu.Hardware) -> qemu.Machine:
        return self.power.enter_context(qemu.Machine(self.lab, name, hardware))

    def boot_of(self, machine: qemu.Machine) -> BootRecord | None:
        """The latest boot of a machine since its power-on."""
        records = self.fleet.boots(machine.hardware.mac, limit=1) if self.knows(machine.hardware.mac) else ()
        return records[0] if records and records[0].last >= machine.started else None

    def knows(self, mac: Mac) -> bool:
        return mac in self.fleet.view().by_mac

    def wait_for(
        self, machine: qemu.Machine, what: str, look: Callable[[BootRecord], bool], seconds: float = BOOT_SECONDS
    ) -> BootRecord:
        """The machine's boot record as soon as `look` likes it; fails with everything known about the boot."""
        end = time.monotonic() + seconds
        while True:
            record = self.boot_of(machine)
            if record is not None and look(record):
                return record
            if time.monotonic() > end or self.server.poll() is not None:
                pytest.fail(f"{machine.name}: no {what} within {seconds:g} s\n{self.story(machine)}", pytrace=False)
            time.sleep(0.2)

    def wait_up(self, machine: qemu.Machine) -> BootRecord:
        return self.wait_for(machine, "up", lambda record: record.stage is Stage.UP)

    def story(self, machine: qemu.Machine) -> str:
        """What is known about a machine, for the message of a failed test."""
        mac = machine.hardware.mac
        events = [f"{e.at - machine.started:7.2f} {e.kind} {e.text} {dict(e.data)}" for e in self.fleet.events(mac)]
        parts = [f"record: {self.boot_of(machine)}", "events:", *events[-60:]]
        parts += ["console:", machine.console[-3000:], "serve:", self.lab.log("serve")[-3000:]]
        return "\n".join(parts)

    def page(self, machine: qemu.Machine, seconds: float = 30) -> str:
        """What the machine's own web server says, asked from another host of the network."""
        end = time.monotonic() + seconds
        while True:
            for address in reversed([x.address for x in self.lab.leases() if x.mac == machine.hardware.mac]):
                with contextlib.suppress(Unreachable):
                    return self.lab.fetch("lan", f"http://{address}/", timeout=3).decode()
            if time.monotonic() > end:
                pytest.fail(f"{machine.name} serves no page\n{self.story(machine)}", pytrace=False)
            time.sleep(0.3)


@contextlib.contextmanager
def opened_site(
    built: Path,
    folder: Path,
    network: type[netlab.Lab] = netlab.Lab,
    interfaces: Sequence[str] = ("eth0",),
    **sections: dict[str, Any],
) -> Iterator[Site]:
    """A fresh fleet in `folder` over the session's images and loaders, served in a network of its own.

    `sections` are of the server's configuration.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "store").symlink_to(built / "store")
    loaders = LoaderSet(data / "loaders")
    for loader in LoaderSet(built / "loaders").list():
        source = built / "loaders" / loader.name
        loaders.add(source.read_bytes(), loader.name, version=loader.version, origin=loader.origin)
    config_file = demo.configure(data, folder / "lab")
    settings = yaml.safe_load(config_file.read_text())
    settings = {**settings, **sections}
    settings["server"]["interfaces"] = list(interfaces)
    config_file.write_text(yaml.safe_dump(settings))
    config = configuration.load(config_file, environ={})
    with contextlib.ExitStack() as stack:
        fleet = open_fleet(config)
        stack.callback(fleet.close)
        lab = stack.enter_context(network(folder / "lab"))
        server = demo.serve(lab, config_file, config)
        power = stack.enter_context(contextlib.ExitStack())
        yield Site(lab, data, fleet, config_file, server, power)


@pytest.fixture(scope="session")
def open_site(built: Path) -> Callable[..., contextlib.AbstractContextManager[Site]]:
    """Opens a site with a fresh fleet in a folder, in a network of another class if one is named."""
    return functools.partial(opened_site, built)


@pytest.fixture
def site(open_site: Callable[[Path], contextlib.AbstractContextManager[Site]], tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as found:
        yield found
