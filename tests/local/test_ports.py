"""Who holds a port: read from a /proc, real and made up."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pxeserver.local.ports import holder_of

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.mark.parametrize(
    ("comm", "cmdline", "expected"),
    [
        ("dnsmasq", b"/usr/sbin/dnsmasq\0-k\0", "dnsmasq"),
        ("python3", b"/v/bin/python3\0-m\0pxeserver\0serve\0", "pxeserver"),
        ("python3.11", b"/usr/bin/python3\0/usr/bin/fail2ban-server\0-f\0", "fail2ban-server"),
        ("python3", b"python3\0", "python3"),
        ("kthreadd", b"", "kthreadd"),
    ],
)
def test_the_holder_is_called_by_its_own_name(tmp_path: Path, comm: str, cmdline: bytes, expected: str) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/udp").write_text(HEAD + "   1: 00000000:0043 00000000:0000 07 0:0 00:0 0 0 0 777 2 0 0\n")
    (tmp_path / "812/fd").mkdir(parents=True)
    (tmp_path / "812/fd/3").symlink_to("socket:[777]")
    (tmp_path / "812/comm").write_text(comm + "\n")
    (tmp_path / "812/cmdline").write_bytes(cmdline)
    assert holder_of("udp", 67, tmp_path) == f"{expected} (pid 812)"
    assert holder_of("udp", 68, tmp_path) == ""
    assert holder_of("tcp", 67, tmp_path) == ""


def test_a_real_listener_is_found() -> None:
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert holder_of("tcp", port).endswith(f"(pid {process.pid})")
        assert holder_of("udp", port) == ""
        process.communicate(b"\n")


def test_a_port_that_is_merely_connected_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert holder_of("tcp", client.getsockname()[1]) == ""
