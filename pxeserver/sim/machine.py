"""A machine from power-on to its kernel: address, loader, script, files; as often as firmware tries."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urljoin, urlsplit

from pxeserver.sim import ipxe, pi, programs, tftp
from pxeserver.sim.dialogue import BootFile, find_file
from pxeserver.sim.effects import Fetch, Fetched, Play, Say, Stopped
from pxeserver.sim.firmware import FIRMWARE, Firmware
from pxeserver.sim.ipxe import Got
from pxeserver.sim.packets import Card

HOPS_MAX = 4  # loaders that load loaders
EFI_TYPES = frozenset({"application/efi", "application/vnd.efi-iso", "application/vnd.efi-img"})
EFI_NAMES = (".efi", ".iso", ".img")
_OTHERS = re.compile(r"grub|shim|bootmgfw", re.I)

Result = Literal["booted", "local", "waits", "started", "failed"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Who boots. `patience`: seconds that it waits when a script says so. `report`: its system says that it is up."""

    firmware: Firmware
    card: Card
    tries: int = 1
    patience: float = 0.0
    report: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. booted: kernel and files are there. local: told to boot its own disk. waits: told to wait.
    started: a loader that is not iPXE runs. failed: at `stage`, because of `why`."""

    result: Result
    stage: str
    why: str = ""
    got: tuple[Got, ...] = ()
    cmdline: str = ""
    tries: int = 1

    @property
    def complete(self) -> bool:
        """It got all that there is for it."""
        return self.result in ("booted", "local", "started")


def boot(machine: Machine, rng: random.Random) -> Play[Outcome]:
    """Power-on. Never raises Stopped: that is the outcome "failed"."""
    last = Stopped("dhcp", "not tried")
    for number in range(1, machine.tries + 1):
        if number > 1:
            yield Say("power", f"starts anew, try {number}")
        attempt = _Attempt(machine, rng)
        try:
            outcome = yield from attempt.run()
            return replace(outcome, tries=number)
        except Stopped as stopped:
            last = stopped
            yield Say(stopped.stage, f"failed: {stopped.why}")
    return Outcome("failed", last.stage, last.why, tuple(attempt.got), tries=machine.tries)


class _Attempt:
    """One power-on and all that was got in it."""

    def __init__(self, machine: Machine, rng: random.Random) -> None:
        self.machine, self.rng = machine, rng
        self.got: list[Got] = []

    def run(self) -> Play[Outcome]:
        firmware = self.machine.firmware
        for _ in range(HOPS_MAX):
            where = yield from find_file(firmware, self.machine.card, self.rng)
            if firmware.loads == "script":
                end = yield from self._script(firmware, where)
            elif firmware.loads == "pi":
                end = yield from self._pi(firmware, where)
            else:
                end = yield from self._loader(firmware, where)
            if not isinstance(end, Firmware):
                return end
            firmware = end
        raise Stopped("loader", f"{HOPS_MAX} loaders one after the other, and no script")

    # --- loaders ---

    def _loader(self, firmware: Firmware, where: BootFile) -> Play[Outcome | Firmware]:
        """What the firmware starts; then iPXE goes on, unless the file is another loader or has its kernel in it."""
        if firmware.ask_port == 4011 and not firmware.ask:
            head = yield from self._by_http(where.file)
        else:
            if "://" in where.file:
                raise Stopped("loader", f"firmware cannot load {where.file}: it wants a name on a TFTP server")
            head = yield from self._by_tftp(firmware, where.server, where.file)
        if firmware.loads == "efi" and programs.is_uki(head):
            yield Say("kernel", "the loader has its kernel inside")
            self.got.append(replace(self.got[-1], stage="kernel"))
            return Outcome("booted", "kernel", "", tuple(self.got))
        return (yield from self._started(firmware, where))

    def _started(self, firmware: Firmware, where: BootFile) -> Play[Outcome | Firmware]:
        name = self.got[-1].name
        if _OTHERS.search(name):
            return Outcome("started", "loader", f"{name} goes on by itself", tuple(self.got))
        chained = FIRMWARE[firmware.chained]
        yield Say("loader", f"{name} starts: {chained.about}")
        if chained.autoexec:
            found = yield from self._autoexec(chained, where)
            if found is not None:
                return (yield from self._run(chained, where, *found))
        return chained

    def _check(self, firmware: Firmware, head: bytes, size: int) -> None:
        if firmware.loads == "nbp" or firmware.platform == "pcbios":
            why = programs.against_bios(head, size)
        else:
            why = programs.against_efi(head, firmware.arch)
        if why:
            raise Stopped("loader", f"{self.got[-1].name} would not start: {why}")

    def _by_tftp(self, firmware: Firmware, server: str, name: str) -> Play[bytes]:
        content = yield from tftp.fetch(server, name, firmware.tftp)
        yield from self._keep("loader", name, content)
        self._check(firmware, content[: programs.HEAD], len(content))
        return content[: programs.HEAD]

    def _keep(self, stage: str, name: str, content: bytes) -> Play[None]:
        self.got.append(Got(stage, name, len(content), hashlib.sha256(content).hexdigest()))
        yield Say(stage, f"{name}: {len(content)} bytes by TFTP")

    def _by_http(self, url: str) -> Play[bytes]:
        """UEFI HTTP boot: HEAD for the size, GET; a redirect is an error, the type by Content-Type or name."""
        head: Fetched = yield Fetch("HEAD", url)
        self._whole(url, head)
        size = head.headers.get("content-length", "")
        if not size.isdigit():
            raise Stopped("loader", f"{url}: no Content-Length")
        body: Fetched = yield Fetch("GET", url, programs.HEAD)
        self._whole(url, body)
        if body.size != int(size):
            raise Stopped("loader", f"{url}: {body.size} bytes came, {size} were announced")
        kind = body.headers.get("content-type", "").partition(";")[0].strip().lower()
        name = urlsplit(url).path.rpartition("/")[2]
        if kind not in EFI_TYPES and not name.lower().endswith(EFI_NAMES):
            raise Stopped("loader", f"{url}: neither type ({kind or 'none'}) nor name say what it is")
        self.got.append(Got("loader", name, body.size, body.sha256))
        yield Say("loader", f"{name}: {body.size} bytes by HTTP")
        self._check(self.machine.firmware, body.body, body.size)
        return body.body

    @staticmethod
    def _whole(url: str, got: Fetched) -> None:
        if got.status in (301, 302, 303, 307, 308):
            raise Stopped("loader", f"{url}: a redirect ({got.status}), which this firmware takes for an error")
        if got.status != 200:
            raise Stopped("loader", f"{url}: {got.why or f'HTTP {got.status}'}")

    def _pi(self, firmware: Firmware, where: BootFile) -> Play[Outcome | Firmware]:
        fetched = yield from pi.fetch(where.server, self.machine.card.serial, firmware.tftp)
        self.got += fetched.got
        if fetched.kernel:
            return Outcome("booted", "initrd", "", tuple(self.got), fetched.cmdline)
        yield Say("loader", f"{self.got[-1].name} starts: {FIRMWARE[firmware.chained].about}")
        return FIRMWARE[firmware.chained]

    # --- iPXE ---

    def _autoexec(self, firmware: Firmware, where: BootFile) -> Play[tuple[str, bytes] | None]:
        """autoexec.ipxe from where this iPXE came from; none is no fault."""
        if "://" in where.file:
            url = urljoin(where.file, "autoexec.ipxe")
            got: Fetched = yield Fetch("GET", url, ipxe.SCRIPT_MAX)
            return (url, got.body) if got.status == 200 else None
        name = where.file.rpartition("/")[0] + "/autoexec.ipxe" if "/" in where.file else "autoexec.ipxe"
        try:
            content = yield from tftp.fetch(where.server, name, firmware.tftp, "script")
        except tftp.NoFile:
            return None
        yield Say("script", f"{name}: {len(content)} bytes by TFTP")
        return f"tftp://{where.server}/{name}", content

    def _script(self, firmware: Firmware, where: BootFile) -> Play[Outcome | Firmware]:
        """iPXE loads the file, whatever it is, and carries it out."""
        url = where.file if "://" in where.file else f"tftp://{where.server}/{where.file}"
        parts = urlsplit(url)
        if parts.scheme == "tftp":
            body = yield from tftp.fetch(parts.hostname or where.server, parts.path.lstrip("/"), firmware.tftp)
            if not body.startswith(ipxe.MAGIC):
                yield from self._keep("loader", parts.path.lstrip("/"), body)
        elif parts.scheme == "http":
            got: Fetched = yield Fetch("GET", url, ipxe.SCRIPT_MAX, {"user-agent": firmware.agent})
            if got.status != 200:
                raise Stopped("script", f"{url}: {got.why or f'HTTP {got.status}'}")
            yield Say("script", f"{parts.path}: {got.size} bytes")
            body = got.body
        else:
            raise Stopped("script", f"iPXE is not built to load {url}")
        return (yield from self._run(firmware, where, url, body))

    def _run(self, firmware: Firmware, where: BootFile, url: str, body: bytes) -> Play[Outcome | Firmware]:
        state = ipxe.State(self._variables(firmware, where), self.machine.patience)
        end = yield from ipxe.run(body, url, state)
        if end.how == "image":
            if not self.got or self.got[-1].stage != "loader":
                self.got.append(Got("loader", urlsplit(end.url).path.rpartition("/")[2], len(end.body), ""))
            self._check(firmware, end.body[: programs.HEAD], len(end.body))
            return (yield from self._started(firmware, replace(where, file=end.url)))
        if end.how == "boot" and state.kernel is not None:
            self.got += [state.kernel, *state.initrds]
            if self.machine.report:
                yield from self._report(state.cmdline)
            return Outcome("booted", "initrd" if state.initrds else "kernel", "", tuple(self.got), state.cmdline)
        if end.how == "exit":
            raise Stopped("script", end.text)
        return Outcome("local" if end.how == "local" else "waits", "script", end.text, tuple(self.got))

    def _report(self, cmdline: str) -> Play[None]:
        """What the agent of a booted system sends."""
        home = next((word.partition("=")[2] for word in cmdline.split() if word.startswith("pxeserver.url=")), "")
        if not home:
            yield Say("up", "the command line names nobody to report to")
            return
        for stage in ("network", "containerd", "up"):
            got: Fetched = yield Fetch("POST", f"{home}/event", form={"stage": stage})
            yield Say(stage, "reported" if got.status in (200, 204) else f"not reported: {got.why or got.status}")

    def _variables(self, firmware: Firmware, where: BootFile) -> dict[str, str]:
        card = self.machine.card
        arch = {0: "i386", 11: "arm64"}.get(firmware.arch, "x86_64")
        own: Mapping[str, str] = {"mac": card.mac, "ip": where.address}
        return {
            **own,
            **{f"{net}/{name}": value for net in ("net0", "netX") for name, value in own.items()},
            "uuid": str(card.uuid),
            "serial": f"SIM{card.serial}",
            "manufacturer": "Simulated",
            "product": firmware.name,
            "platform": firmware.platform,
            "buildarch": arch,
            "version": firmware.agent.rpartition("/")[2],
            "memsize": "4096",
            "next-server": where.server,
            "filename": where.file,
        }
