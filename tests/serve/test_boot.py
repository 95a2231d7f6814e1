"""The boot process on a wire of its own: machines as real firmware speaks, a real fleet behind it."""

from __future__ import annotations

import re
import socket
import sqlite3
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from fleetlab import build
from servelab import (
    CLIENT,
    CLIENT6,
    OTHER_SIDE,
    RELAY,
    SERVER,
    SERVER6,
    SERVER_ALIAS,
    Loop,
    Machine,
    Wire,
    captured,
    captured6,
    hardware,
    ip,
    links,
    system_request,
    within,
)

from pxeserver.boot.request6 import server_duid
from pxeserver.config import Boot, Config, Dhcp, Dhcp6, Http, Server, Tftp
from pxeserver.errors import Refused
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder, BootRecord, ExplainOrder, MachineEdit
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.local.interfaces import own_address6, read_interfaces
from pxeserver.mac import mac_to_bytes
from pxeserver.model import STAGES, Policy, Result, Stage
from pxeserver.serve.boot import BootServer, bind
from pxeserver.wire import dhcp, dhcp6, tftp

MAC = "52:54:00:00:00:01"
LOADER = b"loader" * 1000


class Site:
    """A boot server in the server's namespace, over a fleet in `data` that the test may change too."""

    def __init__(self, wire: Wire, data: Path, **sections: object) -> None:
        self.wire, self.data = wire, data
        self.config = Config(
            server=sections.pop("server", None) or Server(data=str(data), interfaces=("eth0",)),  # type: ignore[arg-type]
            **sections,  # type: ignore[arg-type]
        )
        (data / "loaders").mkdir(exist_ok=True)
        for name in ("undionly.kpxe", "snponly.efi"):
            (data / "loaders" / name).write_bytes(LOADER)
        self.fleet = open_fleet(self.config)
        self.loop = Loop(wire.server)
        try:
            self.server = self.loop.run(self._start())
        except BaseException:
            self.loop.stop()
            raise

    async def _start(self) -> BootServer:
        server = BootServer(self.config, open_fleet(self.config), bind(self.config))
        self.lines = await server.start()
        return server

    def machine(self, mac: str = MAC) -> Machine:
        return Machine(self.wire, mac)

    def assign(self, spec: str, mac: str = MAC) -> None:
        if mac not in self.fleet.view().by_mac:
            self.fleet.add_machine(MachineEdit(name="node", macs=(mac,)))
        self.fleet.assign([mac], AssignOrder(spec))
        self.seen()

    def seen(self) -> None:
        """Wait until the server looks at what the fleet is now."""

        def same() -> bool:
            ours, theirs = self.fleet.view(), self.server.site.view
            return replace(theirs, generation=0) == replace(ours, generation=0)

        self.until(same)

    def boot(self, done: Callable[[BootRecord], bool]) -> BootRecord:
        """The newest boot, once the record says what the test waits for."""
        self.until(lambda: bool(self.fleet.boots()) and done(self.fleet.boots()[0]))
        return self.fleet.boots()[0]

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, [(b.stage, b.result, dict(b.stages)) for b in self.fleet.boots()]
            time.sleep(0.02)

    def close(self) -> None:
        self.loop.run(self.server.close())
        self.loop.stop()
        self.fleet.close()


@pytest.fixture
def start(wire: Wire, tmp_path: Path) -> Generator[Callable[..., Site], None, None]:
    running: list[Site] = []

    def make(**sections: object) -> Site:
        running.append(Site(wire, tmp_path, **sections))
        return running[-1]

    yield make
    for site in running:
        site.close()


@pytest.fixture
def site(start: Callable[..., Site]) -> Site:
    return start()


def file_of(offer: dhcp.Packet) -> str:
    return (offer.file or offer.option(dhcp.OPT_BOOTFILE) or b"").decode()


