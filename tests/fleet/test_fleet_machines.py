"""Adding, changing, pinning and removing machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleetlab import BOOT, BOOT2, MAC, MAC2, MAC3, build, stage

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder, Diff, MachineEdit
from pxeserver.model import Pin, Stage


def test_a_machine_is_added_and_says_how_to_undo_it(fleet: Fleet) -> None:
    change = fleet.add_machine(MachineEdit("web-1", ("5254.0000.0001", MAC2.upper()), labels={"rack": "r1"}))
    assert change.name == "web-1" and change.mac == MAC
    assert change.undo == "pxeserver machines rm web-1"
    assert Diff("mac", "", f"{MAC} {MAC2}") in change.changes
    machine = fleet.find(MAC2)
    assert (machine.name, machine.macs, machine.known) == ("web-1", (MAC, MAC2), True)
    assert machine.labels == {"rack": "r1"}


def test_a_machine_without_a_name_is_in_the_view_at_once(fleet: Fleet) -> None:
    assert fleet.view().machine(MAC) is None
    fleet.add_machine(MachineEdit(macs=(MAC,)))
    assert fleet.view().machine(MAC) is not None


def test_an_unknown_machine_becomes_the_added_one(fleet: Fleet) -> None:
    fleet.record([stage(Stage.OFFER, data={"arch": "amd64", "memory": "512"})])
    (row,) = fleet.machines(known=False)
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    machine = fleet.find("web-1")
    assert (machine.id, machine.arch, machine.memory_mib) == (row.id, "amd64", 512)
    assert fleet.machines(known=False) == ()


def test_machines_seen_apart_become_one_with_all_their_boots(fleet: Fleet) -> None:
    fleet.record([stage(Stage.OFFER), stage(Stage.LOADER, 9, MAC2, BOOT2, data={"arch": "amd64"})])
    fleet.add_machine(MachineEdit("web-1", (MAC, MAC2)))
    (row,) = fleet.machines()
    assert row.macs == (MAC, MAC2) and row.arch == "amd64"
    assert row.boot is not None and row.boot.id == BOOT2
    assert [b.id for b in fleet.boots("web-1")] == [BOOT2, BOOT]


@pytest.mark.parametrize(
    ("edit", "kind", "slug"),
    [
        (MachineEdit("x"), UsageError, "mac-missing"),
        (MachineEdit("x", ("zz",)), UsageError, "bad-mac"),
        (MachineEdit("x", ("01:00:5e:00:00:01",)), UsageError, "bad-mac"),
        (MachineEdit("x", ("00:00:00:00:00:00",)), UsageError, "bad-mac"),
        (MachineEdit("x", (MAC,)), Refused, "mac-taken"),
        (MachineEdit("x", (MAC3, MAC)), Refused, "mac-taken"),
        (MachineEdit("WEB-1", (MAC3,)), Refused, "name-taken"),
        (MachineEdit("12", (MAC3,)), UsageError, "machine-name"),
        (MachineEdit("a b", (MAC3,)), UsageError, "machine-name"),
        (MachineEdit("x-", (MAC3,)), UsageError, "machine-name"),
        (MachineEdit("525400000009", (MAC3,)), UsageError, "machine-name"),
        (MachineEdit("x", (MAC3,), labels={"a b": "c"}), UsageError, "label-name"),
        (MachineEdit("x", (MAC3,), vars={"a-b": "c"}), UsageError, "var-name"),
        (MachineEdit("x", (MAC3,), vars={"a": "c" * 20000}), UsageError, "var-value"),
        (MachineEdit("x", (MAC3,), vars={"a": "c\0"}), UsageError, "var-value"),
        (MachineEdit("x", (MAC3,), cmdline=("a\nb",)), UsageError, "cmdline-edit"),
        (MachineEdit("x", (MAC3,), cmdline=(" ",)), UsageError, "cmdline-edit"),
        (MachineEdit("x", (MAC3,), cmdline=("a ${net0/mac}",)), UsageError, "cmdline-edit"),
        (MachineEdit("x", (MAC3,), template="bot"), NotFound, "template-not-found"),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    fleet: Fleet, edit: MachineEdit, kind: type[PxeServerError], slug: str
) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    before, generation = fleet.machines(), fleet.generation()
    with pytest.raises(kind) as caught:
        fleet.add_machine(edit)
    assert caught.value.slug == slug
    assert (fleet.machines(), fleet.generation()) == (before, generation)


def test_labels_and_vars_are_merged_and_lists_replaced(fleet: Fleet) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC,), {"a": "1", "b": "2"}, {"k": "v"}, ("quiet",)))
    change = fleet.set_machine("web-1", MachineEdit(labels={"a": None, "c": "3"}, cmdline=("-quiet", "x=1")))
    machine = fleet.find("web-1")
    assert machine.labels == {"b": "2", "c": "3"}
    assert machine.vars == {"k": "v"}
    assert machine.cmdline == ("-quiet", "x=1")
    assert change.undo == "pxeserver machines set web-1 --label a=1 --label -c --cmdline quiet"


def test_a_whole_edit_leaves_nothing_over(fleet: Fleet) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC,), {"a": "1"}, {"k": "v"}, ("quiet",)))
    fleet.set_machine("web-1", MachineEdit("web-2", (MAC2,), {}, {"z": "1"}, (), "", whole=True))
    machine = fleet.find("web-2")
    assert (machine.macs, machine.labels, machine.vars, machine.cmdline) == ((MAC2,), {}, {"z": "1"}, ())
    with pytest.raises(NotFound):
        fleet.find(MAC)


@pytest.mark.parametrize(
    "edit",
    [
        MachineEdit(name="other"),
        MachineEdit(name=""),
        MachineEdit(macs=(MAC3, MAC)),
        MachineEdit(labels={"a": "2", "new": "x y"}),
        MachineEdit(vars={"k": None}),
        MachineEdit(cmdline=()),
        MachineEdit(template="boot"),
    ],
    ids=str,
)
def test_the_undo_command_undoes(fleet: Fleet, edit: MachineEdit) -> None:
    import shlex

    from click.testing import CliRunner

    from pxeserver.cli.main import cli

    fleet.add_machine(MachineEdit("web-1", (MAC,), {"a": "1"}, {"k": "v"}, ("quiet", "b=c d")))
    before = fleet.find(MAC)
    change = fleet.set_machine("web-1", edit)
    assert fleet.find(MAC) != before
    program, *args = shlex.split(change.undo)
    environ = {"PXESERVER_ADMIN_SOCKET": "/nonexistent/api.sock"}
    done = CliRunner().invoke(cli, ["--data", str(fleet.config.data), *args], env=environ)
    assert (program, done.exit_code) == ("pxeserver", 0), done.output
    assert fleet.find(MAC) == before


def test_nothing_to_change_is_no_write(fleet: Fleet) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    generation = fleet.generation()
    assert fleet.set_machine("web-1", MachineEdit(name="web-1")).changes == ()
    assert fleet.generation() == generation


def test_a_removed_machine_shows_up_as_unknown_again(fleet: Fleet) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC,), labels={"rack": "r1"}, vars={"k": "a b"}))
    fleet.record([stage(Stage.OFFER)])
    change = fleet.remove_machine("web-1")
    assert change.undo == f"pxeserver machines add web-1 {MAC} --label rack=r1 --var 'k=a b'"
    assert fleet.machines() == ()
    assert [b.id for b in fleet.boots()] == [BOOT]
    fleet.record([stage(Stage.LOADER, 5)])
    (row,) = fleet.machines(known=False)
    assert row.boot is not None and (row.boot.id, row.boot.stage) == (BOOT, Stage.LOADER)


def test_an_assigned_machine_is_not_removed_by_accident(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path)
    fleet.assign([MAC], AssignOrder("web"))
    with pytest.raises(Refused) as caught:
        fleet.remove_machine(MAC)
    assert caught.value.slug == "machine-assigned"
    change = fleet.remove_machine(MAC, assigned=True)
    assert change.undo.startswith(f"pxeserver machines add {MAC} && pxeserver assign {MAC} web@")


@pytest.mark.parametrize(
    ("pins", "pin"),
    [
        ({"style": "binl"}, Pin("binl", "old.efi")),
        ({"loader": ""}, Pin("late", "")),
        ({"style": "", "loader": "undionly.kpxe"}, Pin("", "undionly.kpxe")),
    ],
)
def test_pins(fleet: Fleet, pins: dict[str, Any], pin: Pin) -> None:
    loaders = fleet.config.data / "loaders"
    loaders.mkdir()
    for name in ("undionly.kpxe", "old.efi", "index.json"):
        (loaders / name).write_bytes(b"x")
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    fleet.pin("web-1", style="late", loader="old.efi")
    change = fleet.pin("web-1", **pins)
    assert fleet.find("web-1").pin == pin
    assert change.undo == "pxeserver pin web-1 style=late loader=old.efi"


@pytest.mark.parametrize(
    ("pins", "slug"), [({"style": "bnl"}, "style-not-found"), ({"loader": "undionly.kpx"}, "loader-not-found")]
)
def test_a_pin_must_exist(fleet: Fleet, pins: dict[str, str], slug: str) -> None:
    (fleet.config.data / "loaders").mkdir()
    (fleet.config.data / "loaders" / "undionly.kpxe").write_bytes(b"x")
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    with pytest.raises(NotFound, match="did you mean") as caught:
        fleet.pin("web-1", **pins)
    assert caught.value.slug == slug
