"""Machines from power-on to the kernel in virtual time, and what they say of servers broken on purpose."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simlab import DIRECT, MAC, PROXY, SCRIPT, Lan, Proxy, Tftp, World, program

from pxeserver.sim.effects import Fetched
from pxeserver.sim.firmware import FIRMWARE, NAMES
from pxeserver.sim.machine import Machine, Outcome, boot
from pxeserver.sim.packets import Card
from pxeserver.sim.programs import against_bios, against_efi, is_uki
from pxeserver.wire import dhcp, pxe

KERNEL, INITRD = b"kernel" * 100, b"initrd" * 1000
HEX = hashlib.sha256(KERNEL).hexdigest()
LOADER = f"http://{PROXY}/boot/T/loader/snponly.efi"
HOME = f"http://{PROXY}/boot/T"
BOOT = f"#!ipxe\nkernel --name kernel /b/{HEX}/kernel quiet pxeserver.url={HOME}\ninitrd /initrd.img\nboot\n".encode()
WAIT = b"#!ipxe\necho web-1 waits for an image\nsleep 5\nchain /boot.ipxe\n"
X86, ARM = program(), program(0xAA64)


@dataclass
class Site:
    """Everything that a machine needs; a test breaks one piece of it."""

    arm: bool = False
    lan: Lan = field(default_factory=Lan)
    proxy: dict[str, Any] = field(default_factory=dict)
    tftp: dict[str, bytes] = field(default_factory=dict)
    web: dict[str, bytes | Fetched] = field(default_factory=dict)

    def boot(self, name: str, **machine: Any) -> tuple[Outcome, World]:
        arm = FIRMWARE[name].arch in (11, 19, 22) or name == "rpi"
        loader = ARM if arm else X86
        files: Mapping[str, bytes] = {
            "undionly.kpxe": b"\xea" * 3000,
            "snponly.efi": loader,
            "start4.elf": b"\x7fELF",
            "config.txt": b"[all]\narmstub=RPI_EFI.fd\n",
            "RPI_EFI.fd": b"efi",
            **self.tftp,
        }
        vendor = pxe.raspberry_menu() if name == "rpi" else b""
        offered = {"bios": "undionly.kpxe", "efi": "snponly.efi", "ipxe": SCRIPT, "http": LOADER}
        proxy = Proxy(**{"vendor": vendor, "vendor_arch": 0 if vendor else None, "files": offered, **self.proxy})
        web: dict[str, bytes | Fetched] = {
            SCRIPT: BOOT,
            f"http://{PROXY}/b/{HEX}/kernel": KERNEL,
            f"http://{PROXY}/initrd.img": INITRD,
            LOADER: loader,
            f"HEAD {LOADER}": Fetched(200, {"content-length": str(len(loader))}),
            f"POST {HOME}/event": Fetched(204),
            **self.web,
        }
        world = World((self.lan, proxy, Tftp(files)), web)
        card = Card.of("b8:27:eb:00:00:01" if name == "rpi" else MAC)
        return world.play(boot(Machine(FIRMWARE[name], card, **machine), random.Random(1))), world


@pytest.mark.parametrize("name", sorted(FIRMWARE))
def test_every_firmware_boots(name: str) -> None:
    outcome, world = Site().boot(name)
    assert (outcome.result, outcome.complete) == ("booted", True), world.text()
    kernel, initrd = outcome.got[-2:]
    assert (kernel.stage, kernel.size, kernel.sha256, kernel.digest) == ("kernel", len(KERNEL), HEX, True)
    assert (initrd.stage, initrd.size) == ("initrd", len(INITRD))
    assert outcome.cmdline == f"quiet pxeserver.url={HOME}"
    loaders = [got.name for got in outcome.got[:-2]]
    assert loaders == {
        "bios": ["undionly.kpxe"],
        "rpi": ["start4.elf", "config.txt", "RPI_EFI.fd", "snponly.efi"],
    }.get(name, [] if name.startswith("ipxe") else ["snponly.efi"])


def test_the_names_for_people_are_firmware() -> None:
    assert set(NAMES) < set(FIRMWARE)


def failed(site: Site, name: str, stage: str) -> str:
    outcome, world = site.boot(name)
    assert (outcome.result, outcome.stage) == ("failed", stage), world.text()
    assert not outcome.complete
    return outcome.why


@pytest.mark.parametrize("name", ["bios", "edk2", "edk2-arm64", "uboot", "rpi", "http"])
def test_a_loader_for_another_machine_does_not_start(name: str) -> None:
    other = X86 if name in ("edk2-arm64", "uboot", "rpi") else ARM
    site = Site(tftp={"snponly.efi": other, "undionly.kpxe": X86}, web={LOADER: other})
    why = failed(site, name, "loader")
    assert "a program for" in why or "the machine has a BIOS" in why


def test_loaders_that_are_none() -> None:
    assert "no EFI program" in failed(Site(tftp={"snponly.efi": b"<html>"}), "edk2", "loader")
    assert "it is empty" in failed(Site(tftp={"undionly.kpxe": b""}), "bios", "loader")
    assert "below 640 KiB" in failed(Site(tftp={"undionly.kpxe": bytes(700_000)}), "bios", "loader")
    assert "error 1" in failed(Site(proxy={"files": {"bios": "other.0", "ipxe": SCRIPT}}), "bios", "loader")
    urls = {"bios": SCRIPT, "ipxe": SCRIPT}
    assert "wants a name on a TFTP server" in failed(Site(proxy={"files": urls}), "bios", "loader")


def test_http_boot_is_particular() -> None:
    def why(**answers: Fetched) -> str:
        return failed(Site(web={f"{method} {LOADER}": got for method, got in answers.items()}), "http", "loader")

    assert "a redirect (308)" in why(HEAD=Fetched(308))
    assert "no Content-Length" in why(HEAD=Fetched(200))
    assert "5000 bytes came, 7 were announced" in why(HEAD=Fetched(200, {"content-length": "7"}))
    assert "HTTP 404" in why(GET=Fetched(404))
    assert "reset by peer" in why(GET=Fetched(0, why="reset by peer"))
    nameless = f"http://{PROXY}/loader"
    whole = {"content-length": "5000", "content-type": "text/html"}
    site = Site(
        proxy={"files": {"http": nameless, "ipxe": SCRIPT}},
        web={nameless: Fetched(200, whole, 5000, "", X86), f"HEAD {nameless}": Fetched(200, whole)},
    )
    assert "neither type (text/html) nor name" in failed(site, "http", "loader")


def test_a_kernel_that_is_not_the_named_one_is_refused() -> None:
    site = Site(web={f"http://{PROXY}/b/{HEX}/kernel": b"another"})
    assert "have the digest" in failed(site, "ipxe-rom", "kernel")


def test_scripts_that_are_missing_or_broken() -> None:
    assert "HTTP 404" in failed(Site(web={SCRIPT: Fetched(404)}), "ipxe-rom", "script")
    assert "HTTP 404" in failed(Site(web={f"http://{PROXY}/initrd.img": Fetched(404)}), "ipxe-rom", "script")
    ftp = Site(proxy={"files": {"bios": "x", "ipxe": "ftp://10.77.0.2/x"}})
    assert "not built to load ftp" in failed(ftp, "ipxe-rom", "script")


def test_loaders_in_circles_are_stopped() -> None:
    site = Site(proxy={"files": {"bios": "undionly.kpxe", "ipxe": "undionly.kpxe"}})
    assert "4 loaders" in failed(site, "bios", "loader")


def test_a_script_may_say_wait_or_the_own_disk() -> None:
    outcome, world = Site(web={SCRIPT: WAIT}).boot("ipxe-rom", patience=12)
    assert (outcome.result, outcome.why, outcome.complete) == ("waits", "web-1 waits for an image", False)
    assert 10 <= world.now < 11
    outcome, _ = Site(web={SCRIPT: b"#!ipxe\nexit 1\n"}).boot("ipxe-rom")
    assert (outcome.result, outcome.complete) == ("local", True)


def test_what_is_found_by_tftp_is_a_script_too() -> None:
    site = Site(
        proxy={"files": {"bios": "x", "ipxe": "boot.ipxe"}},
        tftp={"boot.ipxe": BOOT.replace(b" /", b" http://10.77.0.2/")},
    )
    assert site.boot("ipxe-rom")[0].result == "booted"


def test_an_ipxe_that_another_one_loads_goes_on() -> None:
    site = Site(web={SCRIPT: b"#!ipxe\nchain tftp://10.77.0.2/undionly.kpxe\n"})
    outcome, world = site.boot("ipxe-rom")
    assert outcome.result == "failed" and "tftp" in world.text()
    url = f"http://{PROXY}/undionly.kpxe"
    site = Site(web={SCRIPT: f"#!ipxe\nchain {url}\n".encode(), url: b"\xea" * 10})
    assert "4 loaders" in failed(site, "ipxe-rom", "loader")


def test_autoexec_is_asked_for_by_ipxe_that_knows_it() -> None:
    absolute = BOOT.replace(b" /", f" http://{PROXY}/".encode())
    outcome, world = Site(tftp={"autoexec.ipxe": absolute}).boot("edk2")
    assert outcome.result == "booted" and world.text().count("DISCOVER") == 1
    outcome, world = Site(tftp={"autoexec.ipxe": absolute}).boot("edk2-2016")
    assert outcome.result == "booted" and world.text().count("DISCOVER") == 2
    outcome, world = Site(web={LOADER.replace("snponly.efi", "autoexec.ipxe"): absolute}).boot("http")
    assert outcome.result == "booted" and world.text().count("DISCOVER") == 1


def test_other_loaders_are_started_and_left_alone() -> None:
    site = Site(proxy={"files": {"efi": "shimx64.efi", "ipxe": SCRIPT}}, tftp={"shimx64.efi": X86})
    outcome, _ = site.boot("edk2")
    assert (outcome.result, outcome.complete) == ("started", True)


def test_a_uki_needs_no_more() -> None:
    uki = program(sections=(".text", ".linux"))
    site = Site(web={LOADER: uki, f"HEAD {LOADER}": Fetched(200, {"content-length": str(len(uki))})})
    outcome, _ = site.boot("http")
    assert (outcome.result, outcome.got[-1].stage) == ("booted", "kernel")
    assert is_uki(uki) and not is_uki(X86) and not is_uki(b"")


def test_the_pi_may_boot_without_uefi() -> None:
    files = {
        "config.txt": b"kernel=k8\ninitramfs i8 followkernel # x\n",
        "k8": b"K",
        "i8": b"I",
        "cmdline.txt": b"quiet\n",
    }
    outcome, _ = Site(tftp=files).boot("rpi")
    assert (outcome.result, outcome.cmdline) == ("booted", "quiet")
    assert [got.name for got in outcome.got if got.stage != "loader"] == ["k8", "i8"]
    prefixed = {f"eb000001/{name}": content for name, content in {**files, "start4.elf": b"x"}.items()}
    outcome, _ = Site(tftp=prefixed).boot("rpi")
    assert outcome.got[0].name == "eb000001/start4.elf" and outcome.result == "booted"


def test_a_machine_tries_again_and_reports_when_asked_to() -> None:
    outcome, world = Site(proxy={"vendor": DIRECT}).boot("edk2-2016", tries=2)
    assert (outcome.result, outcome.tries) == ("failed", 2)
    assert "starts anew, try 2" in world.text()
    outcome, world = Site().boot("ipxe-rom", report=True)
    posted = [dict(fetch.form) for fetch in world.fetched if fetch.method == "POST"]
    assert posted == [{"stage": "network"}, {"stage": "containerd"}, {"stage": "up"}]
    _, world = Site(web={SCRIPT: b"#!ipxe\nkernel /initrd.img\nboot\n"}).boot("ipxe-rom", report=True)
    assert "names nobody to report to" in world.text()


@dataclass
class Noise:
    """A server whose every answer is damaged on its way."""

    inner: Any
    rng: random.Random

    def dhcp(self, packet: dhcp.Packet, port: int) -> list[Any]:
        return [(delay, self.damaged(raw), peer) for delay, raw, peer in self.inner.dhcp(packet, port)]

    def udp(self, payload: bytes, to: Any, sender: Any) -> list[Any]:
        return [(delay, self.damaged(raw), peer) for delay, raw, peer in self.inner.udp(payload, to, sender)]

    def damaged(self, raw: bytes) -> bytes:
        if self.rng.random() < 0.6:
            return raw
        at = self.rng.randrange(len(raw))
        return raw[:at] + self.rng.randbytes(3) + raw[at + self.rng.randrange(6) :]


@given(st.sampled_from(sorted(FIRMWARE)), st.integers(0, 2**32))
def test_damaged_answers_never_break_the_simulator(name: str, seed: int) -> None:
    """It ends with an outcome, whatever comes."""
    rng = random.Random(seed)
    proxy = Proxy(files={"bios": "x", "efi": "x", "ipxe": SCRIPT, "http": LOADER})
    servers = tuple(Noise(server, rng) for server in (Lan(), proxy, Tftp({"x": X86, "start4.elf": b"x"})))
    world = World(servers, {SCRIPT: BOOT, LOADER: X86})
    outcome = world.play(boot(Machine(FIRMWARE[name], Card.of(MAC)), rng))
    assert outcome.result in ("booted", "failed")


def test_what_a_program_is() -> None:
    assert against_efi(X86, 7) == against_efi(ARM, 11) == ""
    assert against_efi(X86, 33) == ""  # an architecture that is not told apart
    assert "x86-64" in against_efi(ARM, 7)
    assert "no EFI program" in against_efi(X86[:100], 7)
    assert against_bios(b"x", 1) == ""
