"""Events open, advance and close boots, add unknown machines, teach facts; nothing in them can make it fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleetlab import BOOT, BOOT2, MAC, MAC2, NOW, Clock, build, make_fleet, stage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxeserver.fleet import prune as prune_module
from pxeserver.fleet.fleet import PRUNE_SECONDS, Fleet
from pxeserver.fleet.record import KEEP_STAGE, clean
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.model import Event, Result, Stage


def test_a_whole_boot(fleet: Fleet, tmp_path: Path) -> None:
    image = build(tmp_path)
    token_part = image.digest.removeprefix("sha256:")[:32]
    events = [stage(s, n * 2.0, bytes=n * 100, seconds=0.5, peer="10.0.0.9") for n, s in enumerate(Stage)]
    events[2] = stage(
        Stage.SCRIPT, 4.0, data={"image": token_part, "revision": "7", "style": "binl", "loader": "x.efi"}
    )
    fleet.record(events[:5])
    fleet.record(events[5:])
    (boot,) = fleet.boots()
    assert (boot.id, boot.mac, boot.stage, boot.result) == (BOOT, MAC, Stage.UP, Result.UP)
    assert (boot.image, boot.spec, boot.revision) == (image.digest, "web", 7)
    assert (boot.style, boot.loader) == ("binl", "x.efi")
    assert (boot.started, boot.last, boot.ended) == (NOW, NOW + 14, NOW + 14)
    assert tuple(boot.stages) == tuple(Stage)
    kernel = boot.stages[Stage.KERNEL]
    assert (kernel.at, kernel.bytes, kernel.seconds, kernel.peer) == (NOW + 6, 300, 0.5, "10.0.0.9")
    assert [e.stage for e in fleet.boot(BOOT[:6]).events] == list(Stage)


def test_an_unknown_machine_is_added_and_learnt_about(fleet: Fleet) -> None:
    generation = fleet.generation()
    facts = {"arch": "amd64", "memory": "2048", "uuid": "u", "serial": "s", "ip": "10.0.0.9", "other": "x"}
    fleet.record([stage(Stage.OFFER, data=facts), stage(Stage.LOADER, 3)])
    (row,) = fleet.machines(known=False)
    assert (row.mac, row.arch, row.memory_mib, row.ip, row.seen) == (MAC, "amd64", 2048, "10.0.0.9", NOW + 3)
    assert fleet.show(MAC).machine.facts == {"uuid": "u", "serial": "s"}
    assert fleet.generation() > generation


def test_the_style_that_the_firmware_took_is_remembered(fleet: Fleet) -> None:
    fleet.record([stage(Stage.OFFER, data={"style": "binl"}), stage(Stage.OFFER, 9, data={"style": "pxe10"})])
    assert "style" not in fleet.show(MAC).machine.facts  # not taken yet
    fleet.record([stage(Stage.LOADER, 10)])
    assert fleet.show(MAC).machine.facts["style"] == "pxe10"
    # what the loaded iPXE is offered says nothing about the firmware
    fleet.record([stage(Stage.OFFER, 12, data={"style": "options"}), stage(Stage.SCRIPT, 13)])
    assert fleet.show(MAC).machine.facts["style"] == "pxe10"
    # an iPXE in ROM has no loader
    rom = [stage(Stage.OFFER, 60, MAC2, BOOT2, data={"style": "late"}), stage(Stage.SCRIPT, 61, MAC2, BOOT2)]
    fleet.record(rom)
    assert fleet.show(MAC2).machine.facts["style"] == "late"


def test_what_teaches_nothing_does_not_move_the_generation(fleet: Fleet) -> None:
    fleet.record([stage(Stage.OFFER, data={"arch": "amd64"})])
    generation = fleet.generation()
    fleet.record([stage(Stage.LOADER, 3, data={"arch": "amd64", "memory": "lots"})])
    assert fleet.generation() == generation


def test_a_new_boot_replaces_the_open_one(fleet: Fleet) -> None:
    fleet.record([stage(Stage.KERNEL), stage(Stage.OFFER, 60, boot=BOOT2)])
    new, old = fleet.boots()
    assert (old.id, old.result, old.ended) == (BOOT, Result.REPLACED, NOW + 60)
    assert (new.id, new.result) == (BOOT2, Result.OPEN)


def test_up_by_another_card_of_the_machine_replaces_too(fleet: Fleet) -> None:
    fleet.add_machine(MachineEdit("web-1", (MAC, MAC2)))
    fleet.record([stage(Stage.LOADER), stage(Stage.OFFER, 60, MAC2, BOOT2)])
    assert [(b.mac, b.result) for b in fleet.boots("web-1")] == [(MAC2, Result.OPEN), (MAC, Result.REPLACED)]
    fleet.record([stage(Stage.UP, 90)])
    assert fleet.boot(BOOT).boot.result is Result.UP


@pytest.mark.parametrize(
    ("reached", "image", "after", "result"),
    [
        (Stage.INITRD, True, 601, Result.STUCK),
        (Stage.INITRD, True, 599, Result.OPEN),
        (Stage.NETWORK, True, 601, Result.NETWORK_ONLY),
        (Stage.CONTAINERD, True, 601, Result.STUCK),
        (Stage.UP, True, 99999, Result.UP),
        (Stage.OFFER, False, 601, Result.STUCK),
    ],
)
def test_silence_settles_a_boot(
    fleet: Fleet, tmp_path: Path, clock: Clock, reached: Stage, image: bool, after: float, result: Result
) -> None:
    data = {"image": build(tmp_path).digest} if image else {}
    fleet.record([stage(reached, data=data)])
    clock.now += after
    (boot,) = fleet.boots()
    assert boot.result is result
    assert fleet.machines()[0].state == {Result.OPEN: "booting"}.get(result, str(result))
    fleet.record([stage(Stage.OFFER, after, boot=BOOT2)])
    assert fleet.boot(BOOT).boot.result is (Result.REPLACED if result is Result.OPEN else result)


def test_a_machine_that_keeps_asking_waits_and_is_not_stuck(fleet: Fleet, clock: Clock) -> None:
    fleet.record([stage(Stage.SCRIPT, n * 100, data={"action": "wait"}) for n in range(20)])
    clock.now += 1950
    (row,) = fleet.machines()
    assert row.state == "waiting" and row.boot is not None and row.boot.cause is not None
    assert row.boot.cause.slug == "not-assigned"
    clock.now += 1000
    assert fleet.machines()[0].state == "stuck"


def test_endless_repeats_are_kept_short_with_the_newest_one(fleet: Fleet) -> None:
    fleet.record([stage(Stage.SCRIPT, n, text=str(n)) for n in range(30)])
    fleet.record([stage(Stage.SCRIPT, 30 + n, text=str(30 + n)) for n in range(5)])
    texts = [e.text for e in fleet.boot(BOOT).events]
    assert texts == [*map(str, range(KEEP_STAGE - 1)), "34"]
    (boot,) = fleet.boots()
    assert boot.stages[Stage.SCRIPT].count == 35 and boot.last == NOW + 34


def test_local_boots_end_at_once(fleet: Fleet) -> None:
    fleet.record([stage(Stage.SCRIPT, data={"action": "local", "result": "local"})])
    assert fleet.machines()[0].state == "local"


def test_a_reported_cause_is_shown_until_the_boot_is_up(fleet: Fleet) -> None:
    fleet.record(
        [stage(Stage.INITRD), Event(NOW + 1, "cause", MAC, BOOT, text="x", data={"cause": "initrd-cut-short"})]
    )
    (boot,) = fleet.boots()
    assert boot.cause is not None and boot.cause.slug == "initrd-cut-short"
    fleet.record([stage(Stage.UP, 5)])
    assert fleet.boots()[0].cause is None


def test_a_loader_that_comes_back_is_named_within_two_cycles(fleet: Fleet) -> None:
    cycle = [stage(Stage.OFFER, 0), stage(Stage.LOADER, 1, data={"loader": "x.efi"})]
    fleet.record(cycle)
    assert fleet.boots()[0].cause is None
    fleet.record([stage(Stage.OFFER, 10), stage(Stage.LOADER, 11, data={"loader": "x.efi"})])
    cause = fleet.machines()[0].boot.cause  # type: ignore[union-attr]
    assert cause is not None and cause.slug == "loader-loop" and "x.efi" in cause.text


ODD = st.text(st.characters(blacklist_categories=()), max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            Event,
            at=st.floats(allow_nan=True, allow_infinity=True),
            kind=ODD,
            mac=st.sampled_from([MAC, MAC2, ""]),
            boot=st.sampled_from([BOOT, BOOT2, ""]),
            stage=st.none() | st.sampled_from(list(Stage)),
            peer=ODD,
            bytes=st.integers(),
            seconds=st.floats(),
            text=ODD,
            data=st.dictionaries(
                st.sampled_from(["arch", "memory", "image", "revision", "result", "cause", "ip"]), ODD
            ),
        ),
        max_size=8,
    )
)
def test_no_event_can_make_it_fail(fleet: Fleet, events: list[Event]) -> None:
    fleet.record(events)
    fleet.machines()
    for boot in fleet.boots():
        fleet.boot(boot.id)


def test_texts_are_cleaned() -> None:
    assert clean("a\0b\ud800c") == "ab?c"
    assert len(clean("x" * 100_000)) == 65536


def test_what_is_old_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_module, "ROWS_AT_ONCE", 3)
    clock = Clock()
    fleet = make_fleet(tmp_path, clock, keep_days=1)
    build(tmp_path)
    fleet.record([stage(s, n) for n, s in enumerate(list(Stage)[:7])])
    fleet.assign([MAC], AssignOrder("web"))
    fleet.record([stage(Stage.OFFER, 9, MAC2, BOOT2)])
    clock.now += 86400 + PRUNE_SECONDS + 100
    for n in range(4):  # a few rows at a time
        fleet.record([Event(clock.now + n, "note")])
    assert [e.kind for e in fleet.events()] == ["note"] * 4
    assert fleet.boots() == ()
    assert [m.mac for m in fleet.machines()] == [MAC]  # MAC2 was unknown and had nothing
    fleet.close()


def test_events_after_a_number_and_the_last_ones(fleet: Fleet) -> None:
    fleet.record([stage(s, n, MAC if n % 2 else MAC2, BOOT if n % 2 else BOOT2) for n, s in enumerate(Stage)])
    everything = fleet.events()
    assert [e.at - NOW for e in everything] == list(range(8))
    assert fleet.events(limit=2) == everything[-2:]
    assert fleet.events(after=everything[3].id, limit=2) == everything[4:6]
    assert fleet.events(MAC) == everything[1::2]
    assert fleet.events(boot=BOOT2) == everything[0::2]
