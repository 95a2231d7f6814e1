"""A command line of its own folder, and a server for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import Server, Shell
from fleetlab import make_config

from pxeserver.checked import replace
from pxeserver.config import Admin


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    data = tmp_path / "data"
    make_config(data)
    return Shell(data, tmp_path / "api.sock")


@pytest.fixture
def server(shell: Shell) -> Iterator[Server]:
    config = make_config(shell.data)
    listen = Admin(listen="127.0.0.1:0", socket=shell.environ["PXESERVER_ADMIN_SOCKET"])
    made = Server(replace(config, admin=listen))
    yield made
    made.close()