def test_a_bios_machine_goes_the_whole_way_and_every_stage_is_recorded(site: Site) -> None:
    image = build(site.data)
    site.assign("web")
    machine = site.machine()
    offer = machine.offer("plain-rom-bios.discover")
    assert (file_of(offer), offer.siaddr, offer.yiaddr) == ("undionly.kpxe", SERVER, "0.0.0.0")
    machine.request_address()
    assert machine.tftp("undionly.kpxe") == LOADER
    url = file_of(machine.offer("undionly-ipxe2-bios.discover"))
    assert re.fullmatch(rf"http://{SERVER}:8080/boot/[\w-]{{62}}/script\.ipxe", url)
    kernel, initrd, cmdline = links(machine.script(url))
    assert machine.get(kernel) == "kernel web"
    assert machine.get(initrd) == "initrd web 1"
    assert machine.ask(system_request(MAC, CLIENT), wait=0.2) is None
    home = next(word for word in cmdline.split() if word.startswith("pxeserver.url=")).partition("=")[2]
    assert machine.http("POST", f"{home}/event", data={"stage": "containerd", "memory": "2048"}).status_code == 204
    assert machine.http("POST", f"{home}/up").status_code == 204
    boot = site.boot(lambda boot: boot.result is Result.UP)
    assert list(boot.stages) == list(STAGES)
    assert boot.image == image.digest
    assert boot.stages[Stage.LOADER].bytes == len(LOADER)
    assert boot.stages[Stage.INITRD].bytes == len("initrd web 1")
    assert len(site.fleet.boots()) == 1
    assert site.fleet.find(MAC).memory_mib == 2048


def test_uefi_asks_4011_from_4011_and_is_answered_there(site: Site) -> None:
    machine = site.machine()
    machine.offer("ovmf-pxe.discover")
    got = machine.ask(captured("ovmf-pxe.4011", MAC, ciaddr=CLIENT), to=(SERVER, 4011), port=4011)
    assert got is not None
    answer, sender = got
    assert sender == (SERVER, 4011)
    assert (answer.message, file_of(answer), answer.siaddr) == (dhcp.ACK, "snponly.efi", SERVER)


def test_uefi_http_boot_gets_a_url_with_head_and_the_type_it_wants(site: Site) -> None:
    machine = site.machine()
    url = file_of(machine.offer("ovmf-http.discover"))
    head = machine.http("HEAD", url)
    assert (head.status_code, head.headers["content-type"]) == (200, "application/efi")
    assert head.headers["content-length"] == str(len(LOADER))
    assert machine.http("GET", url).content == LOADER
    assert site.boot(lambda boot: boot.stage is Stage.LOADER).stages[Stage.LOADER].bytes == len(LOADER)
    autoexec = url.rpartition("/")[0] + "/autoexec.ipxe"
    assert machine.script(autoexec).startswith("#!ipxe\n")


def with_uki(site: Site, spec: str) -> bytes:
    """A built image of that spec with a UKI; what is in it."""
    image = build(site.data, spec)
    catalogue = Catalogue(Store(site.data / "store"))
    content = b"UKI of " + spec.encode() * 1000
    catalogue.with_uki(catalogue.get(image.digest), catalogue.store.add_bytes(content))
    return content


def inform(mac: str) -> dhcp.Packet:
    """What a booted system asks whose command line names no server."""
    options = ((53, bytes([dhcp.INFORM])), (60, b"pxeserver"))
    return dhcp.Packet(dhcp.BOOTREQUEST, b"\1\2\3\4", mac_to_bytes(mac), options, ciaddr=CLIENT)


def test_uefi_http_boot_of_a_whole_image_up_to_a_system_that_finds_its_server(site: Site) -> None:
    content = with_uki(site, "web")
    site.assign("web")
    machine = site.machine()
    url = file_of(machine.offer("ovmf-http.discover"))
    head = machine.http("HEAD", url)
    assert (head.status_code, head.headers["content-type"]) == (200, "application/efi")
    assert machine.http("GET", url, headers={"Range": "bytes=3-9"}).content == content[3:10]
    assert machine.http("GET", url).content == content
    boot = site.boot(lambda boot: boot.stage is Stage.INITRD)
    assert boot.stages[Stage.KERNEL].bytes == len(content)
    assert (boot.spec, Stage.SCRIPT in boot.stages) == ("web", False)
    # the booted system: an address as ever, then whose it is
    machine.ask(system_request(MAC, CLIENT), wait=0.2)
    answer = machine.ask(inform(MAC))
    assert answer is not None and answer[1] == (SERVER, 67)
    told = answer[0].file.decode()
    # and behind a relay, which knows us by another address: that one is told
    relayed = machine.ask(replace(inform(MAC), giaddr=RELAY), to=(SERVER_ALIAS, 67), port=67)
    assert relayed is not None and relayed[1] == (SERVER_ALIAS, 67)
    assert relayed[0].file.decode() == told.replace(SERVER, SERVER_ALIAS)
    assert machine.http("POST", told + "/event", data={"stage": "up"}).status_code == 204
    up = site.boot(lambda boot: boot.stage is Stage.UP)
    assert up.id == boot.id and Stage.NETWORK in up.stages
    assert machine.http("GET", told + "/metadata").json()["spec"] == "web"


