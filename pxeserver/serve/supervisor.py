"""Two processes under one: starts them, starts a dead one again, stops both, hands a new configuration to both.

The supervisor keeps its privileges (a part that is started again must bind again) and listens on nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pxeserver.config import Config
from pxeserver.errors import PxeServerError, Refused, from_problem
from pxeserver.serve import privileges
from pxeserver.serve.part import PARTS, pack_config

log = logging.getLogger("pxeserver")

BACKOFF_FIRST, BACKOFF_MAX = 0.5, 30.0
HEALTHY = 60.0  # seconds alive, after which a death counts as the first one again
STOP_WITHIN = 10.0
READY_WITHIN = 60.0
# what is fixed once the ports are bound and the rights are gone
FIXED = (
    ("server", "data"),
    ("server", "interfaces"),
    ("server", "user"),
    ("dhcp", "mode"),
    ("dhcp", "port"),
    ("dhcp", "pxe_port"),
    ("dhcp6", "mode"),
    ("dhcp6", "port"),
    ("tftp", "port"),
    ("http", "port"),
    ("http", "advertise_port"),
    ("http", "proxies"),
    ("admin", "listen"),
    ("admin", "socket"),
    ("dns", "enabled"),
    ("dns", "port"),
    ("metadata", "enabled"),
    ("metadata", "port"),
    ("database", "url"),
)

Command = Callable[[str, int], Sequence[str]]  # (part, control descriptor) -> argv


def fixed_changes(old: Config, new: Config) -> list[str]:
    """The changed keys that a running server cannot take over: ["http.port"]."""
    return [f"{s}.{k}" for s, k in FIXED if getattr(getattr(old, s), k) != getattr(getattr(new, s), k)]


class _Child:
    """One part's process, and the line to it."""

    def __init__(self, name: str, command: Command) -> None:
        self.name = name
        self._command = command
        self.process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self, config: Config) -> list[str]:
        """Run it; its lines once it serves. Raises what it says is wrong."""
        self._line, theirs = socket.socketpair()
        with theirs:
            argv = self._command(self.name, theirs.fileno())
            self.process = await asyncio.create_subprocess_exec(*argv, pass_fds=[theirs.fileno()])
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._line, limit=1 << 20)
        self.send(config)
        try:
            async with asyncio.timeout(READY_WITHIN):
                message = await self._message()
        except TimeoutError:
            await self.stop()
            raise PxeServerError("part-not-ready", f"the {self.name} process did not start to serve in time") from None
        if "ready" in message:
            return [str(line) for line in message["ready"]]
        await self.stop()
        if "fault" in message:
            raise from_problem(message["fault"])
        raise PxeServerError("part-died", f"the {self.name} process ended while it started; its log says why")

    async def _message(self) -> dict[str, Any]:
        assert self._reader is not None
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        found: dict[str, Any] = json.loads(line) if line else {}
        return found

    def send(self, config: Config) -> None:
        """A part that is between two lives gets it when it starts."""
        if self._writer is not None:
            self._writer.write(pack_config(config))

    async def watch(self) -> int:
        """Until the process ends; its exit code."""
        assert self.process is not None
        while message := await self._message():
            if message.get("reloaded", ()) is None:
                log.info("%s: the new configuration is in force", self.name)
        return await self.process.wait()

    async def stop(self) -> None:
        """Ask it to end; then harder."""
        if self._writer is not None:
            self._writer.close()
        elif self._line is not None:
            self._line.close()
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self.process.wait()
        except TimeoutError:
            log.warning("the %s process does not stop: killed", self.name)
            self.process.kill()
            await self.process.wait()


class Supervisor:
    """`command` starts a part, `reload` reads the configuration anew, `told` hears lines for a person."""

    def __init__(
        self, config: Config, command: Command, reload: Callable[[], Config], told: Callable[[str], None]
    ) -> None:
        self._config = config
        self._reload = reload
        self._told = told
        self._children = [_Child(name, command) for name in PARTS]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what kept a part from starting the first time."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        privileges.prepare_data(Path(self._config.server.data), self._config.server.user)
        stopped = loop.create_task(self._stop.wait())
        tasks: list[asyncio.Task[Any]] = [stopped]
        try:
            starting = [loop.create_task(child.start(self._config)) for child in self._children]
            tasks += starting
            for child, start in zip(self._children, starting, strict=True):
                await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():
                    return
                for line in start.result():
                    self._told(line)
                tasks.append(loop.create_task(self._keep(child)))
            notify("READY=1")
            await stopped
        finally:
            notify("STOPPING=1")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(child.stop() for child in self._children))

    async def _keep(self, child: _Child) -> None:
        """Start the part again whenever it ends, with growing pauses."""
        loop = asyncio.get_running_loop()
        pause, running = BACKOFF_FIRST, True
        while True:
            since = loop.time()
            if running:
                code = await child.watch()
                log.error("the %s process ended with %d; starting it again", child.name, code)
            if loop.time() - since > HEALTHY:
                pause = BACKOFF_FIRST
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACKOFF_MAX)
            try:
                await child.start(self._config)
                running = True
            except PxeServerError as error:
                log.error("the %s process does not start: %s", child.name, error)
                running = False

    def _reread(self) -> None:
        """SIGHUP: the whole new configuration, or nothing of it."""
        try:
            config = self._reload()
            fixed = fixed_changes(self._config, config)
            if fixed:
                raise Refused("needs-restart", f"{', '.join(fixed)} cannot change while the server runs")
        except PxeServerError as error:
            log.error("the configuration stays as it was: %s", error)
            return
        self._config = config
        for child in self._children:
            child.send(config)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("systemd was not told: %s", error)
