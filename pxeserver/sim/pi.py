"""What a Raspberry Pi fetches by itself: its second stage, config.txt, then the kernel or the UEFI that this names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pxeserver.sim import tftp
from pxeserver.sim.effects import Play, Say
from pxeserver.sim.firmware import TftpHabit
from pxeserver.sim.ipxe import Got

START, CONFIG, CMDLINE = "start4.elf", "config.txt", "cmdline.txt"


@dataclass(frozen=True, slots=True)
class Fetched:
    """`kernel`: the Pi's own loader boots a kernel; otherwise it has started UEFI."""

    got: tuple[Got, ...]
    kernel: bool
    cmdline: str = ""


def fetch(server: str, serial: str, habit: TftpHabit) -> Play[Fetched]:
    """Files from the folder of its serial number, else from the top. Stopped("loader") when one is missing."""
    got: list[Got] = []

    def file(stage: str, name: str) -> Play[bytes]:
        content = yield from tftp.fetch(server, prefix + name, habit)
        got.append(Got(stage, prefix + name, len(content), hashlib.sha256(content).hexdigest()))
        yield Say(stage, f"{prefix + name}: {len(content)} bytes by TFTP")
        return content

    prefix = f"{serial}/"
    try:
        yield from file("loader", START)
    except tftp.NoFile:
        prefix = ""
        yield from file("loader", START)
    try:
        settings = _settings((yield from file("loader", CONFIG)))
    except tftp.NoFile:
        settings = {}
    if "armstub" in settings:
        yield from file("loader", settings["armstub"])
        return Fetched(tuple(got), False)
    yield from file("kernel", settings.get("kernel", "kernel8.img"))
    if "initramfs" in settings:
        yield from file("initrd", settings["initramfs"])
    try:
        cmdline = (yield from file("loader", CMDLINE)).decode("utf-8", "replace").strip()
    except tftp.NoFile:
        cmdline = ""
    return Fetched(tuple(got), True, cmdline)


def _settings(raw: bytes) -> dict[str, str]:
    """`name=value` lines, and `initramfs NAME followkernel`; sections like [pi4] are passed over."""
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("initramfs "):
            found["initramfs"] = text.split()[1]
        elif "=" in text:
            name, _, value = text.partition("=")
            found[name.strip()] = value.strip()
    return found
