"""docs/templates.md lists every template and every variable, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from pxeserver.boot import script
from pxeserver.boot.profile import Profile, profile
from pxeserver.boot.script import ScriptContext
from pxeserver.config import Config
from pxeserver.model import FleetView, Machine, Policy
from pxeserver.resources import shipped

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "templates.md").read_text()
MAC = "52:54:00:77:00:01"
CTX = ScriptContext("http://10.77.0.2:8080", "T" * 62, MAC, "efi")


def first_cells(heading: str, until: str) -> set[str]:
    part = PAGE[PAGE.index(heading) : PAGE.index(until)]
    rows = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([\w./]+)`", row)}


def names(values: dict[str, object]) -> set[str]:
    """Variables as the page writes them: parts of `machine` and `image` one by one."""
    out: set[str] = set()
    for name, value in values.items():
        nested = name in ("machine", "image") and isinstance(value, dict)
        out |= {f"{name}.{key}" for key in value} if nested and isinstance(value, dict) else {name}
    return out


def test_every_variable_is_on_the_page(view: FleetView, machine: Machine) -> None:
    booting = names(script.context(profile(machine, MAC, view, Config()), machine, CTX))
    waiting = names(script.context(Profile("wait", Policy.WAIT, None, None, ()), None, CTX))
    first = first_cells("In `entry`", "In all others")
    common = first_cells("In all others", "In `boot.ipxe.j2`")
    boot = first_cells("In `boot.ipxe.j2`", "## What may be printed")
    assert first == {"script_url", "poll_seconds"}
    assert waiting == first | common
    assert booting == first | common | boot


def test_known_and_unknown_machines_have_the_same_variables(machine: Machine) -> None:
    waiting = Profile("wait", Policy.WAIT, None, None, ())
    assert names(script.context(waiting, None, CTX)) == names(script.context(waiting, machine, CTX))


def test_every_template_is_on_the_page() -> None:
    files = {file.name for file in (shipped("templates") / "ipxe").iterdir()}
    assert first_cells("# Templates", "The language is") == files
