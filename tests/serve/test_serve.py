"""`pxeserver serve` as a person runs it: both processes, signals, reloads, faults; in a namespace of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import pytest
import yaml
from click.testing import CliRunner
from servelab import SERVER, Wire, within

from pxeserver import config as configuration
from pxeserver.checked import fields
from pxeserver.cli.main import cli
from pxeserver.config import Admin, Config, Dhcp, Http
from pxeserver.errors import UsageError
from pxeserver.serve import admin
from pxeserver.serve.advice import advice
from pxeserver.serve.part import pack_config, parse_config
from pxeserver.serve.supervisor import fixed_changes


class Running:
    """A server over `folder`, in the server's namespace."""

    def __init__(self, wire: Wire, folder: Path, *flags: str) -> None:
        self.wire, self.folder = wire, folder
        self.file = folder / "pxeserver.yaml"
        self.configure()
        self.out = (folder / "out").open("w+")
        argv = ["ip", "netns", "exec", wire.server, sys.executable, "-m", "pxeserver", "--config", str(self.file)]
        self.process = subprocess.Popen([*argv, "serve", *flags], stdout=self.out, stderr=subprocess.STDOUT)

    def configure(self, **sections: object) -> None:
        plain = {"server": {"data": str(self.folder / "data")}, "admin": {"socket": str(self.folder / "api.sock")}}
        self.file.write_text(yaml.safe_dump({**plain, **sections}))

    def text(self) -> str:
        return (self.folder / "out").read_text()

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)

    def ready(self) -> None:
        self.until(lambda: "API on the Unix socket" in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()

    def children(self) -> dict[str, int]:
        """Part name -> process id."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                words = (stat.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.process.pid and b"--part" in words:
                found[words[words.index(b"--part") + 1].decode()] = int(stat.parent.name)
        return found

    def recording(self) -> int:
        """The process that writes the boot part's events down."""
        boot = self.children()["boot"]
        (pid,) = Path(f"/proc/{boot}/task/{boot}/children").read_text().split()
        assert b"pxeserver.serve.recording" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return int(pid)

    def health(self) -> bool:
        def ask() -> bool:
            try:
                return httpx.get(f"http://{SERVER}:8080/healthz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        return within(self.wire.server, ask)

    def api(self, path: str) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.folder / "api.sock"))) as client:
            return client.get(f"http://localhost{path}")

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(30)
        self.out.close()
        return code


@pytest.fixture
def start(wire: Wire, tmp_path: Path) -> Generator[Callable[..., Running], None, None]:
    running: list[Running] = []

    def make(*flags: str) -> Running:
        running.append(Running(wire, tmp_path, *flags))
        return running[-1]

    yield make
    for one in running:
        if one.process.poll() is None:
            one.stop()
        one.out.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.server
def test_it_serves_says_where_and_stops_whole(start: Callable[..., Running]) -> None:
    server = start("--interface", "eth0", "--admin", "127.0.0.1:8099")
    server.ready()
    assert f"eth0: machines are told {SERVER}; proxyDHCP udp 67 and 4011, TFTP udp 69, HTTP tcp 8080" in server.text()
    assert "pages and API: http://127.0.0.1:8099/" in server.text()
    assert server.health()
    assert server.api("/api/v1/status").json()["machines"] == 0
    children = server.children()
    assert sorted(children) == ["admin", "boot"]
    children["recording"] = server.recording()
    assert server.stop() == 0
    assert not any(alive(pid) for pid in children.values())
    assert not (server.folder / "api.sock").exists()


@pytest.mark.server
def test_one_part_that_dies_is_started_again_and_the_other_goes_on(start: Callable[..., Running]) -> None:
    server = start("-i", "eth0")
    server.ready()
    before = server.children()
    os.kill(before["admin"], signal.SIGKILL)
    assert server.health()
    server.until(lambda: server.children().get("admin", before["admin"]) != before["admin"])
    os.kill(before["boot"], signal.SIGKILL)
    server.until(server.health)
    assert "the boot process ended with -9" in server.text()


@pytest.mark.server
def test_no_part_outlives_a_killed_supervisor(start: Callable[..., Running]) -> None:
    server = start("-i", "eth0")
    server.ready()
    children = {**server.children(), "recording": server.recording()}
    server.process.kill()
    server.process.wait(30)
    server.until(lambda: not any(alive(pid) for pid in children.values()))


