"""What a booted system may ask for, and who gets it: by the MAC behind the address, secrets only during a boot."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from fleetlab import build
from servelab import CLIENT, SERVER, Loop, Machine, Wire, links

from pxeserver.boot import token as tokens
from pxeserver.boot.token import Token
from pxeserver.config import Config, Metadata, Server
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Stage
from pxeserver.serve.boot import BootServer, bind

pytestmark = pytest.mark.server
MAC, OTHER = "52:54:00:00:0e:01", "52:54:00:00:0e:02"
BASE = f"http://{SERVER}"


class Site:
    """A boot server with metadata; `behind` says whose card has the client's address."""

    def __init__(self, wire: Wire, data: Path) -> None:
        self.wire, self.behind = wire, MAC
        self.config = Config(server=Server(data=str(data), interfaces=("eth0",)), metadata=Metadata(enabled=True))
        (data / "loaders").mkdir(exist_ok=True)
        for name in ("undionly.kpxe", "snponly.efi"):
            (data / "loaders" / name).write_bytes(b"loader")
        self.fleet = open_fleet(self.config)
        build(data, "web")
        variables = {"ssh_keys": "k1 a,k2 b", "userdata": "secret", "rack": "7"}
        self.fleet.add_machine(MachineEdit(name="web1", macs=(MAC,), vars=variables))
        self.fleet.assign(["web1"], AssignOrder("web"))
        self.fleet.add_machine(MachineEdit(name="evil", macs=(OTHER,)))
        self.loop = Loop(wire.server)
        self.server: BootServer = self.loop.run(self._start())
        self.server.metadata._behind = lambda address: self.behind or None
        self.machine = Machine(wire, MAC)

    async def _start(self) -> BootServer:
        server = BootServer(self.config, open_fleet(self.config), bind(self.config))
        await server.start()
        return server

    def get(self, path: str) -> tuple[int, str]:
        got = self.machine.http("GET", f"{BASE}{path}")
        return got.status_code, got.text

    def boot(self) -> str:
        """Power on, up to the script; its text."""
        offer = self.machine.offer("qemu-rom-ipxe1-bios.discover")
        return self.machine.script((offer.file or offer.option(67) or b"").decode())

    def close(self) -> None:
        self.loop.run(self.server.close())
        self.loop.stop()
        self.fleet.close()


@pytest.fixture
def site(wire: Wire, tmp_path: Path) -> Generator[Site, None, None]:
    made = Site(wire, tmp_path)
    yield made
    made.close()


def test_what_linuxkit_s_metadata_package_asks_for(site: Site) -> None:
    told = {
        "hostname": "web1",
        "private-ipv4": CLIENT,
        "machine-id": MAC,
        "authorized-keys": "k1 a\nk2 b\n",
    }
    for name, text in told.items():
        assert site.get(f"/get/meta/{name}") == (200, text)
    for name in ("public-ipv4", "failure-domain", "machine-type", "nonsense", ""):
        assert site.get(f"/get/meta/{name}")[0] == 404
    assert site.get("/latest/meta-data/public-keys/0/openssh-key") == (200, "k1 a\nk2 b\n")
    assert site.get("/latest/meta-data/instance-id") == (200, MAC)
    assert site.machine.http("POST", f"{BASE}/get/user").status_code == 405


def test_who_is_not_known_gets_nothing(site: Site) -> None:
    site.behind = "52:54:00:00:0e:99"
    for path in ("/get/meta/hostname", "/get/user", "/latest/user-data", "/"):
        assert site.get(path)[0] == 404
    site.behind = ""  # behind a router, never heard of
    assert site.get("/get/meta/hostname")[0] == 404
    assert site.loop.call(lambda: site.server.metadata.counts["unknown"]) == 5


def test_the_kernel_s_word_on_who_has_an_address_counts(site: Site) -> None:
    site.boot()  # the address is MAC's, by all that was heard
    site.behind = OTHER
    assert site.get("/get/meta/hostname") == (200, "evil")
    site.behind = ""
    assert site.get("/get/meta/hostname") == (200, "web1")


