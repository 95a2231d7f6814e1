"""GRUB's configuration for a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pxeserver.boot import grub
from pxeserver.boot.profile import profile
from pxeserver.boot.script import EFI, ScriptContext
from pxeserver.config import Config
from pxeserver.errors import Refused
from pxeserver.model import FleetView, Machine

MAC = "52:54:00:77:00:01"
OWN = "10.77.0.2"
CONTEXT = ScriptContext(f"http://{OWN}:8080", "T" * 62, MAC, EFI)
AGAIN = f"sleep 10\nconfigfile (tftp,{OWN})/grub/grub.cfg-01-52-54-00-77-00-01\n"


@pytest.mark.parametrize(
    ("path", "mac"),
    [
        ("grub/grub.cfg-01-52-54-00-77-00-01", MAC),
        ("grub.cfg-01-52-54-00-77-00-AF", "52:54:00:77:00:af"),
        ("EFI/debian/grub.cfg", ""),
        ("grub/grub.cfg-0A4D0064", None),
        ("grub/grub.cfg-01-52-54-00-77-00", None),
        ("grub/x86_64-efi/command.lst", None),
        ("grubx64.efi", None),
    ],
)
def test_whose_configuration_a_name_is(path: str, mac: str | None) -> None:
    assert grub.asked(path) == mac


def test_the_image_with_the_machine_s_own_command_line_by_tftp(view: FleetView, machine: Machine) -> None:
    text = grub.render(profile(machine, MAC, view, Config()), machine, CONTEXT, OWN)
    lines = text.splitlines()
    assert lines[0] == f"echo 'pxeserver: node7 ({MAC}) boots web@abababababab'"
    command, kernel, *words = lines[1].split(" ")
    assert (command, kernel) == ("linux", f"(tftp,{OWN})/b/{'11' * 32}/kernel")
    assert words == [
        *("'console=ttyS0'", "'quiet'", "'debug'", "'BOOTIF=01-52-54-00-77-00-01'"),
        f"'pxeserver.url=http://{OWN}:8080/boot/{'T' * 62}'",
    ]
    assert lines[2:4] == [f"initrd (tftp,{OWN})/b/{'22' * 32}/initrd.img", "boot"]
    assert text.endswith("did not start'\n" + AGAIN)


def test_who_has_no_image_waits_and_asks_again(view: FleetView, machine: Machine) -> None:
    nobody = replace(view, assignments={})
    text = grub.render(profile(machine, MAC, nobody, Config()), machine, CONTEXT, OWN)
    assert text == f"echo 'pxeserver: node7 ({MAC}): waits for an image'\n" + AGAIN


@pytest.mark.parametrize("word", ["a='b'", 'a="b"', "a\\b", "a=\u00e9"])
def test_what_grub_would_not_hand_on_as_it_is_is_refused(view: FleetView, machine: Machine, word: str) -> None:
    quoted = replace(view, assignments={1: replace(view.assignments[1], args=(word,))})
    with pytest.raises(Refused) as caught:
        grub.render(profile(machine, MAC, quoted, Config()), machine, CONTEXT, OWN)
    assert caught.value.slug == "script-bad-value"


def test_a_failure_shows_nothing_that_grub_reads(machine: Machine) -> None:
    text = grub.failure("it's $(reboot)\n; x", replace(machine, name="n'7"), CONTEXT, OWN)
    first = text.splitlines()[0]
    assert text.endswith(AGAIN) and first.count("'") == 2 and "$" not in first
