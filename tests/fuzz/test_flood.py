"""After a flood of malformed datagrams the server still boots a machine, and has grown by nothing.

FLOOD says how many (`make fuzz` sends a million).
"""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import sys
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from simnet import SERVER, Host, Net

from pxeserver.wire import dhcp, tftp
from pxeserver.wire.reader import WireError

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]

COUNT = int(os.environ.get("FLOOD", "60000"))
POOL = 3000  # different ones; also how many are on their way at once
GROWTH = 4 << 10  # KiB
HERE = Path(__file__).parent


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def malformed(target: str) -> list[bytes]:
    """Changed packets that are no packets any more; TFTP has those too that are no requests."""
    harness, mutate = loaded("harness"), loaded("mutate")
    found: list[bytes] = []
    for data in mutate.inputs(harness.seeds(target), random.Random(7), 10**6):
        try:
            useful = isinstance(tftp.parse(data), tftp.Request) if target == "tftp" else bool(dhcp.parse(data))
        except WireError:
            useful = False
        if not useful:
            found.append(data)
            if len(found) == POOL:
                return found
    raise AssertionError("too few")


@pytest.fixture
def host(tmp_path: Path) -> Generator[Host, None, None]:
    net = Net(tmp_path)
    made = Host(net, tmp_path / "host")
    yield made
    made.close()
    net.close()


def part_of(host: Host) -> int:
    """The process id of the boot part."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == host.process.pid and b"boot" in words:
            return int(folder.name)
    raise AssertionError("no boot process")


def resident(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def waiting(pid: int) -> tuple[int, int]:
    """Bytes that wait in the server's UDP sockets, and datagrams that found no room in them."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]]
    mine = [row for row in rows if int(row[1].rpartition(":")[2], 16) in (67, 69, 4011)]
    return sum(int(row[4].partition(":")[2], 16) for row in mine), sum(int(row[-1]) for row in mine)


def flood(host: Host, pid: int, count: int) -> None:
    """Burst after burst, each when the one before it was taken in."""
    pools = [(67, malformed("dhcp")), (4011, malformed("dhcp")), (69, malformed("tftp"))]

    def send(bursts: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for burst in range(bursts):
                port, pool = pools[burst % len(pools)]
                for data in pool:
                    sock.sendto(data, (SERVER, port))
                while waiting(pid)[0]:
                    time.sleep(0.005)

    bursts = -(-count // POOL)
    for first in range(0, bursts, 30):  # a thread that enters a namespace is given a minute
        host.net.within("cli", partial(send, min(30, bursts - first)))


def test_a_flood_of_nonsense_leaves_the_server_as_it_was(host: Host) -> None:
    pid = part_of(host)
    flood(host, pid, 3 * POOL)
    before = resident(pid)
    flood(host, pid, COUNT)
    assert waiting(pid)[1] == 0, "every datagram was read"
    grown = resident(pid) - before
    assert grown < GROWTH, f"grew by {grown} KiB"
    assert part_of(host) == pid, "the same process"
    done = host.run("selftest", "bios", "edk2-2016", "http")
    assert done.returncode == 0, done.stdout + done.stderr
