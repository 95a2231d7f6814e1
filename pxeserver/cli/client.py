"""Whom the fleet verbs speak to: `--server URL`, the server on this host by its Unix socket, or the database itself.

    with open_client(context) as fleet:
        fleet.assign(...)          # a values.FleetApi, whichever it is

Over REST neither Flask nor SQLAlchemy is imported (tested).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from pxeserver.cli.context import Context
from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, from_problem
from pxeserver.fleet.values import (
    AssignOrder,
    BootDetail,
    BootRecord,
    Change,
    EventRecord,
    ExplainOrder,
    Explanation,
    FleetApi,
    MachineDetail,
    MachineEdit,
    MachineRow,
    Rendering,
    SpecInfo,
    Status,
)
from pxeserver.model import Image
from pxeserver.serial import from_json

T = TypeVar("T")
LOCK_SECONDS = 10.0
TIMEOUT = httpx.Timeout(60.0, connect=5.0)


@contextmanager
def open_client(context: Context) -> Iterator[FleetApi]:
    """The fleet, over REST or in process. Unreachable when --server does not answer."""
    if context.server:
        with RestClient(httpx.HTTPTransport(), context.server, context.token or "") as client:
            client.status()
            yield client
        return
    socket = Path(context.config.admin.socket)
    local = _by_socket(socket, context)
    if local is not None:
        with local:
            yield local
        return
    with _in_process(context) as fleet:
        yield fleet


def _by_socket(socket: Path, context: Context) -> RestClient | None:
    """A client of the server on this host, None if there is none or it serves another data folder."""
    if not socket.is_socket():
        return None
    client = RestClient(httpx.HTTPTransport(uds=str(socket)), "http://localhost", context.token or "")
    try:
        status = client.status()
    except Unreachable:
        client.close()
        if not os.access(socket, os.W_OK):
            raise Unreachable(
                "server-permission", f"{socket} is not yours to use", hint="run this as root, or as the socket's group"
            ) from None
        return None  # left behind by a server that is gone
    if context.data is not None and Path(status.data).resolve() != context.data.resolve():
        client.close()
        return None
    return client


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


class RestClient:
    """The use cases by REST; errors come back as the exceptions that the server raised."""

    def __init__(self, transport: httpx.BaseTransport, url: str, token: str) -> None:
        if "://" not in url:
            url = f"http://{url}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                transport=transport, base_url=f"{self.url}/api/v1", headers=headers, timeout=TIMEOUT, trust_env=False
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise Unreachable("server-url", f'"{url}" is not a URL: {error}', hint="http://HOST:8081") from None

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def status(self) -> Status:
        return self._get("status", Status)

    def machines(self, *, known: bool | None = None) -> tuple[MachineRow, ...]:
        return self._get("machines", tuple[MachineRow, ...], {"known": None if known is None else str(known).lower()})

    def show(self, target: str) -> MachineDetail:
        return self._get(_machine(target), MachineDetail)

    def add_machine(self, edit: MachineEdit) -> Change:
        return self._ask("POST", "machines", Change, body=_edit(edit))

    def set_machine(self, target: str, edit: MachineEdit) -> Change:
        return self._ask("PUT" if edit.whole else "PATCH", _machine(target), Change, body=_edit(edit))

    def remove_machine(self, target: str, *, assigned: bool = False) -> Change:
        return self._ask("DELETE", _machine(target), Change, {"assigned": "true" if assigned else None})

    def assign(self, targets: Sequence[str], order: AssignOrder) -> tuple[Change, ...]:
        body = {"targets": list(targets), "what": order.what, "follow": order.follow, "args": list(order.args)}
        body |= {"reason": order.reason, "by": order.by}
        return self._ask("POST", "assignments", tuple[Change, ...], body=body)

    def unassign(self, targets: Sequence[str]) -> tuple[Change, ...]:
        return self._ask("DELETE", "assignments", tuple[Change, ...], {"target": list(targets)})

    def pin(self, target: str, *, style: str | None = None, loader: str | None = None) -> Change:
        return self._ask("PUT", _machine(target, "pin"), Change, body={"style": style, "loader": loader})

    def explain(self, target: str, order: ExplainOrder) -> Explanation:
        query = {
            "arch": order.arch,
            "firmware": order.firmware or None,
            "vendor_class": order.vendor_class or None,
            "packet": order.packet or None,
        }
        return self._get(_machine(target, "explain"), Explanation, query)

    def render(self, target: str, what: str) -> Rendering:
        return self._get(_machine(target, "render"), Rendering, {"what": what})

    def boots(self, target: str | None = None, *, limit: int = 50) -> tuple[BootRecord, ...]:
        path = "boots" if target is None else _machine(target, "boots")
        return self._get(path, tuple[BootRecord, ...], {"limit": limit})

    def boot(self, boot: str) -> BootDetail:
        return self._get(f"boots/{quote(boot, safe='')}", BootDetail)

    def events(
        self, target: str | None = None, *, boot: str = "", after: int = 0, limit: int = 200
    ) -> tuple[EventRecord, ...]:
        query = {"machine": target, "boot": boot or None, "after": after, "limit": limit}
        return self._get("events", tuple[EventRecord, ...], query)

    def images(self) -> tuple[Image, ...]:
        return self._get("images", tuple[Image, ...])

    def specs(self) -> tuple[SpecInfo, ...]:
        return self._get("specs", tuple[SpecInfo, ...])

    def _get(self, path: str, kind: type[T], query: Mapping[str, Any] | None = None) -> T:
        return self._ask("GET", path, kind, query)

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> T:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, params=given, json=body)
        except httpx.TransportError as error:
            raise Unreachable(
                "server-unreachable",
                f"no answer from {self.url}: {error or type(error).__name__}",
                hint="is `pxeserver serve` running there? see --server",
            ) from None
        try:
            data = response.json()
            if response.is_success:
                return from_json(kind, data)
        except (ValueError, ValidationError):
            data = None
        raise _failure(response, data)


def _failure(response: httpx.Response, data: object) -> PxeServerError:
    if isinstance(data, dict) and "type" in data:
        return from_problem(data)
    return Unreachable(
        "server-answer",
        f"{response.request.url} answered {response.status_code}, not as pxeserver does",
        hint="is that the address of pxeserver's admin side, and of the same version?",
    )


def _machine(target: str, part: str = "") -> str:
    """The path of a machine. What could lead elsewhere names none: no name has a slash or is made of dots."""
    if not target.strip(". ") or "/" in target:
        raise NotFound("machine-not-found", f'no machine "{target}"', hint="pxeserver machines ls")
    return f"machines/{quote(target, safe='')}" + (f"/{part}" if part else "")


def _edit(edit: MachineEdit) -> dict[str, Any]:
    """The body of a machine: only what the edit names."""
    names = ("name", "macs", "labels", "vars", "cmdline", "template")
    found = {name: getattr(edit, name) for name in names if getattr(edit, name) is not None}
    return {
        key: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        for key, value in found.items()
    }