def test_a_uki_by_tftp_is_kernel_and_initrd(site: Site) -> None:
    content = with_uki(site, "web")
    site.assign("web")
    site.fleet.pin(MAC, style=None, loader="uki")
    site.seen()
    machine = site.machine()
    name = file_of(machine.offer("ovmf-pxe.discover"))
    machine.request_address()
    assert machine.tftp(name) == content
    assert site.boot(lambda boot: boot.stage is Stage.INITRD).stages[Stage.KERNEL].bytes == len(content)
    assert isinstance(machine.tftp("b/" + "0" * 64 + "/uki.efi"), tftp.Error)


def test_a_signed_grub_gets_a_configuration_of_its_own_kernel_and_initrd_by_tftp(site: Site) -> None:
    (site.data / "loaders/shimx64.efi").write_bytes(LOADER)
    build(site.data, "web")
    site.assign("web")
    site.fleet.pin(MAC, style=None, loader="shimx64.efi")
    site.seen()
    machine = site.machine()
    assert file_of(machine.offer("ovmf-pxe.discover")) == "shimx64.efi"
    machine.request_address()
    assert machine.tftp("shimx64.efi") == LOADER
    assert isinstance(machine.tftp("grub/grub.cfg-0A4D"), tftp.Error)
    config = machine.tftp("/grub/grub.cfg-01-" + MAC.replace(":", "-"))
    assert isinstance(config, bytes) and config == machine.tftp("grub/grub.cfg")  # by its address
    kernel, initrd = (f"b/{blob}" for blob in re.findall(rf"\(tftp,{SERVER}\)/b/(\S+)", config.decode())[:2])
    assert machine.tftp(kernel) == b"kernel web" and machine.tftp(initrd) == b"initrd web 1"
    boot = site.boot(lambda boot: boot.stage is Stage.INITRD)
    assert (boot.spec, boot.loader) == ("web", "shimx64.efi")
    assert set(boot.stages) == {Stage.OFFER, Stage.LOADER, Stage.SCRIPT, Stage.KERNEL, Stage.INITRD}
    url = re.search(r"pxeserver.url=([^']+)", config.decode())
    assert url is not None
    assert machine.http("POST", url[1] + "/event", data={"stage": "up"}).status_code == 204
    assert site.boot(lambda boot: boot.stage is Stage.UP).id == boot.id


def test_a_system_that_nobody_knows_is_not_told_anything(site: Site) -> None:
    assert site.machine().ask(inform("52:54:00:00:00:99"), wait=0.5) is None
    assert site.server.dhcp.counts["unknown-system"] == 1


def test_a_relay_gets_the_answer_and_our_address_in_its_own_subnet(site: Site) -> None:
    packet = captured("ovmf-pxe-relayed.discover", MAC, giaddr=RELAY)
    got = site.machine().ask(packet, to=(SERVER_ALIAS, 67), port=67)
    assert got is not None
    answer, sender = got
    assert sender == (SERVER_ALIAS, 67)
    assert (answer.siaddr, answer.giaddr) == (SERVER_ALIAS, RELAY)
    assert answer.option(dhcp.OPT_SERVER_ID) == bytes([10, 78, 0, 1])


def test_only_the_named_interfaces_are_answered(start: Callable[..., Site], tmp_path: Path) -> None:
    site = start(server=Server(data=str(tmp_path), interfaces=("eth0",)))
    discover = captured("plain-rom-bios.discover", MAC)
    assert site.machine().ask(discover, device="eth1", wait=0.5) is None
    assert site.machine().ask(discover, device="eth0") is not None


@pytest.mark.parametrize("mode", ["proxy", "raw"])
def test_a_named_interface_that_goes_and_comes_back_is_answered_again(
    start: Callable[..., Site], wire: Wire, tmp_path: Path, mode: Literal["proxy", "raw"]
) -> None:
    """As another one of the same name: a VLAN made anew, a card plugged in again."""
    site = start(server=Server(data=str(tmp_path), interfaces=("eth1",)), dhcp=Dhcp(mode=mode))
    discover = captured("plain-rom-bios.discover", MAC)
    assert site.machine().ask(discover, device="eth1") is not None
    before = {found.name: index for index, found in site.server.site.interfaces.items()}
    ip("-n", wire.server, "link", "del", "eth1")
    site.until(lambda: "eth1" not in {found.name for found in site.server.site.interfaces.values()})
    wire.plug("eth1")
    site.until(lambda: any(found.name == "eth1" and found.up for found in site.server.site.interfaces.values()))
    assert before["eth1"] not in site.server.site.interfaces
    site.until(lambda: site.machine().ask(replace(discover, xid=b"back"), device="eth1", wait=0.5) is not None)
    assert site.machine().ask(captured("ovmf-pxe.discover", MAC), device="eth0", wait=0.3) is None


