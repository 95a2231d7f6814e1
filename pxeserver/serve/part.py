"""One process of the server under its supervisor: bind, drop privileges, serve, until told to stop.

The two talk in JSON lines over a socket pair. Down: {"config": ..} to start with, and again for a reload. Up:
{"ready": [lines]}, {"fault": problem}, {"reloaded": problem or null}. The supervisor's end closed means stop: no part
outlives it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from pxeserver import config as configuration
from pxeserver.checked import plain
from pxeserver.config import Config
from pxeserver.errors import PxeServerError
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.serve import admin, boot, privileges
from pxeserver.serve.express import ExpressLoop
from pxeserver.serve.recording import Recording

log = logging.getLogger("pxeserver")

PARTS = ("boot", "admin")
# The loop gives the interpreter away at every system call; a busy thread must hand it back sooner than in 5 ms.
SWITCH_INTERVAL = 0.00005
# Objects made before the collector looks for cycles: there are hardly any, and looking takes time from machines.
GARBAGE = (100_000, 50, 50)


class Server(Protocol):
    async def start(self) -> list[str]: ...
    async def close(self) -> None: ...
    async def reload(self, config: Config) -> None: ...


def run(name: str, control: socket.socket, make_web: admin.MakeWeb) -> int:
    """Be the part `name` until the supervisor says stop; the exit code."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    with asyncio.Runner(loop_factory=ExpressLoop) as runner:
        return runner.run(_serve(name, control, make_web))


async def _serve(name: str, control: socket.socket, make_web: admin.MakeWeb) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=1 << 20)

    def say(**message: Any) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a Ctrl-C reaches the whole group: the supervisor decides
    first = await reader.readline()
    if not first:
        return 0
    try:
        server = await _start(name, parse_config(first), make_web, say)
    except PxeServerError as error:
        say(fault=error.problem())
        await writer.drain()
        return error.exit_code
    listening = loop.create_task(_listen(reader, server, say, stop))
    await stop.wait()
    listening.cancel()
    await server.close()
    return 0


async def _start(name: str, config: Config, make_web: admin.MakeWeb, say: Callable[..., None]) -> Server:
    """Ports first, as root; then everything else with what is left."""
    privileges.raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL)
    make: Callable[[Fleet], Server]
    if name == "boot":
        boot_sockets = boot.bind(config)
        recording = Recording(config)  # gives its rights up itself: the new user may not be able to read the program
        privileges.drop(config.server.user)
        make = lambda fleet: boot.BootServer(config, fleet, boot_sockets, recording=recording)  # noqa: E731
    else:
        admin_sockets = admin.bind(config)
        if config.server.user:  # builds unpack what belongs to root: without a user it stays as it is
            privileges.drop(config.server.user)
        make = lambda fleet: admin.AdminServer(config, fleet, admin_sockets, make_web)  # noqa: E731
    server = make(await asyncio.to_thread(open_fleet, config))
    say(ready=await server.start())
    gc.collect()
    gc.set_threshold(*GARBAGE)
    gc.freeze()  # what is there now stays: it is not looked through again while machines wait
    return server


async def _listen(reader: asyncio.StreamReader, server: Server, say: Callable[..., None], stop: asyncio.Event) -> None:
    """Reloads, until the supervisor is gone."""
    while line := await reader.readline():
        try:
            await server.reload(parse_config(line))
        except PxeServerError as error:
            log.error("the new configuration is not in force: %s", error)
            say(reloaded=error.problem())
        else:
            say(reloaded=None)
    stop.set()


def pack_config(config: Config) -> bytes:
    return json.dumps({"config": plain(config)}).encode() + b"\n"


def parse_config(line: bytes) -> Config:
    return configuration.parse(json.loads(line)["config"])
