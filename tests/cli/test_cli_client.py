"""Whom the verbs speak to, what they import for it, and what they say when nobody answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from clilab import InnerShell, Server, Shell
from fleetlab import MAC, MAC2, make_config

from pxeserver.cli import client as client_module
from pxeserver.cli.client import data_lock
from pxeserver.cli.rest import RestClient
from pxeserver.errors import NotFound, Refused
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import MachineEdit

IMPORTED = (
    "import sys; from pxeserver.__main__ import main\n"
    "try: main()\n"
    "except SystemExit as end: assert not end.code, end.code\n"
    "print(sorted({m.partition('.')[0] for m in sys.modules} & {'flask', 'sqlalchemy', 'httpx', 'jinja2', 'rich'}))\n"
)


def imported(shell: Shell, *args: str) -> str:
    command = [sys.executable, "-c", IMPORTED, "--data", str(shell.data), *args]
    done = subprocess.run(command, env=shell.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("verb", [("machines", "ls"), ("boots",), ("explain", MAC), ("assign", "--help")])
def test_a_thin_command_line_imports_neither_flask_nor_a_database(
    server: Server, shell: Shell, verb: tuple[str, ...]
) -> None:
    found = imported(shell, *verb)
    assert "flask" not in found and "sqlalchemy" not in found and "jinja2" not in found


def test_in_process_it_needs_no_http_client(shell: Shell) -> None:
    found = imported(shell, "machines", "ls")
    assert "httpx" not in found and "flask" not in found and "sqlalchemy" in found


def test_a_socket_that_a_dead_server_left_behind_is_passed_over(shell: Shell, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(shell.environ["PXESERVER_ADMIN_SOCKET"])
    assert InnerShell(shell)("machines", "-o", "json").json == []


def test_a_server_of_another_data_folder_is_not_written_to(server: Server, shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert (
        InnerShell(Shell(other, Path(shell.environ["PXESERVER_ADMIN_SOCKET"])))("machines", "add", "x", MAC).code == 0
    )
    assert server.fleet.machines() == ()
    fleet = open_fleet(make_config(other))
    assert [m.name for m in fleet.machines()] == ["x"]
    fleet.close()


def test_without_a_data_folder_named_the_socket_alone_counts(server: Server, shell: Shell) -> None:
    assert InnerShell(shell)("machines", "add", "x", MAC, data=False).code == 0
    assert [m.name for m in server.fleet.machines()] == ["x"]


def test_nobody_answers_at_the_url(shell: Shell) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        ran = InnerShell(shell)("--server", url, "machines")
    assert ran.code == 5 and ran.err.startswith(f"error[server-unreachable]: no answer from {url}")


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999", "ftp://127.0.0.1"])
def test_a_url_that_is_none(shell: Shell, url: str) -> None:
    ran = InnerShell(shell)("--server", url, "machines")
    assert ran.code == 5 and ran.err.startswith("error[server-"), ran


class Other(BaseHTTPRequestHandler):
    """A web server that is not ours."""

    def do_GET(self) -> None:
        body = b'{"hello": "world"}' if "boots" in self.path else b"<html>"
        self.send_response(200 if "boots" in self.path else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("verb", ["machines", "boots"])
def test_another_web_server_answers(shell: Shell, verb: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        ran = InnerShell(shell)("--server", f"127.0.0.1:{other.server_port}", verb)
        thread.join()
    assert ran.code == 5 and "error[server-answer]" in ran.err


def test_the_token_goes_along(server: Server) -> None:
    with RestClient(server.url, "secret") as client:
        assert client._http.headers["Authorization"] == "Bearer secret"
        assert client.status().machines == 0


def test_errors_come_back_as_what_they_were(server: Server) -> None:
    with RestClient(server.url) as client:
        with pytest.raises(NotFound) as caught:
            client.show("nobody")
        with pytest.raises(NotFound) as found:
            server.fleet.show("nobody")
        assert (caught.value.slug, str(caught.value), caught.value.hint) == (
            found.value.slug,
            str(found.value),
            found.value.hint,
        )


def test_rest_and_process_give_equal_values(server: Server) -> None:
    with RestClient(server.url) as client:
        client.add_machine(MachineEdit("web-1", (MAC, MAC2), {"a": "b"}, {"k": "v"}, ("quiet",)))
        client.set_machine("web-1", MachineEdit("web-1", (MAC,), {"c": "d"}, whole=True))
        assert client.machines() == server.fleet.machines()
        assert client.show("web-1") == server.fleet.show("web-1")
        assert client.specs() == server.fleet.specs()
        assert client.status() == server.fleet.status()
        assert client.show("web-1").machine.labels == {"c": "d"}


def test_one_command_at_a_time_works_on_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LOCK_SECONDS", 0.1)
    with data_lock(tmp_path / "data"), pytest.raises(Refused) as caught, data_lock(tmp_path / "data"):
        pass
    assert caught.value.slug == "data-locked"
    with data_lock(tmp_path / "data"):
        pass


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused) as caught, data_lock(tmp_path / "file"):
        pass
    assert caught.value.slug == "data-folder"


AS_NOBODY = (
    "import os\n"
    "from pxeserver.cli.client import open_client\n"
    "from pxeserver.cli.context import Context\n"
    "from pxeserver.errors import Unreachable\n"
    "context = Context()\n"
    "assert context.config\n"
    "os.setgid(65534); os.setuid(65534)\n"
    "try:\n"
    "    with open_client(context): pass\n"
    "except Unreachable as error: print(error.slug)\n"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_socket_that_is_not_ours_to_use_is_said_so(shell: Shell, mode: int) -> None:
    """An error, not a quiet fall back to a database that this user cannot read either."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "api.sock"
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        Path(folder).chmod(mode)
        environ = {**shell.environ, "PXESERVER_ADMIN_SOCKET": str(path)}
        done = subprocess.run([sys.executable, "-c", AS_NOBODY], env=environ, capture_output=True, text=True)
    assert done.stdout == "server-permission\n", done.stderr