def test_without_names_every_interface_is_answered_with_its_own_address(
    start: Callable[..., Site], tmp_path: Path
) -> None:
    site = start(server=Server(data=str(tmp_path)))
    for device, own in (("eth0", SERVER), ("eth1", OTHER_SIDE)):
        got = site.machine().ask(captured("plain-rom-bios.discover", MAC), device=device)
        assert got is not None
        assert got[0].siaddr == own
    assert [line.partition(";")[0] for line in site.lines[:2]] == [
        f"eth0: machines are told {SERVER}",
        f"eth1: machines are told {OTHER_SIDE}",
    ]


@pytest.mark.parametrize("mode", ["proxy", "raw"])
def test_several_interfaces_and_aliases_each_with_their_own_address(
    start: Callable[..., Site], tmp_path: Path, mode: str
) -> None:
    """A broadcast by its interface, one from an address by the subnet, a question by whom it was put to."""
    site = start(server=Server(data=str(tmp_path)), dhcp=Dhcp(mode=mode))
    discover, machine = captured("plain-rom-bios.discover", MAC), site.machine()
    for device, own in (("eth0", SERVER), ("eth1", OTHER_SIDE)):
        got = machine.ask(discover, device=device)
        assert got is not None and (got[0].siaddr, got[1][0]) == (own, own), device
    asked = captured("ovmf-pxe.4011", MAC, ciaddr=RELAY)
    for address in (SERVER_ALIAS, SERVER):
        got = machine.ask(asked, to=(address, 4011), port=4011)
        assert got is not None and (got[0].siaddr, got[1]) == (address, (address, 4011))


def test_another_server_that_tells_machines_what_to_boot_is_heard_and_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    machine = site.machine()
    offer = machine.offer("ovmf-pxe.discover")
    site.boot(lambda boot: True)
    plain = dhcp.Packet(2, b"abcd", offer.chaddr, ((53, b"\2"), (54, bytes((10, 77, 0, 98)))), yiaddr=CLIENT)
    rogue = replace(plain, options=((53, b"\2"), (54, bytes((10, 77, 0, 99)))), file=b"pxelinux.0")
    for said in (plain, rogue, rogue, offer):  # the last one is our own, said again by nobody else
        machine.say(said)
    site.until(lambda: bool(site.server.overheard.servers))
    assert site.server.health()["other_servers"] == {"10.77.0.99": 'tells machines to load "pxelinux.0"'}
    assert caplog.text.count("another DHCP server, 10.77.0.99") == 1
    site.until(lambda: any(e.data.get("what") == "other-server" for e in site.fleet.events(MAC)))
    (note,) = [e for e in site.fleet.events(MAC) if e.data.get("what") == "other-server"]
    assert (note.text, note.peer) == ('10.77.0.99 tells machines to load "pxelinux.0"', "10.77.0.99")
    assert note.boot == site.fleet.boots()[0].id


def test_an_advertised_address_is_what_machines_are_told(start: Callable[..., Site], tmp_path: Path) -> None:
    site = start(server=Server(data=str(tmp_path), interfaces=("eth0",), advertise="192.0.2.7"))
    offer = site.machine().offer("qemu-rom-ipxe1-bios.discover")
    assert offer.siaddr == "192.0.2.7"
    assert file_of(offer).startswith("http://192.0.2.7:8080/boot/")


def test_who_does_not_boot_from_the_network_never_hears_from_us(site: Site) -> None:
    machine = site.machine()
    assert machine.ask(system_request(MAC, CLIENT), wait=0.3) is None
    discover = dhcp.Packet(
        dhcp.BOOTREQUEST, b"abcd", bytes(5) + b"\1", ((dhcp.OPT_MESSAGE_TYPE, bytes([dhcp.DISCOVER])),)
    )
    assert machine.ask(discover, wait=0.3) is None
    machine.offer("plain-rom-bios.discover")
    site.boot(lambda boot: True)
    assert [m.macs for m in site.fleet.view().machines.values()] == [(MAC,)]


