"""Events are written down and logged by a process of its own: it takes neither interpreter nor CPU from the loop.

The two talk in JSON lines over a socket pair. Down: {"config": ..}, before anything else and when it changes;
{"events": n} and a line for each. Up, for each batch: {"fault": problem}, {"refused": text} or {}. The other end closed
means stop.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from io import BufferedRWPair
from typing import Any

from pxeserver import config as configuration
from pxeserver.checked import plain
from pxeserver.config import Config
from pxeserver.errors import PxeServerError, from_problem
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.model import Event, Stage
from pxeserver.serve import privileges

log = logging.getLogger("pxeserver.record")

_NICER = 5
_STOP_WITHIN = 5.0


class Recording:
    """`record(events)` in one thread; `config` may be set in another. A process that died is started anew."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._told: Config | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-m", "pxeserver.serve.recording", str(theirs.fileno())]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._line, self._told = ours.makefile("rwb"), None
        ours.close()  # the file keeps it open
        self._tell_config()

    def _tell_config(self) -> None:
        if self._told is not self.config:
            self._told = self.config
            self._line.write(_pack({"config": plain(self._told)}))
            self._line.flush()

    def record(self, events: Sequence[Event]) -> None:
        """As `Fleet.record`, whose errors it raises."""
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                self._tell_config()
                self._line.write(_pack({"events": len(events)}))
                for event in events:  # one by one: the loop gets the interpreter in between
                    self._line.write(pack_event(event))
                self._line.flush()
                answer = self._line.readline()
            except OSError:
                answer = b""
            if not answer:
                self._end()
                raise PxeServerError("part-died", "the process that writes events down ended; its log says why")
        said: dict[str, Any] = json.loads(answer)
        if "fault" in said:
            raise from_problem(said["fault"])
        if "refused" in said:
            raise RuntimeError(said["refused"])

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        try:
            self._line.close()
        except OSError:  # what was still to be sent
            pass
        try:
            self._process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _pack(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def pack_event(event: Event) -> bytes:
    """A line; `parse_event` reads it."""
    fields = (event.at, event.kind, event.mac, event.boot, event.stage, event.peer, event.bytes, event.seconds)
    return _pack((*fields, event.text, dict(event.data)))


def parse_event(line: bytes) -> Event:
    at, kind, mac, boot, stage, peer, count, seconds, text, data = json.loads(line)
    return Event(at, kind, mac, boot, None if stage is None else Stage(stage), peer, count, seconds, text, data)


def serve(line: BufferedRWPair) -> None:
    """Be the process, until the other end is closed."""
    fleet: Fleet | None = None
    config: Config | None = None
    while head := line.readline():
        message = json.loads(head)
        if "config" in message:
            if fleet is not None:
                fleet.close()
            fleet, config = None, configuration.parse(message["config"])
            privileges.drop(config.server.user)  # nothing is left to give up the second time
            continue
        events = [parse_event(line.readline()) for _ in range(message["events"])]
        assert config is not None, "it comes first"
        answer: dict[str, Any] = {}
        try:
            if fleet is None:
                fleet = open_fleet(config)
            fleet.record(events)
            for event in events:
                if event.kind != "log":
                    log.info("%s %s %s %s", event.mac, event.boot[:8], event.kind, event.text)
        except PxeServerError as error:
            answer = {"fault": error.problem()}
        except Exception as error:
            log.exception("the database refuses events")
            answer = {"refused": f"{type(error).__name__}: {error}"}
        line.write(_pack(answer))
        line.flush()
    if fleet is not None:
        fleet.close()


def go_behind() -> None:
    """Let the server's other processes go first, in whatever scheduling class they were started."""
    try:
        policy, priority = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
        if priority > 1:
            os.sched_setscheduler(0, policy, os.sched_param(priority - 1))
        elif priority == 0:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            os.nice(_NICER)
    except OSError as error:  # a sandbox may forbid it
        log.info("events are written down with the priority of the server: %s", error)


def main() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s record %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: what is on its way is written first
        signal.signal(number, signal.SIG_IGN)
    go_behind()
    with socket.socket(fileno=int(sys.argv[1])) as sock, sock.makefile("rwb") as line:
        serve(line)


if __name__ == "__main__":
    main()
