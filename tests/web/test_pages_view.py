"""View values: bars, timelines, filters, counts, empty states, each from plain fleet values."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.fleet.values import AssignmentInfo, BootRecord, CauseInfo, MachineRow, StageRecord
from pxeserver.model import STAGES, Blob, Image, Policy, Result, Stage
from pxeserver.web import view, view_fleet, view_pages

D1, D2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NOW = 1_800_000_000.0


def boot(*reached: tuple[Stage, float], result: Result = Result.OPEN, **more: object) -> BootRecord:
    """A boot that began at NOW - 100 and reached stages so many seconds later."""
    began = NOW - 100
    stages = {stage: StageRecord(began + at) for stage, at in reached}
    values: dict[str, object] = {"image": D1, "spec": "web", "ended": 0.0, **more}
    last = max((s.at for s in stages.values()), default=began)
    return BootRecord(
        id="0102030405060708",
        machine=1,
        name="web-1",
        mac="52:54:00:00:00:01",
        started=began,
        last=last,
        stage=reached[-1][0] if reached else Stage.OFFER,
        result=result,
        stages=stages,
        **values,  # type: ignore[arg-type]
    )


def machine(number: int = 1, **more: object) -> MachineRow:
    mac = f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"
    plain = MachineRow(number, f"web-{number}", mac, (mac,), True, seen=NOW - number)
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]


def page(machines: list[MachineRow], **wanted: object) -> view_fleet.FleetPage:
    filtered = view_fleet.Filter(**wanted)  # type: ignore[arg-type]
    return view_fleet.fleet_page(machines, filtered, policy=Policy.WAIT, images=1, choices=())


def states(cells: tuple[view.Cell, ...]) -> str:
    return " ".join(c.state for c in cells)


def test_a_bar_shows_what_is_waited_for() -> None:
    assert states(view.cells("booting", Stage.KERNEL)) == "done done done done now todo todo todo"
    assert states(view.cells("stuck", Stage.SCRIPT)) == "done done done bad todo todo todo todo"
    assert states(view.cells("up", Stage.UP)) == "done " * 7 + "done"
    assert states(view.cells("never", None)) == "todo " * 7 + "todo"


def test_a_status_says_its_stage_in_words() -> None:
    assert view.status("booting", Stage.INITRD).text == "booting: initrd"
    assert view.status("stuck", Stage.INITRD).text == "stuck after initrd"
    assert view.status("up", Stage.UP).text == "up"
    assert view.status("waiting", Stage.SCRIPT).text == "waiting"
    assert view.boot_status(boot((Stage.OFFER, 0), result=Result.REPLACED)).text == "restarted after offer"


def test_a_timeline_of_a_finished_boot_fills_its_width() -> None:
    line = view.timeline(boot((Stage.OFFER, 0), (Stage.SCRIPT, 10), (Stage.UP, 40), result=Result.UP), NOW)
    by_stage = {s.stage: s for s in line.steps}
    assert (by_stage[Stage.SCRIPT].left, by_stage[Stage.SCRIPT].width) == (0.0, 25.0)
    assert (by_stage[Stage.UP].left, by_stage[Stage.UP].width) == (25.0, 75.0)
    assert by_stage[Stage.LOADER].took == "skipped" and not by_stage[Stage.LOADER].kind
    assert (line.tone, line.summary, line.caption) == ("ok", "up in 40s", "40s")


def test_a_timeline_of_an_open_boot_grows_until_now() -> None:
    line = view.timeline(boot((Stage.OFFER, 0), (Stage.LOADER, 20)), NOW)
    waiting = line.steps[2]
    assert (waiting.stage, waiting.kind, waiting.took) == (Stage.SCRIPT, "wait", "80s")
    assert (waiting.left, waiting.width) == (50.0, 50.0)  # drawn no longer than all that came before
    assert (line.caption, line.summary) == ("20s, then 80s of waiting", "100s so far")


def test_a_stuck_boot_shows_how_long_it_has_been_stuck() -> None:
    line = view.timeline(boot((Stage.OFFER, 0), (Stage.KERNEL, 10), result=Result.STUCK, ended=NOW - 50), NOW)
    bad = line.steps[4]
    assert (bad.stage, bad.kind, bad.took) == (Stage.INITRD, "stuck", "40s")


@given(
    st.lists(st.sampled_from(STAGES), unique=True),
    st.lists(st.floats(-10, 1e6), min_size=8, max_size=8),
    st.sampled_from(list(Result)),
)
def test_bars_stay_inside_whatever_the_times(stages: list[Stage], times: list[float], result: Result) -> None:
    record = boot(*sorted(zip(stages, times, strict=False), key=lambda pair: STAGES.index(pair[0])), result=result)
    for step in view.timeline(record, NOW).steps:
        assert 0 <= step.left <= 99.5
        assert 0.5 <= step.width <= 100
        assert step.left + step.width <= 100.51


def test_since_is_when_the_stage_was_reached() -> None:
    assert view.since(machine(boot=boot((Stage.OFFER, 0), (Stage.KERNEL, 7)))) == NOW - 93
    assert view.since(machine(boot=boot((Stage.OFFER, 0), result=Result.STUCK, ended=NOW - 5))) == NOW - 5
    assert view.since(machine(7)) == NOW - 7


def test_a_row_tells_the_image_that_runs_from_the_one_assigned() -> None:
    given_now = AssignmentInfo("web", D2, "web@222222222222", 2)
    row = view.row(machine(boot=boot((Stage.UP, 5), result=Result.UP), assignment=given_now))
    assert (row.image.digest, row.running) == (D2, "web@111111111111")


def test_filters_take_part_of_a_mac_in_any_spelling() -> None:
    fleet = [machine(1), machine(0xABCD)]
    for text in ("00:AB:CD", "00-ab-cd", "00ab.cd", "web-43981"):
        assert [r.name for r in page(fleet, text=text).rows] == ["web-43981"], text


def test_filters_by_state_stage_spec_and_cause() -> None:
    cause = CauseInfo("initrd-cut-short", "the initrd was cut short")
    stuck = machine(1, state="stuck", boot=boot((Stage.INITRD, 1), result=Result.STUCK, cause=cause))
    up = machine(
        2, state="up", assignment=AssignmentInfo("db", D1, "db@1", 1), boot=boot((Stage.UP, 1), result=Result.UP)
    )
    for wanted, names in (
        ({"stage": "stuck"}, ["web-1"]),
        ({"stage": "initrd"}, ["web-1"]),
        ({"stage": "up"}, ["web-2"]),
        ({"spec": "db"}, ["web-2"]),
        ({"text": "CUT short"}, ["web-1"]),
        ({"stage": "never"}, []),
    ):
        assert [r.name for r in page([stuck, up], **wanted).rows] == names, wanted


def test_names_sort_as_people_count() -> None:
    fleet = [machine(n, name=f"r{n}") for n in (10, 9, 100)]
    assert [r.name for r in page(fleet).rows] == ["r9", "r10", "r100"]


def test_the_worst_come_first_when_asked_for() -> None:
    fleet = [machine(1, state="up"), machine(2, state="stuck"), machine(3, state="booting")]
    assert [r.name for r in page(fleet, sort="stage").rows] == ["web-2", "web-3", "web-1"]


def test_two_thousand_machines_come_in_pages_that_lead_to_each_other() -> None:
    fleet = [machine(n) for n in range(1, 2001)]
    first, last = page(fleet), page(fleet, page=99)
    assert (len(first.rows), first.range, first.previous, first.next) == (100, "1 to 100 of 2000", "", "/?page=2")
    assert (last.range, last.previous, last.next) == ("1901 to 2000 of 2000", "/?page=19", "")


def test_counts_are_links_that_keep_the_other_filters() -> None:
    fleet = [machine(1, state="up"), machine(2, state="stuck")]
    counts = {c.text: c for c in page(fleet, text="web", stage="stuck", page=3).counts}
    assert (counts["all"].value, counts["stuck"].value, counts["up"].value) == ("2", "1", "1")
    assert counts["up"].href == "/?q=web&stage=up" and counts["stuck"].current and not counts["all"].current


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ({"q": " a ", "stage": "kernel", "page": "3"}, view_fleet.Filter("a", "kernel", page=3)),
        ({"stage": "nonsense", "sort": "nonsense", "page": "-1"}, view_fleet.Filter()),
        ({"page": "99999999"}, view_fleet.Filter()),
    ],
)
def test_what_makes_no_sense_in_an_address_is_left_out(args: dict[str, str], wanted: view_fleet.Filter) -> None:
    assert view_fleet.filter_of(args) == wanted


def commands(shown: view_fleet.FleetPage) -> list[str]:
    assert shown.empty is not None
    return [command for step in shown.empty.steps for command in step.commands]


def test_newcomers_are_told_the_next_step() -> None:
    bare = view_fleet.fleet_page([], view_fleet.Filter(), policy=Policy.WAIT, images=0, choices=())
    assert bare.empty and bare.empty.title == "No machine seen yet"
    assert commands(bare) == ["pxeserver specs ls", "pxeserver build SPEC", "pxeserver doctor"]
    assert commands(page([])) == ["pxeserver doctor"]
    unknown = page([machine(1, name="", known=False)])
    assert unknown.empty and unknown.empty.title == "No machine is named or assigned yet"
    assert commands(unknown) == [] and unknown.unknown_total == 1
    assert page([machine(1)]).empty is None
    assert page([], text="nosuch").empty is None


def test_unknown_machines_are_the_latest_first_and_no_row_of_the_fleet() -> None:
    shown = page([machine(1), machine(5, known=False, name=""), machine(4, known=False, name="")])
    assert [r.mac[-2:] for r in shown.unknown] == ["04", "05"]
    assert [r.name for r in shown.rows] == ["web-1"] and shown.total == 1


def image(digest: str, created: float, spec: str = "web") -> Image:
    return Image(
        digest,
        spec,
        Blob("sha256:k", 10 << 20),
        Blob(digest, 40 << 20, 90 << 20),
        "",
        "amd64",
        created,
        (f"{spec}:v1",),
    )


def test_a_form_offers_the_newest_builds_first() -> None:
    groups = view.choices([image(D1, NOW - 60), image(D2, NOW - 10)], {"web": D2}, NOW)
    assert [(g.label, [c.value for c in g.choices]) for g in groups] == [
        ("newest builds", [D2]),
        ("older builds", [D1]),
    ]
    assert groups[0].choices[0].text == "web@222222222222 (10s old, amd64, 50.0 MiB)"


def test_images_say_who_boots_them_and_what_memory_they_need() -> None:
    users = [machine(n, assignment=AssignmentInfo("web", D1, "web@1", 1)) for n in (1, 2)]
    shown = view_pages.images_page([image(D1, NOW), image(D2, NOW - 1)], {"web": D1}, users)
    assert [(i.ref.digest, i.newest, i.users) for i in shown.images] == [(D1, True, 2), (D2, False, 0)]
    assert shown.images[0].memory == "278 MiB (BIOS), 342 MiB (UEFI)"
    assert shown.summary == "2 built, 90.0 MiB"  # the kernel that both share counts once
    assert [r.name for r in view_pages.image_page(image(D1, NOW), {}, users).machines] == ["web-1", "web-2"]
