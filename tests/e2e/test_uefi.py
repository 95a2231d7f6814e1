"""UEFI beyond PXE: HTTP boot of a loader, of a whole image, signed and unsigned."""

from __future__ import annotations

from typing import Any

from pxeserver.local import qemu
from pxeserver.model import STAGES, Result, Stage

HTTP = qemu.Hardware(mac="52:54:00:77:03:01", uefi=True, rom="", network="http")


def test_http_boot_to_the_loader_and_on_to_up(site: Any) -> None:
    site.cli("machines", "add", "http", HTTP.mac)
    site.cli("assign", "http", "web")
    machine = site.switch_on("http", HTTP)
    record = site.wait_up(machine)
    assert record.result is Result.UP
    assert sorted(record.stages, key=STAGES.index) == list(STAGES)
    assert record.loader == "snponly.efi"
    assert "<" in site.page(machine)
    events = site.fleet.events(boot=record.id, limit=1000)
    assert {event.data["style"] for event in events if event.kind == "offer"} >= {"http"}
    # fetched from an address that the site's own server gave, and by TCP: TFTP was never asked
    assert record.stages[Stage.LOADER].peer.startswith("10.77.0.1")
    assert "Start HTTP Boot over IPv4" in machine.console
    assert "Start PXE over" not in machine.console


WHOLE = qemu.Hardware(mac="52:54:00:77:03:02", uefi=True, rom="", network="http")


def test_http_boot_of_a_whole_image_without_a_loader(site: Any) -> None:
    site.cli("machines", "add", "whole", WHOLE.mac)
    made = site.cli("images", "uki", "other")
    site.cli("assign", "whole", "other")
    machine = site.switch_on("whole", WHOLE)
    record = site.wait_up(machine)
    assert record.result is Result.UP
    assert sorted(record.stages, key=STAGES.index) == [s for s in STAGES if s not in (Stage.LOADER, Stage.SCRIPT)]
    assert (record.spec, record.image) == ("other", made["digest"])
    assert record.stages[Stage.KERNEL].bytes == made["uki"]["size"]
    assert "the-other-one" in site.page(machine)
    assert "iPXE" not in machine.console
    assert "server: http://10.77.0.2" in machine.console  # nothing on its command line told it