def test_user_data_only_while_the_boot_is_under_way(site: Site) -> None:
    assert site.get("/get/user")[0] == 404
    kernel, initrd, _ = links(site.boot())
    assert site.get("/get/user")[0] == 404  # a script is no boot yet
    assert site.machine.http("GET", kernel).status_code == site.machine.http("GET", initrd).status_code == 200
    assert site.get("/get/user") == site.get("/latest/user-data") == (200, "secret")
    site.behind = OTHER
    assert site.get("/get/user")[0] == 404
    site.behind = MAC
    token = initrd.partition("?boot=")[2]
    assert site.machine.http("POST", f"http://{SERVER}:8080/boot/{token}/up").status_code == 204
    assert site.get("/get/user")[0] == 404
    assert site.get("/get/meta/hostname") == (200, "web1")


def own_files(site: Site, url: str) -> Any:
    return site.machine.http("GET", url)


def test_the_machine_s_own_files_by_a_second_initrd(site: Site) -> None:
    script = site.boot()
    url = script.partition("initrd --name config.cpio ")[2].partition(" ")[0]
    got = own_files(site, url)
    assert got.status_code == 200 and got.headers["cache-control"] == "no-store"
    raw = gzip.decompress(got.content)
    assert b"etc/hostname\0" in raw and b"web1\n" in raw and b"secret" in raw
    assert url.removesuffix("/config.cpio").encode() in raw
    assert own_files(site, url).content == got.content
    head = site.machine.http("HEAD", url)
    assert int(head.headers["content-length"]) == len(got.content)
    site.loop.call(lambda: site.server.recorder.reported(_token(site, url), Stage.UP, CLIENT, time.time(), {}, ""))
    assert own_files(site, url).status_code == 404  # the boot is over


def _token(site: Site, url: str) -> Token:
    found = tokens.open(site.server.recorder.key, url.split("/")[4])
    assert found is not None
    return found


def test_nobody_else_gets_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = site.boot().partition("initrd --name config.cpio ")[2].partition(" ")[0]
    assert own_files(site, url).status_code == 200
    monkeypatch.setattr("pxeserver.serve.routes.neighbour", lambda address: OTHER)
    assert own_files(site, url).status_code == 404  # another machine of the fleet, with the token
    monkeypatch.setattr("pxeserver.serve.routes.neighbour", lambda address: None)
    assert own_files(site, url).status_code == 200
    recorder = site.server.recorder
    assert recorder.asker(_token(site, url)) == CLIENT
    site.loop.call(lambda: setattr(recorder._trails[MAC], "peer", "10.77.9.9"))
    assert own_files(site, url).status_code == 404  # from another address than the boot's
    forged = tokens.seal(b"x" * 32, _token(site, url))
    assert own_files(site, f"http://{SERVER}:8080/boot/{forged}/config.cpio").status_code == 404


def test_a_machine_without_anything_gets_no_second_initrd(site: Site) -> None:
    site.fleet.set_machine("web1", MachineEdit(name="", vars={"ssh_keys": None, "userdata": None, "rack": None}))
    end = time.monotonic() + 10
    while site.server.site.view.machine(MAC).name and time.monotonic() < end:  # type: ignore[union-attr]
        time.sleep(0.05)
    assert "config.cpio" not in site.boot()


def test_files_that_cannot_be_stop_the_boot_with_the_reason(site: Site) -> None:
    site.fleet.set_machine("web1", MachineEdit(vars={"files": json.dumps({"/run/x": ""})}))
    end = time.monotonic() + 10
    while "files" not in site.server.site.view.machine(MAC).vars and time.monotonic() < end:  # type: ignore[union-attr]
        time.sleep(0.05)
    script = site.boot()
    assert "personal-files" in script and "kernel " not in script


def test_uefi_is_told_of_both_initrds(site: Site) -> None:
    offer = site.machine.offer("qemu-rom-ipxe1-bios.discover")
    script = site.machine.script((offer.file or offer.option(67) or b"").decode(), platform="efi")
    assert links(script)[2].endswith("initrd=initrd.img initrd=config.cpio")
