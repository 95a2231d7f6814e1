"""arm64 from packages to `up`: base images of another architecture, a UKI of them, HTTP boot by edk2's firmware."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import pxeserver

from pxeserver.config import Config, Server
from pxeserver.images.progress import Silent
from pxeserver.local import qemu
from pxeserver.local.demo_prepare import prepare
from pxeserver.model import STAGES, Result, Stage

ARM = qemu.Hardware(mac="52:54:00:77:04:01", arch="arm64", rom="", network="http")
BOOT_SECONDS = 840  # on a loaded host; another processor in software takes its time


@pytest.mark.timeout(1200)
def test_an_arm64_machine_boots_its_image_by_http(built: Path, site: Any) -> None:
    image = prepare(Config(server=Server(data=str(built))), str(Path(__file__).with_name("arm.yml")), Silent(), "arm64")
    assert image.arch == "arm64"
    made = json.loads(pxeserver("--data", str(built), "images", "uki", image.short, "-o", "json"))
    site.cli("machines", "add", "arm", ARM.mac)
    site.cli("assign", "arm", "arm")
    machine = site.switch_on("arm", ARM)
    record = site.wait_for(machine, "up", lambda record: record.stage is Stage.UP, BOOT_SECONDS)
    assert record.result is Result.UP
    assert sorted(record.stages, key=STAGES.index) == [s for s in STAGES if s not in (Stage.LOADER, Stage.SCRIPT)]
    assert record.image == made["digest"] == image.digest
    (row,) = site.cli("machines", "ls")
    assert row["arch"] == "arm64"
