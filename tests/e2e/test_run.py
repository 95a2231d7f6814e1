"""`pxeserver run`: direct kernel boot, the console on the terminal, a published port."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from pxeserver.local import netlab


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_an_image_runs_with_its_console_and_a_published_port(built: Path, tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "pxeserver", "--data", str(built), "run", "web", "--publish", f"{port}:80"]
    console = tmp_path / "console"

    def page() -> bytes:
        assert process.poll() is None, console.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3) as answer:
                return answer.read()
        except OSError:
            return b""

    with console.open("wb") as out, subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=out) as process:
        try:
            assert b"<" in netlab.wait_until(page, 180, "the page of the machine")
            assert process.stdin is not None
            process.stdin.write(b"\x01x")  # Ctrl-A X ends it
            process.stdin.flush()
            assert process.wait(20) == 0
        finally:
            netlab.stop(process)
    assert b"Linux version" in console.read_bytes()
