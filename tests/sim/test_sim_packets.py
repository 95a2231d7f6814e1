"""What simulated firmware sends is what real firmware was recorded to send."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from simlab import MAC, World

from pxeserver.boot.request import request_of
from pxeserver.sim import packets
from pxeserver.sim.dialogue import find_file
from pxeserver.sim.effects import Stopped
from pxeserver.sim.firmware import FIRMWARE
from pxeserver.sim.packets import Card
from pxeserver.wire import dhcp

CAPTURES = Path(__file__).parents[1] / "captures"
RECORDED = Card("52:54:00:77:00:01", uuid.UUID("4c4c4544-0077-1000-8000-525400770001"))


def recorded(name: str) -> dhcp.Packet:
    return dhcp.parse(bytes.fromhex((CAPTURES / f"{name}.hex").read_text().strip()))


@pytest.mark.parametrize(
    ("firmware", "capture"),
    [
        ("edk2", "ovmf-pxe"),
        ("http", "ovmf-http"),
        ("ipxe-rom", "qemu-rom-ipxe1-bios"),
        ("bios", "plain-rom-bios"),
        ("ipxe", "undionly-ipxe2-bios"),
        ("ipxe-efi", "snponly-ipxe2-efi"),
        ("ipxe-efi1", "snponly-ipxe1-efi"),
    ],
)
def test_a_discover_is_the_recorded_one(firmware: str, capture: str) -> None:
    want = recorded(f"{capture}.discover")
    assert packets.discover(FIRMWARE[firmware], RECORDED, want.xid) == want.pack()


@pytest.mark.parametrize(("firmware", "capture"), [("edk2", "ovmf-pxe"), ("ipxe-rom", "qemu-rom-ipxe1-bios")])
def test_a_request_is_the_recorded_one(firmware: str, capture: str) -> None:
    want = recorded(f"{capture}.request")
    made = packets.request(FIRMWARE[firmware], RECORDED, want.xid, "10.77.0.202", "10.77.0.1")
    assert made == want.pack()


def test_the_question_to_4011_is_the_recorded_one() -> None:
    want = recorded("ovmf-pxe.4011")
    assert packets.ask(FIRMWARE["edk2"], RECORDED, want.xid, "10.77.0.202", "10.77.0.2") == want.pack()
    want = recorded("plain-rom-bios.4011")
    made = dhcp.parse(packets.ask(FIRMWARE["bios"], RECORDED, bytes(4), "10.77.0.202", "10.77.0.2", item=b"\x80\0"))
    assert made.option(43) == want.option(43)
    assert (made.flags, made.secs, made.ciaddr) == (want.flags, want.secs, want.ciaddr)
    assert [code for code, _ in made.options] == [code for code, _ in want.options]


def test_every_firmware_is_one_that_a_boot_server_knows() -> None:
    for firmware in FIRMWARE.values():
        asked = request_of(dhcp.parse(packets.discover(firmware, Card.of(MAC), b"abcd")), 67)
        assert asked is not None, firmware.name
        assert asked.arch.code == firmware.arch
        assert asked.ipxe == (firmware.loads == "script")
        assert asked.http == (firmware.name.startswith("http"))
        assert firmware.chained in FIRMWARE


def test_the_same_seed_sends_the_same_packets() -> None:
    def sent(seed: int) -> list[dhcp.Packet]:
        world = World(())
        with pytest.raises(Stopped):
            world.play(find_file(FIRMWARE["edk2"], Card.of(MAC), random.Random(seed)))
        return world.sent

    assert sent(1) == sent(1) != sent(2)
    assert len(sent(1)) == 4  # DISCOVER at 0, 4, 12 and 28 s


def test_a_release_gives_back_what_was_leased() -> None:
    released = dhcp.parse(packets.release(Card.of(MAC), b"abcd", "10.0.0.9", "10.0.0.1"))
    assert (released.message, released.ciaddr, released.option(54)) == (dhcp.RELEASE, "10.0.0.9", b"\x0a\0\0\1")
