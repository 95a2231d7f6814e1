"""The admin process: pages and API behind the HTTP front, on the configured address and on the Unix socket."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from pxeserver.config import Config
from pxeserver.errors import UsageError
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.serve import listening
from pxeserver.serve.http import Front, Limits, Request, Response
from pxeserver.serve.wsgi import Application, WsgiHandler

log = logging.getLogger("pxeserver.admin")

STREAM_TYPE = "text/event-stream"
LIMITS = Limits(connections=1000, per_peer=500, body=4 << 20)


@dataclass(frozen=True, slots=True)
class Web:
    """What the web room gives for one fleet: the application, and what a listener is sent from a moment on."""

    application: Application
    stream: Callable[[str], AsyncGenerator[bytes, None]]


MakeWeb = Callable[[Fleet, Config], Web]


def bind(config: Config) -> list[socket.socket]:
    """The admin's listeners. UsageError("token-missing") when others could reach it without a token."""
    if not ipaddress.ip_address(config.admin.host).is_loopback and not config.admin.token:
        raise UsageError(
            "token-missing",
            f"admin.listen is {config.admin.listen}, which other hosts can reach, and admin.token is not set",
            hint="set admin.token (or PXESERVER_ADMIN_TOKEN), or listen on 127.0.0.1",
        )
    tcp = listening.tcp(config.admin.host, config.admin.port, "admin")
    if not config.admin.socket:
        return [tcp]
    try:
        return [tcp, listening.unix(Path(config.admin.socket))]
    except BaseException:
        tcp.close()
        raise


class AdminServer:
    """Serves on `sockets` from `start` until `close`."""

    def __init__(self, config: Config, fleet: Fleet, sockets: list[socket.socket], make_web: MakeWeb) -> None:
        self._config = config
        self._fleet = fleet
        self._sockets = sockets
        self._make_web = make_web
        self._web = make_web(fleet, config)
        self._wsgi = WsgiHandler(self._web.application)
        self._front = Front(self._handle, LIMITS)

    async def start(self) -> list[str]:
        lines = [f"pages and API: http://{self._config.admin.listen}/"]
        if self._config.admin.socket:
            lines.append(f"API on the Unix socket {self._config.admin.socket}")
        self._front.start(self._sockets)
        return lines

    async def close(self) -> None:
        await self._front.close(grace=1.0)
        self._wsgi.close()
        self._fleet.close()
        if self._config.admin.socket:
            listening.remove(Path(self._config.admin.socket))

    async def reload(self, config: Config) -> None:
        fleet = await asyncio.to_thread(open_fleet, config)
        self._web = self._make_web(fleet, config)
        self._wsgi.application = self._web.application
        self._config = config
        old, self._fleet = self._fleet, fleet
        # requests under way still work on the old one
        asyncio.get_running_loop().call_later(30, old.close)

    async def _handle(self, request: Request) -> Response:
        """The application decides on everything; where it answers with an event stream, the loop sends it."""
        response = await self._wsgi(request)
        if response.status != 200 or not response.type.startswith(STREAM_TYPE):
            return response
        since = request.head.headers.get("last-event-id") or request.query.get("since", "")
        return Response(type=STREAM_TYPE, headers=response.headers, stream=self._web.stream(since))
