"""Causes: simulated timelines of boots that do not come up, watched as time passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot.diagnose import FIXES, PATIENCE, Cause, diagnose
from pxeserver.model import STAGES, Event, Image, Machine, Result, Stage

MIB = 1 << 20
LONG = 10_000.0
MAC = "52:54:00:77:00:01"


class Timeline:
    """Events as the recorder writes them, one after another."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events: list[Event] = []

    def after(self, seconds: float) -> Timeline:
        self.now += seconds
        return self

    def _add(self, kind: str, stage: Stage | None, **more: Any) -> Timeline:
        data = more.pop("data", {})
        self.events.append(Event(self.now, kind, MAC, "00" * 8, stage, data=data, **more))
        return self

    def offer(self, kind: str = "loader", port: str = "67", style: str = "binl") -> Timeline:
        return self._add("offer", Stage.OFFER, data={"kind": kind, "port": port, "style": style})

    def loader(self, name: str = "snponly.efi") -> Timeline:
        return self._add("loader", Stage.LOADER, data={"loader": name}, bytes=300_000)

    def script(self, action: str = "boot", text: str = "") -> Timeline:
        return self._add("script", Stage.SCRIPT, data={"action": action}, text=text)

    def reach(self, *stages: Stage) -> Timeline:
        for stage in stages:
            self.after(1)._add(stage.value, stage)
        return self

    def stopped(self, file: str, count: int = 5, size: str = "100") -> Timeline:
        return self._add("note", None, bytes=count, data={"what": "stopped", "file": file, "size": size})

    def cause(self, slug: str, text: str = "") -> Timeline:
        return self._add("cause", None, data={"cause": slug}, text=text)

    def at(
        self,
        seconds: float,
        machine: Machine | None = None,
        image: Image | None = None,
        result: Result = Result.OPEN,
    ) -> Cause | None:
        """The diagnosis so many seconds after the last event."""
        return diagnose(self.events, machine, image, self.now + seconds, result=result)

    def slug(self, seconds: float = LONG, machine: Machine | None = None, **more: Any) -> str:
        cause = self.at(seconds, machine, **more)
        if cause is None:
            return ""
        assert cause.text and cause.fix == FIXES[cause.slug].replace("MACHINE", MAC if machine is None else "node7")
        return cause.slug


def booting() -> Timeline:
    """UEFI up to the loader running: two offers, the loader, the script's address."""
    return Timeline().offer().after(4).offer(port="4011").after(1).loader().after(8).offer("script").after(3)


def test_a_boot_that_goes_well_has_no_cause_at_any_moment() -> None:
    line = booting().script("entry").script()
    for stage in (Stage.KERNEL, Stage.INITRD, Stage.NETWORK, Stage.CONTAINERD):
        assert line.slug(100) == ""
        line.after(5).reach(stage)
    assert line.reach(Stage.UP).slug() == ""
    assert diagnose([], None, None, 0.0) is None


def test_nobody_takes_the_offers() -> None:
    line = Timeline().offer()
    assert line.slug(10) == "" and line.slug(PATIENCE[Stage.OFFER]) == "no-offer-uptake"
    line.after(4).offer().after(8).offer(style="pxe10")
    cause = line.at(0)
    assert cause is not None and cause.slug == "no-offer-uptake"
    assert cause.evidence == ("3 answers, styles binl, pxe10",)


def test_a_machine_that_takes_another_servers_offer() -> None:
    line = Timeline().offer()
    line._add("note", None, text="10.0.0.9 tells machines to load x", data={"what": "other-server"})
    cause = line.at(PATIENCE[Stage.OFFER])
    assert cause is not None and cause.slug == "other-boot-server"
    assert cause.evidence == ("10.0.0.9 tells machines to load x", "1 answers, styles binl")
    assert line.after(1).loader().slug(10) == ""  # it took ours all the same


def test_the_firmware_asks_again_and_never_fetches() -> None:
    line = Timeline().offer().after(3).offer(port="4011").offer(port="4011")
    assert line.slug(5) == "" and line.slug() == "loader-not-fetched"


def test_ipxe_in_the_card_never_fetches_its_script() -> None:
    line = Timeline().offer("script")
    assert line.slug(5) == "" and line.slug() == "script-not-fetched"


def test_a_loader_transfer_that_stops() -> None:
    line = Timeline().offer().stopped("loader", 5, "300")
    assert line.slug(5) == ""  # it may come back
    cause = line.at(60)
    assert cause is not None and cause.slug == "loader-stopped" and "after 5 of 300 bytes" in cause.text
    assert line.after(5).loader().slug(60) == ""  # it came back


def test_a_loader_that_returns_is_named_within_two_cycles() -> None:
    line = Timeline().offer().loader("undionly.kpxe").after(5).offer()
    assert line.slug(0) == ""
    line.after(2).loader("undionly.kpxe")
    cause = line.at(0)
    assert cause is not None and cause.slug == "loader-loop"
    assert cause.text == "undionly.kpxe returned to the firmware without asking for its script, 2 times"
    assert line.after(5).offer().slug(0) == "loader-loop"
    assert line.script().slug(0) == ""  # it asked after all
    assert line.loader().slug(0) == ""


def test_a_loader_that_does_nothing() -> None:
    line = Timeline().offer().loader()
    assert line.slug(60) == "" and line.slug() == "loader-silent"
    assert booting().slug(60) == "" and booting().slug() == "script-not-fetched"


