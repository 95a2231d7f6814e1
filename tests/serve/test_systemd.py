"""The systemd unit: valid, and as closed as a boot server can be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "pxeserver.service"


@pytest.mark.server
def test_the_unit_exposes_little() -> None:
    assert shutil.which("systemd-analyze"), "systemd-analyze is part of the package systemd"
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)], capture_output=True, text=True
    )
    level = re.search(r"Overall exposure level for pxeserver.service: ([\d.]+)", ran.stdout)
    assert level is not None, ran.stderr
    assert float(level[1]) <= 2.5


def test_the_unit_gives_the_folders_and_rights_that_the_defaults_need() -> None:
    text = UNIT.read_text()
    for line in (
        "Type=notify",
        "StateDirectory=pxeserver",
        "RuntimeDirectory=pxeserver",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert line in text.splitlines()
