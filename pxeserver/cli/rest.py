"""The use cases by REST: values.FleetApi over HTTP, on a TCP port or a Unix socket. No Flask, no SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from pxeserver.errors import NotFound, PxeServerError, Unreachable, from_problem
from pxeserver.fleet.values import (
    AssignOrder,
    BootDetail,
    BootRecord,
    Change,
    EventRecord,
    ExplainOrder,
    Explanation,
    MachineDetail,
    MachineEdit,
    MachineRow,
    Rendering,
    SpecInfo,
    Status,
)
from pxeserver.model import Digest, Image
from pxeserver.serial import from_json

T = TypeVar("T")
TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class RestClient:
    """The use cases by REST; errors come back as the exceptions that the server raised."""

    def __init__(self, url: str, token: str = "", *, socket: str | None = None) -> None:
        """`socket` is the path of a Unix socket to speak through; `url` then only names the server in messages."""
        if "://" not in url:
            url = f"http://{url}"
        transport = httpx.HTTPTransport(uds=socket)
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
        body |= {"reason": order.reason, "by": order.by, "force": order.force}
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

    def needed_images(self) -> tuple[Digest, ...]:
        return self._get("needed-images", tuple[Digest, ...])

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
