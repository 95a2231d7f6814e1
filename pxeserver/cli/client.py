"""Whom the fleet verbs speak to: `--server URL`, the server on this host by its Unix socket, or the database itself.

    with open_client(context) as fleet:
        fleet.assign(...)          # a values.FleetApi, whichever it is

Over REST neither Flask nor SQLAlchemy is imported, in process no HTTP client (tested).
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pxeserver.cli.context import Context
from pxeserver.errors import Refused, Unreachable
from pxeserver.fleet.values import FleetApi

if TYPE_CHECKING:
    from pxeserver.cli.rest import RestClient

LOCK_SECONDS = 10.0


@contextmanager
def open_client(context: Context) -> Iterator[FleetApi]:
    """The fleet, over REST or in process. Unreachable when --server does not answer."""
    if context.server:
        from pxeserver.cli.rest import RestClient

        with RestClient(context.server, context.token or "") as client:
            yield client
        return
    local = _by_socket(Path(context.config.admin.socket), context)
    if local is not None:
        with local:
            yield local
        return
    with _in_process(context) as fleet:
        yield fleet


def _by_socket(path: Path, context: Context) -> RestClient | None:
    """A client of the server on this host, None if there is none or it serves another data folder."""
    if not _answers(path):
        return None
    from pxeserver.cli.rest import RestClient

    client = RestClient("http://localhost", context.token or "", socket=str(path))
    data = Path(client.status().data)
    if context.data is not None and data.resolve() != context.data.resolve():
        client.close()
        return None
    return client


def _answers(path: Path) -> bool:
    """Somebody listens there. Unreachable "server-permission" when this user may not speak to it."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except PermissionError:
            raise Unreachable(
                "server-permission", f"{path} is not yours to use", hint="run this as root, or as the socket's group"
            ) from None
        except OSError:
            return False  # none, or left behind by a server that is gone
    return True


@contextmanager
def _in_process(context: Context) -> Iterator[FleetApi]:
    """The use cases on the database, one command at a time."""
    from pxeserver.fleet.fleet import open_fleet

    with data_lock(context.config.data):
        fleet = open_fleet(context.config)
        try:
            yield fleet
        finally:
            fleet.close()


@contextmanager
def data_lock(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; Refused "data-locked" when another command keeps it for LOCK_SECONDS."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(
            "data-folder",
            f"cannot use the data folder {data}: {error.strerror}",
            hint="run this as root, or choose another with --data",
        ) from None
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused(
                        "data-locked", f"another pxeserver command works on {data}", hint=f"fuser -v {data}/lock"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)
