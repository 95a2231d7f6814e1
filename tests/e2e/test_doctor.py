"""`pxeserver doctor` where the server runs, beside the foreign DHCP server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def doctor(site: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """(exit status, name of the check -> its worst finding), asked inside the server's namespace."""
    words = [sys.executable, "-m", "pxeserver", "--config", str(site.config_file), "doctor", "--discover", "-o", "json"]
    done = subprocess.run(site.lab.argv("srv", words), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    worst = sorted(json.loads(done.stdout), key=lambda check: ["ok", "warn", "fail"].index(check["status"]))
    return done.returncode, {check["name"]: check for check in worst}


def test_a_healthy_site(site: Any) -> None:
    status, found = doctor(site)
    assert status == 0, found
    for port in ("udp 67", "udp 4011", "udp 69", "tcp 8080", "tcp 8081"):
        assert found[port]["status"] == "ok"
        assert "pxeserver" in found[port]["text"], found[port]
    assert found["tftp"]["status"] == "ok"
    assert found["tftp"]["text"].startswith("undionly.kpxe from 10.77.0.2, ")
    assert found["dhcp eth0"]["status"] == "ok"
    assert "10.77.0.1 offers 10.77.0.1" in found["dhcp eth0"]["text"]
    assert site.cli("machines", "ls", "--all") == []  # asking made no machine known


def test_a_damaged_loader_is_seen_on_disk_and_by_tftp(site: Any) -> None:
    loader = site.data / "loaders/undionly.kpxe"
    loader.write_bytes(loader.read_bytes()[:-1] + b"?")
    status, found = doctor(site)
    assert status == 1
    assert (found["loader"]["status"], found["loader"]["fix"]) == ("fail", "pxeserver loaders fetch")
    assert found["tftp"]["status"] == "fail"
