"""Scripts as whole files per firmware, what may not get into them, and templates of one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxeserver.boot import script
from pxeserver.boot.profile import Profile, profile
from pxeserver.boot.script import ScriptContext
from pxeserver.boot.text import Checked, printed, shown
from pxeserver.boot.text import fault as script_fault
from pxeserver.config import Config
from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.model import FleetView, Machine, Policy

GOLDEN = Path(__file__).resolve().parent / "golden"
MAC = "52:54:00:77:00:01"
TOKEN = "T" * 62
BASE = "http://10.77.0.2:8080"

Golden = Callable[[str, str], None]


def ctx(platform: str = "efi", **more: object) -> ScriptContext:
    return ScriptContext(BASE, TOKEN, MAC, platform, **more)  # type: ignore[arg-type]


def policy(action: str, problem: str = "") -> Profile:
    return Profile(action, Policy.WAIT, None, None, (), problem)  # type: ignore[arg-type]


@pytest.fixture
def golden(update_goldens: bool) -> Golden:
    def compare(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.ipxe"
        if update_goldens:
            file.write_text(text)
        assert text == file.read_text()

    return compare


@pytest.fixture
def booting(view: FleetView, machine: Machine) -> Profile:
    return profile(machine, MAC, view, Config())


def test_every_golden_has_its_test() -> None:
    used = set(re.findall(r'golden\("([\w-]+)"', Path(__file__).read_text()))
    assert {file.stem for file in GOLDEN.glob("*.ipxe")} == used


def test_boot_on_bios(golden: Golden, booting: Profile, machine: Machine) -> None:
    golden("boot-bios", script.render(booting, machine, ctx("pcbios")))


def test_boot_on_uefi(golden: Golden, booting: Profile, machine: Machine) -> None:
    golden("boot-efi", script.render(booting, machine, ctx("efi")))


def test_boot_with_too_little_memory_says_so(golden: Golden, booting: Profile, machine: Machine) -> None:
    golden("boot-little-memory", script.render(booting, replace(machine, memory_mib=256), ctx("efi")))


def test_waiting(golden: Golden, machine: Machine) -> None:
    golden("wait", script.render(policy("wait"), machine, ctx(poll_seconds=7)))


def test_waiting_unknown_with_a_reason(golden: Golden) -> None:
    golden("wait-unknown", script.render(policy("wait", 'the default spec "web" was never built'), None, ctx("")))


def test_local_on_bios(golden: Golden, machine: Machine) -> None:
    golden("local-bios", script.render(policy("local"), machine, ctx("pcbios")))


def test_local_on_uefi(golden: Golden, machine: Machine) -> None:
    golden("local-efi", script.render(policy("local"), machine, ctx("efi")))


def test_refused(golden: Golden, machine: Machine) -> None:
    golden("refuse", script.render(policy("refuse", "web@0123 is for arm64, this machine is amd64"), machine, ctx()))


def test_failure_shows_the_error(golden: Golden, machine: Machine) -> None:
    golden("failure", script.failure(Refused("template-failed", 'bad "${x}" && worse\nline'), ctx(), machine))


def test_entry(golden: Golden) -> None:
    golden("entry", script.entry(f"{BASE}/boot/{TOKEN}/script.ipxe"))


def test_autoexec(golden: Golden) -> None:
    golden("autoexec", script.autoexec(BASE))


# --- what holds for all of them ---


def every_script(machine: Machine, booting: Profile) -> dict[str, str]:
    made = {
        f"{p.action}-{platform}": script.render(p, machine, ctx(platform))
        for p in (booting, policy("wait"), policy("refuse", "x"), policy("local"), policy("ignore"))
        for platform in ("efi", "pcbios", "")
    }
    made |= {
        "entry": script.entry(f"{BASE}/s"),
        "autoexec": script.autoexec(BASE),
        "failure": script.failure("x", ctx()),
    }
    return made


def test_no_script_ends_in_a_prompt(machine: Machine, booting: Profile) -> None:
    """Each ends by going back to a label of its own, or by leaving for the local disk."""
    for name, text in every_script(machine, booting).items():
        last = text.rstrip().splitlines()[-1]
        leaves = re.fullmatch(r"exit 1|sanboot .* \|\| exit 1|.*goto (\w+)", last)
        assert leaves, (name, last)
        labels = set(re.findall(r"^:(\w+)$", text, re.M))
        assert set(re.findall(r"goto (\w+)", text)) <= labels, name


def test_scripts_use_only_commands_that_ipxe_1_0_knows(machine: Machine, booting: Profile) -> None:
    known = {
        "echo",
        "imgfree",
        "kernel",
        "initrd",
        "boot",
        "sleep",
        "chain",
        "goto",
        "exit",
        "sanboot",
        "isset",
        "dhcp",
    }
    for text in every_script(machine, booting).values():
        for line in text.splitlines()[1:]:
            if line and not line.startswith((":", "#")):
                assert {part.split()[0] for part in re.split(r" \|\| ?", line) if part.split()} <= known, line


def test_the_command_line_finds_its_server_card_and_initrd(booting: Profile) -> None:
    parts = {part.key: part for part in script.cmdline_for(booting, ctx("efi"))}
    assert parts["BOOTIF"].text == "BOOTIF=01-52-54-00-77-00-01"
    assert parts["pxeserver.url"].text == f"pxeserver.url={BASE}/boot/{TOKEN}"
    assert parts["initrd"].text == "initrd=initrd.img"
    assert {parts[key].origin for key in ("BOOTIF", "pxeserver.url", "initrd")} == {"server"}
    bios = [part.key for part in script.cmdline_for(booting, ctx("pcbios"))]
    assert "initrd" not in bios
    assert "initrd" in [part.key for part in script.cmdline_for(booting, ctx(""))]  # harmless on BIOS


def test_nobody_can_take_away_what_the_boot_needs(view: FleetView, machine: Machine) -> None:
    stubborn = replace(machine, cmdline=("-BOOTIF", "pxeserver.url=http://evil/", "initrd=other", "BOOTIF=x"))
    parts = script.cmdline_for(profile(stubborn, MAC, view, Config()), ctx())
    texts = [part.text for part in parts]
    assert texts[-3:] == [
        "BOOTIF=01-52-54-00-77-00-01",
        f"pxeserver.url={BASE}/boot/{TOKEN}",
        "initrd=initrd.img",
    ]
    assert len([text for text in texts if text.startswith(("BOOTIF", "pxeserver.url", "initrd"))]) == 3


@pytest.mark.parametrize(
    ("var", "platform", "line"),
    [
        ("exit", "efi", "exit"),
        ("exit1", "pcbios", "exit 1"),
        ("sanboot", "efi", "sanboot --no-describe --drive 0x80 || exit 1"),
        ("nonsense", "efi", "exit 1"),
        ("nonsense", "pcbios", "sanboot --no-describe --drive 0x80 || exit 1"),
        ("", "", "exit 1"),
    ],
)
def test_ways_to_the_local_disk(machine: Machine, var: str, platform: str, line: str) -> None:
    text = script.render(policy("local"), replace(machine, vars={"local_boot": var}), ctx(platform))
    assert text.splitlines()[-1] == line


def test_without_a_token_urls_are_plain() -> None:
    text = script.render(policy("wait"), None, ScriptContext(BASE, "", MAC))
    assert f"{BASE}/boot/script.ipxe?" in text


# --- injection ---

EVIL = [
    "a\nshell",
    "a\rb",
    "${cwuri}",
    "x && shell",
    "x || shell",
    "x ; shell",
    "#x",
    "a\\",
    "grün",
    'a"b',
    "a'b",
    "a`b",
    "a\0",
]


@pytest.mark.parametrize("evil", EVIL)
def test_what_ipxe_would_obey_cannot_be_printed(evil: str) -> None:
    with pytest.raises(Refused) as caught:
        printed(evil)
    assert caught.value.slug == "script-bad-value"


@pytest.mark.parametrize("evil", EVIL)
def test_names_are_only_ever_shown(booting: Profile, machine: Machine, evil: str) -> None:
    text = script.render(booting, replace(machine, name=evil), ctx())
    assert len(text.splitlines()) == len(script.render(booting, machine, ctx()).splitlines())
    assert "${cwuri}" not in text and (evil not in text or not script_fault(evil))


@pytest.mark.parametrize("evil", EVIL[:6])
def test_a_command_line_with_syntax_of_ipxe_is_refused(view: FleetView, machine: Machine, evil: str) -> None:
    bad = replace(machine, cmdline=(f'a="{evil}"',))
    with pytest.raises(Refused) as caught:
        script.render(profile(bad, MAC, view, Config()), bad, ctx())
    assert caught.value.slug == "cmdline-bad-value"


@given(st.text(max_size=400))
def test_whatever_is_shown_is_one_harmless_line(text: str) -> None:
    safe = shown(text)
    assert printed(safe) == safe and safe.isascii() and safe.isprintable() and len(safe) <= 300
    assert "$" not in safe and not {"&&", "||", ";"} & set(safe.split()) and "#" not in safe


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_and_no_parameter_changes_what_the_script_does(
    view: FleetView, machine: Machine, name: str, parameter: str
) -> None:
    odd = replace(machine, name=name, cmdline=(parameter,))
    try:
        text = script.render(profile(odd, MAC, view, Config()), odd, ctx())
    except Refused:
        return
    plain = script.render(profile(machine, MAC, view, Config()), machine, ctx())
    commands = [line.split(" ")[0] for line in plain.split("\n")]
    assert [line.split(" ")[0] for line in text.split("\n")] == commands


# --- templates of one's own ---


def own(tmp_path: Path, text: str, name: str = "mine") -> Path:
    (tmp_path / "ipxe").mkdir()
    (tmp_path / "ipxe" / f"{name}.ipxe.j2").write_text(text)
    return tmp_path


@pytest.mark.parametrize("given_name", ["mine", "mine.ipxe.j2"])
def test_a_machine_may_have_its_own_template(
    tmp_path: Path, booting: Profile, machine: Machine, given_name: str
) -> None:
    folder = own(tmp_path, "#!ipxe\nkernel {{ kernel_url }} {{ cmdline }} rack={{ machine.vars.rack }}\n")
    text = script.render(booting, replace(machine, template=given_name), ctx(), [folder])
    assert text.splitlines()[1].endswith(" rack=r1") and "BOOTIF=" in text
    assert "rack" not in script.render(policy("wait"), replace(machine, template=given_name), ctx(), [folder])


def test_a_users_folder_comes_before_the_shipped_one(tmp_path: Path, machine: Machine) -> None:
    folder = own(tmp_path, "#!ipxe\n# ours\n{% include 'again.j2' %}", "wait")
    text = script.render(policy("wait"), machine, ctx(), [folder])
    assert "# ours" in text and ":again" in text
    assert "# ours" not in script.render(policy("wait"), machine, ctx())


def test_an_edited_template_is_read_again(tmp_path: Path, machine: Machine) -> None:
    folder = own(tmp_path, "#!ipxe\n# one\n", "wait")
    assert "# one" in script.render(policy("wait"), machine, ctx(), [folder])
    file = folder / "ipxe" / "wait.ipxe.j2"
    file.write_text("#!ipxe\n# two\n")
    newer = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(newer, newer))
    assert "# two" in script.render(policy("wait"), machine, ctx(), [folder])


@pytest.mark.parametrize(
    ("text", "kind", "slug", "words"),
    [
        ("#!ipxe\n{{ nothing }}", UsageError, "template-undefined", "nothing"),
        ("#!ipxe\n{{ machine.vars.nothing }}", UsageError, "template-undefined", "nothing"),
        ("#!ipxe\n{% if %}", UsageError, "template-syntax", "mine.ipxe.j2:2"),
        ("#!ipxe\n{{ ''.__class__.__mro__ }}", UsageError, "template-failed", "unsafe"),
        ("#!ipxe\n{{ machine.vars.clear() }}", UsageError, "template-failed", "unsafe"),
        ("#!ipxe\n{{ 1 / 0 }}", UsageError, "template-failed", "division"),
        ("#!ipxe\n{% include 'other.j2' %}", NotFound, "template-not-found", "other.j2"),
        ("#!ipxe\n{% include '../../../etc/passwd' %}", NotFound, "template-not-found", "passwd"),
        ("echo hello\n", UsageError, "template-not-ipxe", "#!ipxe"),
        ("#!ipxe\necho {{ machine.vars.evil }}", Refused, "script-bad-value", "shown"),
    ],
)
def test_faults_in_a_template_are_named(
    tmp_path: Path,
    booting: Profile,
    machine: Machine,
    text: str,
    kind: type[PxeServerError],
    slug: str,
    words: str,
) -> None:
    folder = own(tmp_path, text)
    mine = replace(machine, template="mine", vars={"evil": "x && shell"})
    with pytest.raises(kind) as caught:
        script.render(booting, mine, ctx(), [folder])
    assert caught.value.slug == slug and words in caught.value.render()


def test_a_template_that_is_not_there_is_told_with_the_nearest(booting: Profile, machine: Machine) -> None:
    with pytest.raises(NotFound) as caught:
        script.render(booting, replace(machine, template="bot"), ctx())
    assert 'no iPXE template "bot" - did you mean "boot"?' in str(caught.value)


def test_checked_text_is_printed_as_it_is() -> None:
    assert printed(Checked('a="b c"')) == 'a="b c"' and printed(5) == "5"
