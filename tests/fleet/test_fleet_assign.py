"""Assigning: by digest, all targets or none, refused with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleetlab import BOOT, MAC, MAC2, Clock, build, make_fleet, stage

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Policy, Stage


def test_a_spec_is_bound_by_the_digest_of_its_newest_build(fleet: Fleet, tmp_path: Path) -> None:
    first = build(tmp_path, version="1", created=1.0)
    (change,) = fleet.assign(["5254.0000.0001"], AssignOrder("web", args=("quiet=1", "-quiet"), by="eva"))
    assert change.image == first.short
    assert change.gets == f"{first.short} at its next boot"
    assert change.cmdline == "console=ttyS0"
    assert change.undo == f"pxeserver unassign {MAC}"
    second = build(tmp_path, version="2", created=2.0)
    row = fleet.show(MAC).row
    assert row.assignment is not None
    assert (row.assignment.image, row.assignment.newer) == (first.digest, second.short)
    assert fleet.show(MAC).profile.short == first.short
    (again,) = fleet.assign([MAC], AssignOrder("web"))
    assert again.undo == f"pxeserver assign {MAC} {first.short} --arg quiet=1 --arg -quiet"
    assert [(a.image, a.by) for a in fleet.show(MAC).history] == [(second.digest, ""), (first.digest, "eva")]


def test_follow_takes_the_build_of_the_day(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, version="1", created=1.0)
    fleet.assign([MAC], AssignOrder("web", follow=True))
    second = build(tmp_path, version="2", created=2.0)
    detail = fleet.show(MAC)
    assert detail.profile.image == second.digest
    assert detail.row.assignment is not None and detail.row.assignment.newer == ""
    assert fleet.unassign([MAC])[0].undo == f"pxeserver assign {MAC} web --follow"


@pytest.mark.parametrize(
    "form", ["web:v1", "web@{short}", "{short}", "sha256:{whole}", "web.yml", "config/specs/web.yml"]
)
def test_ways_to_name_an_image(fleet: Fleet, tmp_path: Path, form: str) -> None:
    image = build(tmp_path, tags=("v1",))
    whole = image.digest.removeprefix("sha256:")
    (change,) = fleet.assign([MAC], AssignOrder(form.format(short=whole[:12], whole=whole)))
    assert change.image == image.short


@pytest.mark.parametrize(
    ("what", "kind", "slug", "says"),
    [
        ("wbe", NotFound, "spec-not-found", 'did you mean "web"'),
        ("db", Refused, "spec-not-built", 'spec "db" was never built'),
        ("web:v9", NotFound, "image-not-found", 'no image "web:v9"'),
        ("web@ffff", NotFound, "image-not-found", "web@ffff"),
        ("", UsageError, "spec-missing", "no spec"),
    ],
)
def test_what_does_not_exist_is_refused(
    fleet: Fleet, tmp_path: Path, what: str, kind: type[PxeServerError], slug: str, says: str
) -> None:
    build(tmp_path)
    with pytest.raises(kind, match=says) as caught:
        fleet.assign([MAC], AssignOrder(what))
    assert caught.value.slug == slug
    assert fleet.machines() == ()


def test_never_built_is_refused_with_the_command(fleet: Fleet) -> None:
    with pytest.raises(Refused) as caught:
        fleet.assign([MAC], AssignOrder("rescue"))
    assert "pxeserver build rescue" in caught.value.hint


def test_only_a_spec_can_be_followed(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, tags=("v1",))
    with pytest.raises(UsageError) as caught:
        fleet.assign([MAC], AssignOrder("web:v1", follow=True))
    assert caught.value.slug == "follow-needs-spec"


def test_all_targets_or_none(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    generation = fleet.generation()
    with pytest.raises(NotFound, match='no machine "web-2" - did you mean "web-1"'):
        fleet.assign(["web-1", MAC2, "web-2"], AssignOrder("web"))
    assert [m.name for m in fleet.machines()] == ["web-1"]
    assert fleet.machines()[0].assignment is None and fleet.generation() == generation
    changes = fleet.assign(["web-1", MAC2, "web-1"], AssignOrder("web"))
    assert [c.mac for c in changes] == [MAC, MAC2]


def test_an_image_for_another_processor_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, arch="arm64")
    fleet.record([stage(Stage.OFFER, data={"arch": "amd64"})])
    with pytest.raises(Refused, match=f"{MAC} is amd64, web@.* is for arm64") as caught:
        fleet.assign([MAC], AssignOrder("web"))
    assert caught.value.hint == "pxeserver build --arch amd64 web"


def test_a_command_line_that_the_kernel_would_cut_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(Refused) as caught:
        fleet.assign([MAC], AssignOrder("web", args=("a=" + "b" * 2048,)))
    assert caught.value.slug == "cmdline-too-long"
    assert fleet.machines() == ()


def test_too_little_memory_is_refused_unless_forced(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, raw_size=1 << 30)
    fleet.record([stage(Stage.OFFER, data={"memory": "512"})])
    with pytest.raises(Refused, match=f"{MAC} has 512 MiB of memory, web@.* wants 2096") as caught:
        fleet.assign([MAC, "52:54:00:00:00:99"], AssignOrder("web"))
    assert caught.value.slug == "memory-too-small"
    assert [m.assignment for m in fleet.machines()] == [None], "all or none"
    (change,) = fleet.assign([MAC], AssignOrder("web", force=True))
    assert change.warnings and "512 MiB of memory" in change.warnings[0]


def test_tight_memory_is_a_warning(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, raw_size=1 << 30)
    fleet.record([stage(Stage.OFFER, data={"memory": "2060"})])
    (change,) = fleet.assign([MAC], AssignOrder("web"))
    assert change.warnings and "2060 MiB of memory" in change.warnings[0]


def test_the_same_again_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    fleet.assign([MAC], AssignOrder("web"))
    generation = fleet.generation()
    (change,) = fleet.assign([MAC], AssignOrder("web"))
    assert (change.changes, change.undo, fleet.generation()) == ((), "", generation)
    assert len(fleet.show(MAC).history) == 1


def test_a_waiting_machine_gets_it_at_once(fleet: Fleet, tmp_path: Path, clock: Clock) -> None:
    image = build(tmp_path)
    fleet.record([stage(Stage.SCRIPT, data={"action": "wait"})])
    clock.now += 4
    (change,) = fleet.assign([MAC], AssignOrder("web"))
    assert change.gets == f"{image.short} within 5 s: it is waiting now"
    clock.now += 400
    assert fleet.unassign([MAC])[0].gets.endswith("at its next boot")


def test_a_boot_under_way_keeps_what_it_began_with(fleet: Fleet, tmp_path: Path, clock: Clock) -> None:
    first, second = build(tmp_path), build(tmp_path, "db")
    fleet.assign([MAC], AssignOrder("web"))
    fleet.record([stage(Stage.KERNEL, data={"image": first.digest})])
    clock.now += 10
    (change,) = fleet.assign([MAC], AssignOrder("db"))
    assert change.gets == f"{second.short} at its next boot; now it is booting {first.short}"
    view = fleet.view()
    (ident,) = view.machines
    assert [a.image for a in view.past[ident]] == [first.digest]
    assert fleet.boot(BOOT).boot.image == first.digest


def test_unassigning_gives_what_the_policy_says(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, unknown=Policy.LOCAL)
    build(tmp_path)
    fleet.assign([MAC], AssignOrder("web"))
    (change,) = fleet.unassign([MAC])
    assert change.gets == "its local disk at its next boot"
    assert fleet.unassign([MAC])[0].changes == ()
    fleet.close()


def test_revisions_only_grow(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    build(tmp_path, "db")
    for what in ("web", "db", "web"):
        fleet.assign([MAC], AssignOrder(what))
        fleet.unassign([MAC])
    assert [a.revision for a in fleet.show(MAC).history] == [3, 2, 1]
