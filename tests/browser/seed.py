"""A fleet in the middle of its work, written by the real Fleet: for the browser tests and for the README's pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.mac import Mac
from pxeserver.model import STAGES, Blob, Event, Image, Stage

MIB = 1 << 20
# what each stage transfers, and how long after the stage before it comes
_BYTES = {Stage.LOADER: 74_000, Stage.SCRIPT: 611, Stage.KERNEL: 9 * MIB, Stage.INITRD: 54 * MIB}
_PACE = {
    Stage.OFFER: 0.0,
    Stage.LOADER: 0.6,
    Stage.SCRIPT: 2.3,
    Stage.KERNEL: 0.4,
    Stage.INITRD: 2.9,
    Stage.NETWORK: 6.8,
    Stage.CONTAINERD: 3.1,
    Stage.UP: 4.2,
}
HARDWARE = {
    "manufacturer": "Supermicro",
    "product": "SYS-1029P",
    "serial": "S2740X90",
    "firmware": "efi",
    "arch": "amd64",
}


def image(fleet: Fleet, spec: str, number: int, created: float, tags: Iterable[str] = ()) -> Image:
    """A built image in the store; its files are small, their recorded sizes are those of a real build."""
    store = fleet.catalogue.store
    kernel, initrd = store.add_bytes(f"kernel {spec}".encode()), store.add_bytes(f"initrd {spec} {number}".encode())
    made = Image(
        digest=store.add_bytes(f"image {spec} {number}".encode()).digest,
        spec=spec,
        kernel=Blob(kernel.digest, 9 * MIB),
        initrd=Blob(initrd.digest, (48 + 3 * number) * MIB, 142 * MIB),
        cmdline="console=tty0 console=ttyS0,115200n8",
        arch="amd64",
    )
    return fleet.catalogue.add(made, spec_text=b"kernel: {}\n", tags=tags, created=created)


def boot_events(
    mac: Mac,
    boot: str,
    began: float,
    upto: Stage,
    *,
    image: str = "",
    skip: Iterable[Stage] = (),
    ip: str = "",
    memory: int = 65536,
) -> list[Event]:
    """The events of one boot that came as far as `upto`; `memory` in MiB."""
    events: list[Event] = []
    at = began
    for stage in STAGES[: STAGES.index(upto) + 1]:
        if stage in skip:
            continue
        at += _PACE[stage]
        data = {"ip": ip} if ip else {}
        if stage is Stage.OFFER:
            data |= {"style": "binl", "loader": "snponly.efi", **HARDWARE, "memory": str(memory)}
        if stage is Stage.SCRIPT and image:
            data |= {"image": image}
        size = _BYTES.get(stage, 0)
        took = round(size / (60 * MIB), 3)
        events.append(Event(at, str(stage), mac, boot, stage, ip or "0.0.0.0", size, took, _TEXT[stage], data))
    return events


_TEXT = {
    Stage.OFFER: "offered snponly.efi",
    Stage.LOADER: "snponly.efi",
    Stage.SCRIPT: "script sent",
    Stage.KERNEL: "kernel",
    Stage.INITRD: "initrd.img",
    Stage.NETWORK: "address from the site's DHCP server",
    Stage.CONTAINERD: "containerd answers",
    Stage.UP: "all services run",
}


def polls(mac: Mac, boot: str, began: float, until: float) -> list[Event]:
    """What a machine does that waits for an assignment: it asks for its script every five seconds."""
    first = boot_events(mac, boot, began, Stage.SCRIPT, ip="10.20.0.77")
    script = first[-1]
    times = range(1, int((until - script.at) / 5) + 1)
    return [*first, *(dataclasses.replace(script, at=script.at + 5 * n) for n in times)]


def mac(number: int) -> Mac:
    return f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def boot_id(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}"


def picture(fleet: Fleet, now: float) -> None:
    """What the README shows: most machines up, some on their way, one stuck, one waiting, two that nobody named."""
    old = image(fleet, "web", 1, now - 6 * 86400, ["web:2026-11-17"])
    new = image(fleet, "web", 2, now - 5 * 3600, ["web:2026-11-23"])
    database = image(fleet, "db", 3, now - 2 * 86400, ["db:16.2"])
    image(fleet, "rescue", 1, now - 30 * 86400)
    for n in range(1, 15):
        spec = (old if n < 5 else new if n < 10 else database).digest
        name = f"r1-{n:02d}" if n < 10 else f"db-{n - 9}"
        fleet.add_machine(MachineEdit(name=name, macs=(mac(n),), labels={"rack": "r1" if n < 10 else "r2"}))
        if n != 9:
            fleet.assign([mac(n)], AssignOrder(spec, by="ops", reason="first installation"))
        ip = f"10.20.0.{10 + n}"
        fleet.record(boot_events(mac(n), boot_id(n), now - 86400 * n + 777 * n, Stage.UP, image=spec, ip=ip))
    fleet.set_machine("r1-03", MachineEdit(cmdline=("console=ttyS1,57600n8", "mitigations=off")))
    fleet.record(polls(mac(9), boot_id(109), now - 41, now))
    # (machine, begun so many seconds ago, came to, stages left out)
    for n, ago, upto, skip in (
        (3, 15.2, Stage.INITRD, ()),
        (6, 3.6, Stage.SCRIPT, ()),
        (8, 12.9, Stage.NETWORK, (Stage.LOADER,)),
        (11, 1500.0, Stage.INITRD, ()),
    ):
        spec = (old if n < 5 else new if n < 10 else database).digest
        ip, memory = f"10.20.0.{10 + n}", 384 if n == 11 else 65536
        boot = boot_id(n + 100)
        fleet.record(boot_events(mac(n), boot, now - ago, upto, image=spec, skip=skip, ip=ip, memory=memory))
    fleet.record(
        [
            Event(
                now - 1480,
                "cause",
                mac(11),
                boot_id(111),
                text="the initrd was cut short: not enough memory to unpack it",
                data={"cause": "initrd-cut-short"},
            )
        ]
    )
    for n, ago in ((0xA1B2C3, 95.0), (0xA1B2D7, 20.0)):
        fleet.record(polls(mac(n), boot_id(n), now - ago, now))
