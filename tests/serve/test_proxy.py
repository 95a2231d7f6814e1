"""A real nginx in front: it sends the files, the machines' addresses come through, nobody else is believed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from fleetlab import build
from servelab import CLIENT, SERVER, Loop, Machine, Wire, links

from pxeserver.boot import token as tokens
from pxeserver.config import Config, Dhcp, Http, Server
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Stage
from pxeserver.serve.boot import BootServer, bind

pytestmark = pytest.mark.server
MAC, BOOT = "52:54:00:00:00:01", "0123456789abcdef"
NGINX = """daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; user root;
events {{ }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {server}
}}
"""


def documented(store: Path) -> str:
    """The server block of docs/nginx.md, with this store."""
    text = (Path(__file__).parents[2] / "docs" / "nginx.md").read_text()
    block = text.partition("```nginx\n")[2].partition("```")[0]
    assert "/var/lib/pxeserver/store" in block
    return block.replace("/var/lib/pxeserver/store", str(store))


class Site:
    """pxeserver on 8080 and nginx on 80 of the server's namespace, one machine with an image."""

    def __init__(self, wire: Wire, folder: Path) -> None:
        self.wire, self.folder = wire, folder
        http = Http(advertise_port=80, proxies=("127.0.0.1",), x_accel="/pxeserver-files/")
        self.config = Config(server=Server(data=str(folder)), dhcp=Dhcp(mode="off"), http=http)
        self.fleet = open_fleet(self.config)
        self.image = build(folder)
        self.fleet.add_machine(MachineEdit(name="node", macs=(MAC,)))
        self.fleet.assign([MAC], AssignOrder("web"))
        self.loop = Loop(wire.server)
        self.server = self.loop.run(self._start())
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, server=documented(folder / "store")))
        self.nginx = subprocess.Popen(
            ["ip", "netns", "exec", wire.server, "nginx", "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        )
        self.machine = Machine(wire, MAC)
        sealed = tokens.seal(self.fleet.secret(), tokens.Token(BOOT, MAC))
        self.url = f"http://{SERVER}/boot/{sealed}/script.ipxe"

    async def _start(self) -> BootServer:
        server = BootServer(self.config, open_fleet(self.config), bind(self.config))
        await server.start()
        return server

    def events(self, kind: str) -> list[tuple[str, int, str]]:
        self.loop.call(lambda: None)
        end = time.monotonic() + 10
        while True:
            found = [e for e in self.fleet.events() if e.kind == kind]
            if found or time.monotonic() > end:
                return [(e.peer, e.bytes, e.data.get("proxy", "")) for e in found]
            time.sleep(0.05)

    def close(self) -> None:
        self.nginx.terminate()
        self.nginx.wait(10)
        self.loop.run(self.server.close())
        self.loop.stop()
        self.fleet.close()


@pytest.fixture
def site(wire: Wire, tmp_path: Path) -> Generator[Site, None, None]:
    running = Site(wire, tmp_path)
    try:
        for _ in range(100):
            listening = subprocess.run(
                ["ip", "netns", "exec", wire.server, "ss", "-Hltn", "sport = :80"], capture_output=True, check=True
            )
            if listening.stdout:
                break
            time.sleep(0.05)
        yield running
    finally:
        running.close()


def test_a_boot_goes_through_nginx_and_nginx_sends_the_files(site: Site) -> None:
    kernel, initrd, cmdline = links(site.machine.script(site.url))
    assert kernel.startswith(f"http://{SERVER}:80/b/"), "as the machine asked, not as nginx did"
    assert f"pxeserver.url=http://{SERVER}:80/boot/" in cmdline
    whole = site.machine.http("GET", initrd)
    etag = f'"{site.image.initrd.digest.removeprefix("sha256:")}"'
    assert (whole.text, whole.headers["etag"]) == ("initrd web 1", etag)
    assert whole.headers["server"].startswith("nginx") and "x-accel-redirect" not in whole.headers
    head = site.machine.http("HEAD", kernel)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len("kernel web")), b"")
    assert head.headers["content-type"] == "application/octet-stream"
    for headers, status, text in (
        ({"Range": "bytes=7-9"}, 206, "web"),
        ({"Range": "bytes=7-9", "If-Range": etag}, 206, "web"),
        ({"Range": "bytes=7-9", "If-Range": '"other"'}, 200, "initrd web 1"),
        ({"If-None-Match": etag}, 304, ""),
    ):
        got = site.machine.http("GET", initrd, headers=headers)
        assert (got.status_code, got.text) == (status, text), headers
    assert site.machine.http("GET", initrd, headers={"Range": "bytes=99-"}).status_code == 416
    assert site.machine.get(kernel) == "kernel web"
    assert site.machine.http("GET", f"http://{SERVER}/pxeserver-files/{etag[1:-1]}").status_code == 404


def test_asking_counts_as_the_stage_once_and_the_machines_own_address_is_noted(site: Site) -> None:
    kernel, initrd, cmdline = links(site.machine.script(site.url))
    for url in (kernel, initrd, initrd):
        site.machine.get(url)
    home = next(word for word in cmdline.split() if word.startswith("pxeserver.url=")).partition("=")[2]
    assert site.machine.http("POST", f"{home}/up").status_code == 204
    assert [peer for peer, _, _ in site.events("up")] == [CLIENT]
    assert site.events("kernel") == [(CLIENT, 0, "127.0.0.1")]
    assert site.events("initrd") == [(CLIENT, 0, "127.0.0.1")]
    assert site.fleet.boots()[0].stage is Stage.UP


def test_who_is_no_proxy_is_not_believed_and_gets_the_file_itself(site: Site) -> None:
    digest = site.image.kernel.digest.removeprefix("sha256:")
    sealed = site.url.split("/")[4]
    got = site.machine.http(
        "GET",
        f"http://{SERVER}:8080/b/{digest}/kernel?boot={sealed}",
        headers={"X-Forwarded-For": "10.9.9.9", "Host": "evil.example"},
    )
    assert (got.text, got.headers["server"]) == ("kernel web", "pxeserver")
    assert site.events("kernel") == [(CLIENT, len("kernel web"), "")]
