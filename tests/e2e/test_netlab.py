"""The private network: what it leaves behind (nothing), and what it finds left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pxeserver.errors import Unreachable
from pxeserver.local import netlab

ORPHAN = """
import os, signal, sys
from pathlib import Path
from pxeserver.local import netlab
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
with netlab.Lab(Path(sys.argv[1])) as lab:
    lab.spawn("srv", ["setsid", "sleep", "600"])
    print(lab.prefix, flush=True)
    signal.pause()
"""


def namespaces(prefix: str) -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(prefix)]


def test_a_client_gets_an_address_and_nothing_stays(tmp_path: Path) -> None:
    with netlab.Lab(tmp_path) as lab:
        lab.attach("cli")
        client = lab.spawn("cli", ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", "/bin/true"])
        assert client.wait(30) == 0, lab.log("cli")
        assert len(lab.leases()) == 1
        assert lab.leases()[0].address.startswith("10.77.0.1")
        assert len(namespaces(lab.prefix)) == 4
        pids = [p.pid for p in lab.processes]
    assert namespaces(lab.prefix) == []
    assert not (netlab.RECORDS / lab.prefix).exists()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path / "a")], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        prefix = owner.stdout.readline().decode().strip()
        owner.kill()
    assert len(namespaces(prefix)) == 3
    with netlab.Lab(tmp_path / "b"):
        assert namespaces(prefix) == []
    assert not (netlab.RECORDS / prefix).exists()


def test_a_living_lab_is_left_alone(tmp_path: Path) -> None:
    with netlab.Lab(tmp_path / "a") as first, netlab.Lab(tmp_path / "b"):
        assert netlab.clear_stale() == ()
        assert len(namespaces(first.prefix)) == 3


def test_a_terminated_owner_cleans_up_behind_itself(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        prefix = owner.stdout.readline().decode().strip()
        os.kill(owner.pid, signal.SIGINT)
        owner.wait(20)
    assert namespaces(prefix) == []


def test_a_fetch_that_fails_says_what(tmp_path: Path) -> None:
    with netlab.Lab(tmp_path) as lab, pytest.raises(Unreachable, match="lab-fetch.*refused"):
        lab.fetch("lan", f"http://{netlab.SERVER_ADDRESS}:1/")