def test_waiting_for_an_image_and_going_away() -> None:
    line = booting().script("wait")
    assert line.slug(5) == "not-assigned" and line.slug() == "went-away"


def test_a_refusal_is_told_in_its_own_words() -> None:
    cause = booting().script("refuse", "web is for arm64").at(0)
    assert cause is not None and (cause.slug, cause.text) == ("refused", "web is for arm64")


def test_a_machine_sent_to_its_own_disk_is_fine() -> None:
    assert booting().script("local").slug() == ""


def test_scripts_and_files_not_asked_for() -> None:
    assert booting().script("entry").slug() == "script-not-fetched"
    assert booting().script("entry").script().slug() == "kernel-not-fetched"
    assert booting().script().reach(Stage.KERNEL).slug() == "initrd-not-fetched"


@pytest.mark.parametrize(
    ("file", "before"),
    [("kernel", ()), ("initrd", (Stage.KERNEL,))],
)
def test_downloads_that_stop(file: str, before: tuple[Stage, ...]) -> None:
    line = booting().script().reach(*before).stopped(file, 70 * MIB, "80000000")
    assert line.slug(5) == "" and line.slug(60) == f"{file}-stopped"
    assert line.after(5).reach(Stage(file)).slug(5) == ""


def test_a_system_that_stops_on_its_way_up() -> None:
    line = booting().script().reach(Stage.KERNEL, Stage.INITRD)
    assert line.slug(120) == "" and line.slug() == "no-network"
    assert line.reach(Stage.NETWORK).slug() == "no-containerd"
    assert line.reach(Stage.CONTAINERD).slug() == "not-up"


def test_init_reports_a_cut_initrd() -> None:
    cause = booting().script().reach(Stage.KERNEL, Stage.INITRD).cause("initrd-cut-short", "no end mark").at(0)
    assert cause is not None and (cause.slug, cause.text) == ("initrd-cut-short", "no end mark")
    assert "memory" in cause.fix
    odd = booting().cause("something-new").at(0)
    assert odd is not None and (odd.slug, odd.text, odd.fix) == ("something-new", "something-new", "")
    assert booting().cause("initrd-cut-short").reach(Stage.UP).slug() == ""  # up wins


def test_too_little_memory_is_the_likely_cause_of_silence(machine: Machine, image: Image) -> None:
    line = booting().script().reach(Stage.KERNEL, Stage.INITRD)
    small = replace(machine, memory_mib=256)
    cause = line.at(LONG, small, image)
    assert cause is not None and cause.slug == "initrd-cut-short" and "probably" in cause.text
    assert cause.evidence == ("memory 256 MiB, web@abababababab wants 318 MiB",)
    assert line.slug(machine=replace(machine, memory_mib=320), image=image) == "no-network"
    efi = replace(machine, memory_mib=320, facts={"firmware": "efi"})
    assert line.slug(machine=efi, image=image) == "initrd-cut-short"
    assert line.slug(machine=machine, image=image) == "no-network"  # memory not known


def test_a_machine_that_started_anew(machine: Machine, image: Image) -> None:
    line = booting().script().reach(Stage.KERNEL, Stage.INITRD)
    cause = line.at(0, result=Result.REPLACED)
    assert cause is not None and cause.slug == "replaced" and cause.text.endswith("it had come to initrd")
    assert line.slug(0, machine=replace(machine, memory_mib=256), image=image, result=Result.REPLACED) == (
        "initrd-cut-short"
    )
    assert booting().slug(0, result=Result.REPLACED) == "replaced"


def test_a_boot_called_stuck_gets_its_cause_at_once() -> None:
    line = booting().script().reach(Stage.KERNEL, Stage.INITRD)
    assert line.slug(1) == "" and line.slug(1, result=Result.STUCK) == "no-network"
    assert booting().script("wait").slug(1, result=Result.STUCK) == "went-away"


@pytest.mark.parametrize("result", [Result.UP, Result.LOCAL, Result.NETWORK_ONLY])
def test_a_boot_that_ended_well_has_no_cause(result: Result) -> None:
    assert booting().script().reach(Stage.KERNEL).slug(result=result) == ""


STEPS = st.lists(
    st.sampled_from(
        ["offer", "offer-script", "offer-4011", "loader", "wait", "refuse", "boot", "stopped", "cause", "quiet"]
        + [stage.value for stage in STAGES[3:]]
    ),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.floats(0, 2000), st.sampled_from(list(Result)))
def test_every_timeline_has_a_known_cause_or_none(steps: list[str], seconds: float, result: Result) -> None:
    line = Timeline()
    for step in steps:
        line.after(3)
        match step:
            case "offer" | "offer-script":
                line.offer(step.partition("-")[2] or "loader")
            case "offer-4011":
                line.offer(port="4011")
            case "loader":
                line.loader()
            case "wait" | "refuse" | "boot":
                line.script(step)
            case "stopped":
                line.stopped("initrd")
            case "cause":
                line.cause("initrd-cut-short")
            case "quiet":
                line._add("log", None)
            case _:
                line.reach(Stage(step))
    cause = line.at(seconds, result=result)
    if cause is not None:
        assert cause.slug in FIXES and cause.text and cause.fix
        if result is Result.OPEN and cause.slug not in ("loader-loop", "not-assigned"):
            later = line.at(seconds + LONG)
            assert later is not None  # silence cures nothing
