"""The command line as a person runs it, and the admin server as `serve` runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pxeserver.cli.main import cli
from pxeserver.config import Config
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.serve import admin
from pxeserver.serve.express import ExpressLoop
from pxeserver.web.site import make_web


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Shell:
    """Runs `pxeserver` in processes of their own, on one data folder."""

    def __init__(self, data: Path, socket: Path) -> None:
        self.data = data
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PXESERVER_")},
            "PXESERVER_ADMIN_SOCKET": str(socket),
            "PXESERVER_IMAGES_SPECS": f"['{data}/specs']",
            "PXESERVER_SERVER_ADVERTISE": "10.0.0.1",
        }

    def popen(self, *args: str, data: bool = True, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pxeserver", *(["--data", str(self.data)] if data else []), *args]
        return subprocess.Popen(
            command,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str, data: bool = True, **environ: str) -> Ran:
        with self.popen(*args, data=data, **environ) as process:
            out, err = process.communicate(timeout=60)
        return Ran(process.returncode, out, err)


class InnerShell(Shell):
    """Runs commands inside the test's process: as fast as the verbs themselves."""

    def __init__(self, shell: Shell) -> None:
        self.data, self.environ = shell.data, shell.environ

    def __call__(self, *args: str, data: bool = True, **environ: str) -> Ran:
        command = [*(["--data", str(self.data)] if data else []), *args]
        done = CliRunner().invoke(cli, command, env={**self.environ, **environ}, catch_exceptions=False)
        return Ran(done.exit_code, done.stdout, done.stderr)


class Server:
    """The admin server in a thread of its own: TCP on a port that the kernel chose, and the Unix socket."""

    def __init__(self, config: Config) -> None:
        self.fleet: Fleet = open_fleet(config)
        sockets = admin.bind(config)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self._loop = ExpressLoop()
        self._server = admin.AdminServer(config, self.fleet, sockets, make_web)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(20)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
