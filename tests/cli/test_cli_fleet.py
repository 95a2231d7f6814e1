"""The fleet verbs on the database and through a real server: the same words either way."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clilab import InnerShell, Ran, Server, Shell
from fleetlab import BOOT, BOOT2, MAC, MAC2, build, make_config

from pxeserver.cli import boots
from pxeserver.errors import PxeServerError
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import AssignOrder, BootRecord, CauseInfo, MachineEdit
from pxeserver.model import Event, Result, Stage


@pytest.fixture(params=["in process", "by socket", "by url"])
def run(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    """A command line in each of the three ways; nothing in a test tells them apart."""
    if request.param != "in process":
        server: Server = request.getfixturevalue("server")
        if request.param == "by url":
            shell.environ |= {"PXESERVER_URL": server.url, "PXESERVER_ADMIN_SOCKET": "/nonexistent"}
    return InnerShell(shell)


@pytest.fixture(params=["in process", "by socket"])
def inside(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    """The same without a process for each command."""
    if request.param == "by socket":
        request.getfixturevalue("server")
    return InnerShell(shell)


def record(shell: Shell, *events: Event) -> None:
    fleet = open_fleet(make_config(shell.data))
    fleet.record(events)
    fleet.close()


def event(stage: Stage, ago: float, mac: str = MAC, boot: str = BOOT, **more: object) -> Event:
    return Event(time.time() - ago, str(stage), mac, boot, stage, **more)  # type: ignore[arg-type]


def failed(ran: Ran, code: int, slug: str, says: str = "") -> None:
    assert ran.code == code, ran
    assert ran.out == ""
    assert ran.err.startswith(f"error[{slug}]: "), ran.err
    assert says in ran.err and "Traceback" not in ran.err


def test_assign_says_what_it_gets_and_how_to_undo_it(run: Shell) -> None:
    image = build(run.data)
    done = run("assign", "5254.0000.0001", "web", "--arg", "a=b", "--reason", "test")
    assert done.code == 0, done.err
    assert done.out == (
        f"{MAC}\n"
        f"  assignment: none -> {image.short}, --arg a=b\n"
        f"  gets: {image.short} at its next boot\n"
        "  cmdline: console=ttyS0 quiet a=b\n"
        f"  undo: pxeserver unassign {MAC}\n"
    )
    (history,) = run("show", MAC, "-o", "json").json["history"]
    assert history["reason"] == "test" and history["by"]
    (change,) = run("unassign", "52-54-00-00-00-01", "-o", "json").json
    assert change["undo"] == f"pxeserver assign {MAC} {image.short} --arg a=b"
    assert run("machines", "ls", "-o", "json").json[0]["assignment"] is None


@pytest.mark.parametrize(
    ("args", "code", "slug", "says"),
    [
        (("assign", MAC, "wbe"), 3, "spec-not-found", 'did you mean "web"?'),
        (("assign", MAC, "db"), 4, "spec-not-built", "pxeserver build db"),
        (("assign", MAC, "web:v9"), 3, "image-not-found", "web:v9"),
        (("assign", "wb-1", "web"), 3, "machine-not-found", 'did you mean "web-1"?'),
        (("assign", "web"), 2, "assign-what", "MACHINE SPEC"),
        (("assign", "5254", "web"), 4, "machine-ambiguous", f"web-1 ({MAC}), {MAC2}"),
        (("unassign", "nobody"), 3, "machine-not-found", "nobody"),
        (("machines", "add", "web-1", "52:54:00:00:00:09"), 4, "name-taken", MAC),
        (("machines", "add", "web-9", "5254"), 2, "bad-mac", "5254"),
        (("machines", "set", "web-1"), 2, "machine-edit", "--help"),
        (("machines", "set", "web-1", "--label", "x"), 2, "label-form", "KEY=VALUE"),
        (("machines", "rm", "web-1"), 4, "machine-assigned", "unassign web-1"),
        (("pin", "web-1", "style=bnl"), 3, "style-not-found", 'did you mean "binl"?'),
        (("pin", "web-1", "styl=binl"), 2, "pin-form", 'did you mean "style"?'),
        (("pin", "web-1"), 2, "pin-form", "style=binl"),
        (("show", "web-2"), 3, "machine-not-found", 'did you mean "web-1"?'),
        (("show", ".."), 3, "machine-not-found", ""),
        (("show", "a/b"), 3, "machine-not-found", ""),
        (("render", "web-2"), 3, "machine-not-found", ""),
        (("explain", "web-1", "--arch", "99"), 2, "arch-unknown", "99"),
        (("boots", "ffff"), 3, "boot-not-found", "ffff"),
        (("boots", "nobody"), 3, "machine-not-found", "nobody"),
        (("boots", "--wait"), 2, "boots-wait", ""),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_faults(inside: Shell, args: tuple[str, ...], code: int, slug: str, says: str) -> None:
    build(inside.data)
    fleet = open_fleet(make_config(inside.data))
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    fleet.assign(["web-1", MAC2], AssignOrder("web"))
    fleet.close()
    failed(inside(*args), code, slug, says)


def test_machines_from_beginning_to_end(run: Shell) -> None:
    added = run("machines", "add", "web-1", MAC, MAC2.replace(":", ""), "--label", "rack=r1", "--var", "k=v w")
    assert added.code == 0 and "undo: pxeserver machines rm web-1" in added.out
    edits = ("--label", "-rack", "--cmdline", "-quiet", "--cmdline", "a=b")
    change = run("machines", "set", "web-1", "--name", "web-2", *edits, "-o", "json").json
    assert change["undo"] == "pxeserver machines set web-2 --name web-1 --label rack=r1 --cmdline ''"
    (row,) = run("machines", "-o", "json").json
    assert (row["name"], row["macs"], row["labels"]) == ("web-2", [MAC, MAC2], {})
    assert run("pin", "web-2", "style=binl").code == 0
    assert run("show", "web-2", "-o", "json").json["machine"]["pin"] == {"style": "binl", "loader": ""}
    assert run("pin", "web-2", "--off").code == 0
    assert run("machines", "ls", "-l", "rack=r1").err == "no machines: pxeserver machines add NAME MAC\n"
    removed = run("machines", "rm", "web-2")
    assert f"pxeserver machines add web-2 {MAC} {MAC2}" in removed.out
    assert run("machines", "-o", "json").json == []


def test_boots_and_their_timeline(run: Shell) -> None:
    image = build(run.data)
    data = {"image": image.digest, "memory": "512", "arch": "amd64"}
    record(run, *(event(s, 100 - n * 10, bytes=n << 20, data=data) for n, s in enumerate(Stage)))
    record(run, event(Stage.OFFER, 700, MAC2, BOOT2))
    listed = run("boots")
    lines = listed.out.splitlines()
    assert lines[0].split() == ["BOOT", "MACHINE", "IMAGE", "STARTED", "TOOK", "STAGE", "RESULT", "CAUSE"]
    assert lines[1].split()[:3] == [BOOT[:8], MAC, image.short] and lines[1].split()[-2:] == ["up", "-"]
    assert lines[2].split()[-2:] == ["stuck", "no-offer-uptake"]
    shown = run("boots", BOOT[:8])
    assert "initrd      +40.0s  10.0s  4.0 MiB  -" in shown.out
    assert run("boots", BOOT[:8], "-o", "json").json["boot"]["result"] == "up"
    assert [b["id"] for b in run("boots", MAC2, "-o", "json").json] == [BOOT2]
    machine = run("show", MAC2)
    assert "cause    no-offer-uptake" in machine.out and "not known" in machine.out
    assert MAC in run("machines", "unknown").out and run("machines", "ls").out == ""
    assert MAC in run("machines", "-a", "--state", "up").out


def test_explain_and_render(run: Shell) -> None:
    build(run.data)
    run("machines", "add", "web-1", MAC, "--cmdline", "m=1")
    run("assign", "web-1", "web", "--arg", "-quiet")
    bios = run("explain", "web-1", "--firmware", "bios", "--bytes")
    assert "boot file  undionly.kpxe" in bios.out and "43 vendor options  06 01 08 ff" in bios.out
    ipxe = run("explain", "web-1", "--firmware", "ipxe", "-o", "json").json
    assert ipxe["kind"] == "script" and ipxe["boot_file"].startswith("http://10.0.0.1:8080/boot/")
    assert ipxe["profile"]["script"].startswith("#!ipxe")
    assert run("explain", "00:11:22:33:44:55", "--arch", "11").code == 0
    cmdline = run("render", "web-1", "cmdline", "-o", "json").json
    assert [(p["text"], p["origin"]) for p in cmdline["parts"]][:2] == [("console=ttyS0", "image"), ("m=1", "machine")]
    script = run("render", "web-1")
    assert script.out.startswith("#!ipxe\n") and "m=1" in script.out and script.err == "# template boot\n"
    plain = run("render", "web-1", "cmdline", "--plain")
    assert plain.out.startswith("console=ttyS0 m=1 BOOTIF=01-52-54-00-00-00-01 ")


def test_a_packet_from_a_file(run: Shell, tmp_path: Path) -> None:
    made = run("explain", MAC, "--firmware", "bios", "-o", "json").json
    hexed, raw = tmp_path / "p.hex", tmp_path / "p.bin"
    hexed.write_text(made["packet"][:100] + "\n" + made["packet"][100:])
    raw.write_bytes(bytes.fromhex(made["packet"]))
    for path in (hexed, raw):
        again = run("explain", MAC, "--packet", str(path), "-o", "json").json
        assert (again["payload"], again["source"]) == (made["payload"], "the given packet")
    failed(run("explain", MAC, "--packet", "/nonexistent"), 3, "packet-file")


def following(process: subprocess.Popen[str]) -> None:
    """Wait until the command has looked where the record stands."""
    assert process.stderr is not None and process.stderr.readline().startswith("following ")


def test_following_prints_what_happens(run: Shell) -> None:
    record(run, event(Stage.OFFER, 5))
    with run.popen("boots", MAC, "-f", "-o", "json") as process:
        following(process)
        record(run, event(Stage.LOADER, 0, text="one\ntwo"), event(Stage.LOADER, 0, MAC2, BOOT2))
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (line["kind"], line["mac"], line["text"]) == ("loader", MAC, "one\ntwo")
    assert process.returncode == 130 and err == ""


@pytest.mark.parametrize(
    ("stages", "data", "timeout", "code", "slug"),
    [
        ([Stage.OFFER, Stage.UP], {}, "100", 0, ""),
        ([Stage.SCRIPT], {"action": "local", "result": "local"}, "100", 0, ""),
        ([Stage.OFFER], {}, "0.1", 7, "error[boot-timeout]"),
    ],
)
def test_waiting_for_a_boot(
    shell: Shell, stages: list[Stage], data: dict[str, str], timeout: str, code: int, slug: str
) -> None:
    record(shell, event(Stage.UP, 500))  # one that was up before is not the one waited for
    with shell.popen("boots", MAC, "-f", "--wait", "--timeout", timeout) as process:
        following(process)
        record(shell, *(event(s, -0.001, boot=BOOT2, data=data) for s in stages))
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert slug in err


def test_a_boot_that_ends_badly_is_named() -> None:
    boot = BootRecord(BOOT, 1, "web-1", MAC, 1.0, 2.0, Stage.INITRD, Result.STUCK, cause=CauseInfo("x", "too little"))
    with pytest.raises(PxeServerError, match="web-1 is stuck at initrd: too little") as caught:
        boots.end_of(boot)
    assert (caught.value.slug, caught.value.exit_code) == ("boot-failed", 1)