@pytest.mark.server
def test_live_pages_hear_of_a_change(start: Callable[..., Running]) -> None:
    server = start("-i", "eth0")
    server.ready()
    with (
        httpx.Client(transport=httpx.HTTPTransport(uds=str(server.folder / "api.sock")), timeout=20) as client,
        client.stream("GET", "http://localhost/events") as stream,
    ):
        assert stream.headers["content-type"] == "text/event-stream"
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("event: "))
        client.post("http://localhost/api/v1/machines", json={"name": "node1", "macs": ["52:54:00:00:00:09"]})
        assert next(line for line in lines if line.startswith("event: ")).startswith("event: ")


@pytest.mark.server
def test_a_reload_is_whole_or_nothing(start: Callable[..., Running]) -> None:
    server = start("-i", "eth0")
    server.ready()
    children = server.children()
    server.configure(boot={"poll_seconds": 9})
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: server.text().count("the new configuration is in force") == 2)
    server.configure(boot={"poll_secs": 9})
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: 'did you mean "poll_seconds"' in server.text())
    server.configure(http={"port": 9999}, boot={"poll_seconds": 3})
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: "http.port cannot change while the server runs" in server.text())
    assert server.children() == children
    assert server.text().count("the new configuration is in force") == 2

    def script() -> str:
        return httpx.get(f"http://{SERVER}:8080/boot/script.ipxe", timeout=5).text

    assert "sleep 9" in within(server.wire.server, script)


@pytest.mark.server
def test_a_taken_port_ends_it_with_one_error_that_names_the_holder(start: Callable[..., Running]) -> None:
    first = start("-i", "eth0")
    first.ready()
    second = start("-i", "eth0", "--http-port", "8088", "--tftp-port", "70", "--admin", "127.0.0.1:8098")
    assert second.process.wait(60) == 4
    boot = first.children()["boot"]
    assert re.search(rf"error\[port-taken\]: udp port 67 \(dhcp\) is taken by \S+ \(pid {boot}\)", second.text())
    assert "--dhcp raw" in second.text()


@pytest.mark.server
def test_as_another_user_nothing_is_kept(start: Callable[..., Running], tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    os.environ["PXESERVER_SERVER_USER"] = "nobody"
    try:
        server = start("-i", "eth0")
    finally:
        del os.environ["PXESERVER_SERVER_USER"]
    server.ready()
    status = Path(f"/proc/{server.children()['boot']}/status").read_text()
    assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.M)
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    assert (tmp_path / "data").owner() == "nobody"
    assert server.health()


@pytest.mark.server
def test_root_keeps_rights_over_files_alone(start: Callable[..., Running]) -> None:
    server = start("-i", "eth0")
    server.ready()
    status = Path(f"/proc/{server.children()['boot']}/status").read_text()
    assert re.search(r"^CapEff:\t000000000000000f$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)


def test_check_prints_what_is_in_force() -> None:
    flags = ["--check", "--dhcp", "off", "-i", "eth7", "--unknown", "local"]
    shown = CliRunner().invoke(cli, ["serve", *flags])
    told = yaml.safe_load(shown.stdout)
    assert (told["dhcp"]["mode"], told["dhcp"]["unknown"], told["server"]["interfaces"]) == ("off", "local", ["eth7"])
    assert sorted(told) == sorted(fields(Config))


def test_the_configuration_crosses_to_the_parts_unchanged() -> None:
    config = Config(
        server=configuration.Server(interfaces=("a", "b")), boot=configuration.Boot(loaders={"arm64": "x.efi"})
    )
    assert parse_config(pack_config(config)) == config


def test_pages_that_others_can_reach_need_a_token() -> None:
    with pytest.raises(UsageError) as caught:
        admin.bind(Config(admin=Admin(listen="0.0.0.0:8081")))
    assert caught.value.slug == "token-missing"


def test_what_a_reload_cannot_change() -> None:
    old = Config()
    new = Config(http=Http(port=1), dhcp=Dhcp(port=68, mode="off"))
    assert fixed_changes(old, old) == []
    assert fixed_changes(old, new) == ["dhcp.mode", "dhcp.port", "http.port"]


def test_the_lines_for_other_dhcp_servers_are_taken_by_them(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "golden" / "advice.txt"
    assert advice(Config(dhcp=Dhcp(mode="off")), ["10.77.0.1"]) == golden.read_text()