def test_floods_of_nonsense_cost_nothing(site: Site) -> None:
    machine = site.machine()
    for n in range(200):
        machine_bytes = bytes([1, 1, 6, 0]) + bytes([n]) * n
        machine.ask(machine_bytes.ljust(8, b"\0"), wait=0.0001)
    machine.offer("plain-rom-bios.discover")
    assert site.server.dhcp.counts["malformed"] >= 190


def test_a_waiting_machine_boots_when_it_is_assigned_without_a_power_cycle(site: Site) -> None:
    build(site.data)
    machine = site.machine()
    url = file_of(machine.offer("qemu-rom-ipxe1-bios.discover"))
    waiting = machine.script(url)
    assert "waits for an image" in waiting
    site.boot(lambda boot: boot.stage is Stage.SCRIPT)
    assert [row.mac for row in site.fleet.machines(known=False)] == [MAC]
    site.assign("web")
    again = re.findall(r"chain \S+ \S+ (http\S+)\?mac", waiting)[-1]
    kernel, _, _ = links(machine.script(again))
    assert machine.get(kernel) == "kernel web"
    boot = site.boot(lambda boot: boot.stage is Stage.KERNEL)
    assert (boot.spec, len(site.fleet.boots())) == ("web", 1)


def test_a_new_assignment_counts_until_the_kernel_is_asked_for_and_not_afterwards(site: Site) -> None:
    build(site.data, "web")
    build(site.data, "db")
    site.assign("web")
    machine = site.machine()
    url = file_of(machine.offer("qemu-rom-ipxe1-bios.discover"))
    site.assign("db")
    script = machine.script(url)
    kernel, initrd, _ = links(script)
    assert machine.get(kernel) == "kernel db"
    site.assign("web")
    assert machine.get(initrd) == "initrd db 1"
    again = re.findall(r"chain \S+ \S+ (http\S+)\?mac", script)[-1]
    assert links(machine.script(again))[:2] == (kernel, initrd)
    # the next power-on gets the new one
    assert machine.get(links(machine.script(file_of(machine.offer("qemu-rom-ipxe1-bios.discover"))))[0]) == "kernel web"
    site.until(lambda: len(site.fleet.boots()) == 2)


@pytest.mark.parametrize("name", ["plain-rom-bios.discover", "ovmf-pxe.discover", "qemu-rom-ipxe1-bios.discover"])
def test_what_explain_shows_is_what_went_over_the_wire(site: Site, name: str) -> None:
    build(site.data)
    site.assign("web")
    offer = site.machine().offer(name)
    site.boot(lambda boot: True)
    shown = site.fleet.explain(MAC, ExplainOrder())
    assert dhcp.parse(bytes.fromhex(shown.payload)) == offer


def test_a_loader_that_returns_to_the_firmware_is_named_within_two_cycles(site: Site) -> None:
    machine = site.machine()
    for _ in range(2):
        machine.offer("plain-rom-bios.discover")
        machine.request_address()
        machine.tftp("undionly.kpxe")
    boot = site.boot(lambda boot: boot.cause is not None)
    assert boot.cause is not None
    assert boot.cause.slug == "loader-loop"
    assert len(site.fleet.boots()) == 1


def test_a_machine_that_was_switched_off_begins_a_new_boot(site: Site) -> None:
    build(site.data)
    site.assign("web")
    machine = site.machine()
    for _ in range(2):
        machine.get(links(machine.script(file_of(machine.offer("qemu-rom-ipxe1-bios.discover"))))[0])
    site.until(lambda: len(site.fleet.boots()) == 2)
    site.boot(lambda boot: boot.stage is Stage.KERNEL)
    assert [boot.result for boot in site.fleet.boots()] == [Result.OPEN, Result.REPLACED]


