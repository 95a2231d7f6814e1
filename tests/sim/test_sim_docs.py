"""docs/simulators.md says what the program and the tests say: the firmware, and the table of offers."""

from __future__ import annotations

import re
from pathlib import Path

from simlab import TABLE

from pxeserver.sim.firmware import FIRMWARE, NAMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "simulators.md").read_text()


def test_every_firmware_is_listed() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", PAGE, re.M)
    assert rows == [(name, FIRMWARE[name].about) for name in NAMES]


def test_the_table_of_offers_is_the_tested_one() -> None:
    table = PAGE.partition("| what the proxy does |")[2].partition("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()[2:]]
    assert rows == [(what, *wants) for what, _, *wants in TABLE]


def test_every_module_is_named() -> None:
    modules = {path.name for path in (Path(__file__).resolve().parents[2] / "pxeserver/sim").glob("[a-z]*.py")}
    assert {name for name in modules if f"`{name}`" not in PAGE} == set()
