"""Which images must stay because of machines."""

from __future__ import annotations

from pathlib import Path

from fleetlab import BOOT, BOOT2, MAC, MAC2, Clock, build, stage

from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder
from pxeserver.model import Stage

DAY = 86400


def test_nobody_needs_anything(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    assert fleet.needed_images() == ()


def test_what_is_assigned_and_what_was_until_lately(fleet: Fleet, tmp_path: Path, clock: Clock) -> None:
    old, new, other = (build(tmp_path, version=v, created=float(v)) for v in "123")
    for image in (old, new):
        fleet.assign([MAC], AssignOrder(image.digest))
    assert fleet.needed_images() == tuple(sorted([old.digest, new.digest]))
    clock.now += fleet.config.boot.keep_days * DAY + 1
    assert fleet.needed_images() == (new.digest,)
    fleet.unassign([MAC])
    assert fleet.needed_images() == (new.digest,), "so that it can be undone"
    assert other.digest not in fleet.needed_images()


def test_what_is_booting(fleet: Fleet, tmp_path: Path, clock: Clock) -> None:
    first, second = (build(tmp_path, version=v) for v in "12")
    for mac, boot, image in ((MAC, BOOT, first), (MAC2, BOOT2, second)):
        fleet.record([stage(Stage.OFFER, mac=mac, boot=boot)])
        fleet.record([stage(Stage.SCRIPT, 1, mac=mac, boot=boot, data={"image": image.digest})])
    assert fleet.needed_images() == tuple(sorted([first.digest, second.digest]))
    fleet.record([stage(Stage.UP, 2, mac=MAC, boot=BOOT)])
    assert fleet.needed_images() == (second.digest,)