def test_a_locked_database_delays_no_answer_and_loses_no_event(site: Site) -> None:
    build(site.data)
    site.assign("web")
    held = sqlite3.connect(site.data / "fleet.db", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    try:
        machine = site.machine()
        kernel, _, _ = links(machine.script(file_of(machine.offer("qemu-rom-ipxe1-bios.discover"))))
        assert machine.get(kernel) == "kernel web"
        assert site.server.health()["events_waiting"] != 0
    finally:
        held.execute("ROLLBACK")
        held.close()
    assert list(site.boot(lambda boot: boot.stage is Stage.KERNEL).stages) == [Stage.OFFER, Stage.SCRIPT, Stage.KERNEL]


def test_only_files_of_built_images_are_served_and_only_to_their_digest(site: Site) -> None:
    image = build(site.data)
    site.seen()
    machine = site.machine()
    base = f"http://{SERVER}:8080"
    hexes = {path.name for path in (site.data / "store" / "blobs" / "sha256").iterdir()}
    served = {name for name in hexes if machine.http("GET", f"{base}/b/{name}/x").status_code == 200}
    assert served == {image.kernel.digest[7:], image.initrd.digest[7:]}
    for path in ("/b/../../../etc/passwd/x", "/b/abc/x", "/boot/nonsense/script.ipxe", "/boot/x/metadata", "/", "/api"):
        assert machine.http("GET", base + path).status_code == 404
    assert machine.http("POST", f"{base}/healthz").status_code == 405


def test_nothing_outside_the_loader_folder_is_given(site: Site) -> None:
    (site.data / "loaders" / "link").symlink_to(site.data / "fleet.db")
    (site.data / "loaders" / "sub").mkdir()
    (site.data / "loaders" / "sub" / "Other.EFI").write_bytes(b"other")
    machine = site.machine()
    assert machine.tftp("sub/other.efi") == b"other"
    assert machine.tftp("\\UNDIONLY.KPXE") == LOADER
    for name in ("link", "../fleet.db", "sub", ".hidden", "nothing.efi"):
        assert not isinstance(machine.tftp(name), bytes)


def test_autoexec_is_generated_for_a_loader_without_a_script(site: Site) -> None:
    machine = site.machine()
    text = machine.tftp("sub/autoexec.ipxe")
    assert isinstance(text, bytes)
    url = re.search(r"chain .*?(http\S+?)\?mac", text.decode())
    assert url is not None
    assert url[1] == f"http://{SERVER}:8080/boot/script.ipxe"
    assert "waits for an image" in machine.script(url[1])
    assert site.boot(lambda boot: True).mac == MAC


def test_what_a_booted_system_may_say(site: Site) -> None:
    machine = site.machine()
    url = file_of(machine.offer("qemu-rom-ipxe1-bios.discover")).rpartition("/")[0]
    assert machine.http("POST", f"{url}/event", data={"stage": "kernel"}).status_code == 400
    assert machine.http("POST", f"{url}/log", content=b"line one\nline two").status_code == 204
    cause = {"cause": "initrd-cut-short", "text": "no sentinel"}
    assert machine.http("POST", f"{url}/event", data=cause).status_code == 204
    assert machine.http("GET", f"{url}/event").status_code == 405
    site.boot(lambda boot: boot.cause is not None and boot.cause.slug == "initrd-cut-short")
    assert "line two" in [event.text for event in site.fleet.events(MAC) if event.kind == "log"][0]
    site.fleet.add_machine(MachineEdit(name="node1", macs=(MAC,), vars={"key": "value"}))
    site.seen()
    told = machine.http("GET", f"{url}/metadata").json()
    assert (told["name"], told["vars"], told["mac"]) == ("node1", {"key": "value"}, MAC)


def test_a_machine_that_policy_ignores_is_seen_and_not_answered(start: Callable[..., Site]) -> None:
    site = start(dhcp=Dhcp(unknown=Policy.IGNORE))
    assert site.machine().ask(captured("plain-rom-bios.discover", MAC), wait=0.3) is None
    site.until(lambda: len(site.fleet.machines(known=False)) == 1)
    assert site.fleet.boots() == ()


def test_a_taken_port_is_refused_with_the_holders_name_and_raw_mode_serves_beside_it(
    start: Callable[..., Site], wire: Wire, tmp_path: Path
) -> None:
    holder = start(server=Server(data=str(tmp_path)), dhcp=Dhcp(unknown=Policy.IGNORE))
    with pytest.raises(Refused) as caught:
        start(server=Server(data=str(tmp_path)), http=Http(port=8081), tftp=Tftp(port=70))
    assert caught.value.slug == "port-taken"
    assert "udp port 67 (dhcp) is taken by" in caught.value.message
    raw = start(
        server=Server(data=str(tmp_path), interfaces=("eth0",)),
        dhcp=Dhcp(mode="raw", pxe_port=4012),
        http=Http(port=8081),
        tftp=Tftp(port=70),
    )
    machine = raw.machine()
    assert file_of(machine.offer("plain-rom-bios.discover")) == "undionly.kpxe"
    got = machine.ask(captured("ovmf-pxe-relayed.discover", MAC, giaddr=RELAY), to=(SERVER_ALIAS, 67), port=67)
    assert got is not None
    assert got[1] == (SERVER_ALIAS, 67)
    assert holder.server.dhcp.counts["answered"] == 0


def test_a_machine_waits_for_its_turn_while_the_link_is_full(start: Callable[..., Site]) -> None:
    site = start(http=Http(transfers_max=1))
    build(site.data)
    others = "52:54:00:00:00:02"
    site.fleet.add_machine(MachineEdit(name="first", macs=(MAC,)))
    site.fleet.add_machine(MachineEdit(name="second", macs=(others,)))
    site.fleet.assign(["first", "second"], AssignOrder("web"))
    site.seen()
    first, second = site.machine(), site.machine(others)
    kernel, initrd, _ = links(first.script(file_of(first.offer("qemu-rom-ipxe1-bios.discover"))))
    url = file_of(second.offer("qemu-rom-ipxe1-bios.discover"))
    busy = second.script(url)
    assert "1 machines are loading" in busy and "kernel" not in busy.replace("the kernel", "")
    assert re.search(r"^sleep \d+ \|\|$", busy, re.M)
    site.until(lambda: {row.name: row.state for row in site.fleet.machines()}["second"] == "queued")
    (boot,) = site.fleet.boots("second")
    assert (boot.queued, boot.cause) == (1, None)
    assert [e.kind for e in site.fleet.events(others) if e.data.get("action") == "queued"] == ["queued"]
    assert site.server.health()["queued"] == 1
    first.get(kernel)
    assert links(first.script(url.replace(url, file_of(first.offer("qemu-rom-ipxe1-bios.discover")))))  # a retry
    first.get(initrd)
    again = re.findall(r"chain \S+ \S+ (http\S+)\?mac", busy)[-1]
    assert second.get(links(second.script(again))[0]) == "kernel web"
    site.until(lambda: {row.name: row.state for row in site.fleet.machines()}["second"] == "booting")


def test_a_reload_changes_what_is_decided(site: Site) -> None:
    changed = Config(
        server=site.config.server, dhcp=Dhcp(unknown=Policy.IGNORE), boot=Boot(poll_seconds=7, silence_seconds=10)
    )
    site.loop.run(site.server.reload(changed))
    assert site.machine().ask(captured("plain-rom-bios.discover", MAC), wait=0.3) is None
    site.loop.run(site.server.reload(site.config))
    site.machine().offer("plain-rom-bios.discover")


def test_loader_script_and_files_come_by_ipv6_too(site: Site) -> None:
    machine = site.machine(hardware(site.wire.client))
    machine.offer("ovmf-pxe.discover")
    assert machine.tftp("snponly.efi", SERVER6) == LOADER
    record = site.boot(lambda boot: boot.stage is Stage.LOADER)
    assert record.stages[Stage.LOADER].peer == CLIENT6  # by the neighbour table: TFTP shows an address only
    autoexec = machine.tftp("autoexec.ipxe", SERVER6)
    assert isinstance(autoexec, bytes) and f"http://[{SERVER6}]:8080/boot/script.ipxe" in autoexec.decode()
    text = machine.script(f"http://[{SERVER6}]:8080/boot/script.ipxe")
    assert f"http://[{SERVER6}]:8080/boot/" in text


@pytest.fixture
def site6(start: Callable[..., Site]) -> Site:
    return start(dhcp6=Dhcp6(mode="proxy"))


def url_of(packet: dhcp6.Packet) -> str:
    return (packet.option(dhcp6.OPT_BOOTFILE_URL) or b"").decode()


def test_dhcpv6_answers_nobody_until_it_is_configured(site: Site) -> None:
    assert site.machine().ask6(captured6("ovmf-pxe.solicit"), wait=0.5) is None


def test_pxe_by_ipv6_goes_the_whole_way_and_is_recorded_as_such(site6: Site) -> None:
    build(site6.data)
    machine = site6.machine(hardware(site6.wire.client))
    site6.assign("web", machine.mac)
    got = machine.ask6(captured6("ovmf-pxe.solicit"))
    assert got is not None, site6.server.dhcp6.counts
    advertise, (sender, port) = got
    assert (advertise.message, sender[:5], port) == (dhcp6.ADVERTISE, "fe80:", 547)
    assert url_of(advertise) == f"tftp://[{SERVER6}]/snponly.efi"
    assert machine.ask6(captured6("ovmf-pxe.request"), wait=0.3) is None  # the address is another server's business
    request = captured6("ovmf-pxe.4011")
    options = tuple((c, server_duid(SERVER6) if c == dhcp6.OPT_SERVER_ID else v) for c, v in request.options)
    got = machine.ask6(replace(request, options=options), to=SERVER6, port=4011, own_port=4011)
    assert got is not None, site6.server.dhcp6.counts
    assert (got[0].message, got[1], url_of(got[0])) == (dhcp6.REPLY, (SERVER6, 4011), url_of(advertise))
    site6.until(
        lambda: [e.data["port"] for e in site6.fleet.events(machine.mac) if e.kind == "offer"] == ["547", "4011"]
    )
    shown = site6.fleet.explain(machine.mac, ExplainOrder())
    assert dhcp6.parse(bytes.fromhex(shown.payload)) == got[0]
    assert ("request", "DHCPv6 REQUEST on port 4011, PXEClient") in [(r.topic, r.text) for r in shown.reasons]
    assert machine.tftp("snponly.efi", SERVER6) == LOADER
    got = machine.ask6(captured6("snponly-ipxe1.solicit"))
    assert got is not None
    kernel, initrd, cmdline = links(machine.script(url_of(got[0]), platform="efi"))
    assert f"pxeserver.url=http://[{SERVER6}]:8080/boot/" in cmdline
    assert (machine.get(kernel), machine.get(initrd)) == ("kernel web", "initrd web 1")
    base = re.search(r"pxeserver.url=(\S+)", cmdline)
    assert base is not None
    assert machine.http("POST", f"{base[1]}/event", data={"stage": "up"}).status_code == 204
    boot = site6.boot(lambda boot: boot.result is Result.UP)
    assert len(site6.fleet.boots()) == 1
    assert boot.stages[Stage.OFFER].peer.startswith("fe80:")
    assert boot.stages[Stage.UP].peer == CLIENT6


def test_a_relay_agent_is_answered_where_it_stands(site6: Site) -> None:
    relay = dhcp6.Relay(0, "fd77::", "fe80::5054:ff:fe77:601", ((dhcp6.OPT_INTERFACE_ID, b"eth7"),))
    packet = replace(captured6("ovmf-pxe.solicit"), relays=(relay,))
    got = site6.machine().ask6(packet, to=SERVER6, own_port=547)
    assert got is not None, site6.server.dhcp6.counts
    assert (got[0].relays, got[1], url_of(got[0])) == ((relay,), (SERVER6, 547), f"tftp://[{SERVER6}]/snponly.efi")
    assert site6.boot(lambda boot: True).mac == "52:54:00:77:06:01"


def test_a_packet_given_to_explain_may_be_dhcpv6(site6: Site) -> None:
    shown = site6.fleet.explain(MAC, ExplainOrder(packet=captured6("ovmf-pxe.solicit").pack().hex()))
    assert (shown.action, shown.style, shown.boot_file) == ("answer", "dhcp6", "tftp://[2001:db8::1]/snponly.efi")
    assert [(o.code, o.name) for o in shown.options][2:] == [(59, "boot file URL"), (16, "vendor class")]
    assert shown.options[-1].text == "343: PXEClient"


def test_malformed_dhcpv6_and_what_has_no_card_is_counted_and_dropped(site6: Site) -> None:
    machine, solicit = site6.machine(), captured6("ovmf-pxe.solicit")
    assert machine.ask6(replace(solicit, options=(*solicit.options, (3, b"\0"))), wait=3) is not None

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for data in (b"", b"\1", b"\1xyz\0\1\xff\xff", solicit.pack()[:-1]):
                sock.sendto(data, (SERVER6, 547))

    within(site6.wire.client, send)
    site6.until(lambda: site6.server.dhcp6.counts["malformed"] == 4)
    assert site6.server.dhcp6.counts["failed"] == 0


def test_an_ipv6_address_that_somebody_set_is_told_before_an_advertised_one(wire: Wire) -> None:
    short = ["dev", "eth0", "valid_lft", "600", "preferred_lft", "600", "nodad"]  # as the kernel makes of a prefix
    ip("-n", wire.server, "address", "add", "fd77::aa:ff:fe00:1/64", *short)
    try:
        (eth,) = [one for one in within(wire.server, read_interfaces).values() if one.name == "eth0"]
    finally:
        ip("-n", wire.server, "address", "del", "fd77::aa:ff:fe00:1/64", "dev", "eth0")
    assert "fd77::aa:ff:fe00:1" in {str(address.ip) for address in eth.addresses6}
    assert own_address6(eth) == SERVER6
