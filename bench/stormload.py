"""The machines of a storm, all in one process: `python -m bench.stormload PLAN.json` inside a namespace; JSON out.

Each is a simulated firmware (pxeserver/sim) that goes the whole way: DISCOVER, offer, REQUEST, port 4011 where its
firmware asks there, TFTP of the loader, DISCOVER of iPXE, script, kernel, initrd, report `up`. They share one packet
socket and one loop; their addresses are a network that is local as a whole (AnyIP), so that files come over ordinary
sockets. The site's DHCP server is played here too; what is said to it is broadcast all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import random
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pxeserver.mac import mac_to_bytes
from pxeserver.sim.effects import Fetch, Fetched, Heard, Peer
from pxeserver.sim.firmware import FIRMWARE
from pxeserver.sim.links import Hear, Note
from pxeserver.sim.machine import Machine, Outcome, boot
from pxeserver.sim.offers import NOWHERE
from pxeserver.sim.packets import Card
from pxeserver.sim.world import World
from pxeserver.wire import dhcp, ip

SITE = "192.0.2.1"  # the site's DHCP server (RFC 5737)
ETH_P_IP, OUTGOING, FORCED_BUFFER, ATTACH = 0x0800, 4, 33, 26
EVERYONE = b"\xff" * 6
TIMEOUT = 60.0
# frames with UDP to port 68 (classic BPF)
FILTER = [
    (0x30, 0, 0, 23),
    (0x15, 0, 4, 17),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 0, 1, 68),
    (0x6, 0, 0, 65535),
    (0x6, 0, 0, 0),
]


@dataclass
class Hub:
    """The wire: frames out, DHCP answers in, each to the machine that it is for."""

    interface: str
    server: str
    offers: list[float] = field(default_factory=list)  # seconds from a DISCOVER to the boot server's first offer
    hearers: dict[bytes, SharedLink] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        program = b"".join(struct.pack("=HBBI", *step) for step in FILTER)
        buffer = ctypes.create_string_buffer(program, len(program))
        self.sock.setsockopt(socket.SOL_SOCKET, ATTACH, struct.pack("HL", len(FILTER), ctypes.addressof(buffer)))
        self.sock.setsockopt(socket.SOL_SOCKET, FORCED_BUFFER, 256 << 20)
        self.sock.bind((self.interface, ETH_P_IP))
        self.own = socket.inet_aton(self.server)
        asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def _readable(self) -> None:
        for _ in range(128):
            try:
                frame, (_, _, kind, _, _) = self.sock.recvfrom(2048)
            except OSError:
                return
            found = ip.unpack(frame[14:]) if kind != OUTGOING else None
            if found is not None and len(found[0]) > 240:
                link = self.hearers.get(found[0][28:34])
                if link is not None:
                    link.arrived(found[0], found[1])

    def send(self, mac: bytes, payload: bytes) -> None:
        packet = ip.pack(payload, (NOWHERE, 68), ("255.255.255.255", 67))
        with contextlib.suppress(OSError):  # lost, as on a busy wire
            self.sock.send(EVERYONE + mac + ETH_P_IP.to_bytes(2, "big") + packet)


class SharedLink:
    """One machine's part of the hub (sim.links.Link)."""

    def __init__(self, hub: Hub, mac: str, address: str) -> None:
        self.hub, self.mac, self.address = hub, mac_to_bytes(mac), address
        self.asked: dict[bytes, float] = {}  # xid -> when
        self._hear: Hear | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, hear: Hear, note: Note) -> None:
        self._hear = hear
        self.hub.hearers[self.mac] = self

    def close(self) -> None:
        self.hub.hearers.pop(self.mac, None)

    def use(self, address: str, server: str) -> str:
        return address

    def broadcast(self, payload: bytes) -> None:
        packet = dhcp.parse(payload)
        if packet.message == dhcp.DISCOVER:
            self.asked[packet.xid] = self._loop.time()
        self.hub.send(self.mac, payload)
        message = dhcp.OFFER if packet.message == dhcp.DISCOVER else dhcp.ACK
        options = ((53, bytes((message,))), (54, socket.inet_aton(SITE)), (1, b"\xff\xff\0\0"))
        raw = dhcp.Packet(2, packet.xid, packet.chaddr, options, yiaddr=self.address).pack()
        self._loop.call_soon(self._heard, raw, (SITE, 67))

    def arrived(self, raw: bytes, peer: Peer) -> None:
        asked = self.asked.pop(raw[4:8], None)
        if asked is not None:
            self.hub.offers.append(self._loop.time() - asked)
        self._heard(raw, peer)

    def _heard(self, raw: bytes, peer: Peer) -> None:
        if self._hear is not None:
            self._hear(raw, peer)


class Clock:
    """The machines' time. It stands still while this process is behind: firmware's patience is with the server."""

    STEP, LATE = 0.02, 0.1  # seconds

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.behind = 0.0  # seconds that were left out, in all
        self._task = self._loop.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            began = self._loop.time()
            await asyncio.sleep(self.STEP)
            late = self._loop.time() - began - self.STEP
            if late > self.LATE:
                self.behind += late

    def now(self) -> float:
        return self._loop.time() - self.behind


class StormWorld(World):
    """As World, with less work for each datagram and one plain connection per machine: this process is one of a few
    that share a CPU, and thousands of whole HTTP clients would be the bottleneck."""

    _connection: tuple[str, asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def __init__(self, link: SharedLink, clock: Clock, rng: random.Random) -> None:
        super().__init__(link, rng=rng)
        self._clock, self._start = clock, clock.now()

    def now(self) -> float:
        return self._clock.now() - self._start

    def _throw(self, deliver: Callable[[], None]) -> None:
        deliver()

    def _arrived(self, port: int, payload: bytes, peer: Peer) -> None:
        self._inboxes[port].put_nowait(Heard(payload, peer, self.now()))

    async def _listen(self, port: int, until: float) -> Heard | None:
        box = self._inboxes[port]
        while box.empty():
            left = until - self.now()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await box.get()
        return box.get_nowait()

    async def _close(self) -> None:
        self._hang_up()
        await super()._close()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection[2].transport.abort()
            self._connection = None

    async def _fetch(self, wanted: Fetch) -> Fetched:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._exchange(wanted)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self._hang_up()
            return Fetched(0, why=f"{type(error).__name__} {error}".strip())

    async def _exchange(self, wanted: Fetch) -> Fetched:
        parts = urlsplit(wanted.url)
        if self._connection is None or self._connection[0] != parts.netloc:
            self._hang_up()
            local = (self._address, 0)
            opened = await asyncio.open_connection(parts.hostname, parts.port or 80, local_addr=local)
            self._connection = (parts.netloc, *opened)
        _, reader, writer = self._connection
        body = urlencode(wanted.form).encode()
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{wanted.method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in wanted.headers.items()]
        if body:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
        status, left = int(first.split()[1]), int(headers.get("content-length", "0"))
        if wanted.method == "HEAD":
            left = 0
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        while left:
            part = await reader.read(min(left, 1 << 18))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            digest.update(part)
            size, left = size + len(part), left - len(part)
            kept += part[: max(0, wanted.keep - len(kept))]
        return Fetched(status, headers, size, digest.hexdigest(), bytes(kept))


@dataclass
class Count:
    """What became of the machines."""

    results: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def wrong(outcome: Outcome, plan: Mapping[str, Any], image: str) -> str:
    """What a booted machine has that is not its own; "" if all is right."""
    want = {**plan["loaders"], **{name: plan["images"][image][name] for name in ("kernel", "initrd.img")}}
    for got in outcome.got:
        if want.get(got.name) != got.sha256:
            return f"{got.name}: other bytes than this machine's"
    names = [got.name for got in outcome.got[-2:]]
    return "" if names == ["kernel", "initrd.img"] else f"not kernel and initrd but {names}"


async def storm(plan: Mapping[str, Any]) -> dict[str, Any]:
    hub, count, loop = Hub(plan["interface"], plan["server"]), Count(), asyncio.get_running_loop()
    clock = Clock()
    rng = random.Random(plan["seed"])
    base = int.from_bytes(socket.inet_aton(plan["pool"]), "big") + 16

    async def one(number: int, start: float) -> None:
        mac, firmware, image = plan["machines"][number]
        await asyncio.sleep(start)
        began = loop.time()
        link = SharedLink(hub, mac, socket.inet_ntoa((base + number).to_bytes(4, "big")))
        own = random.Random(f"{plan['seed']} {mac}")
        machine = Machine(FIRMWARE[firmware], Card.of(mac), plan["tries"], plan["patience"], report=True)
        outcome = await StormWorld(link, clock, own).play(boot(machine, own))
        if outcome.result == "booted":
            count.seconds.append(loop.time() - began)
            why = wrong(outcome, plan, image)
            count.wrong[why] += bool(why)
            count.results["booted"] += 1
            count.results["tries"] += outcome.tries
        else:
            count.results[f"{outcome.stage}: {outcome.why}"[:100]] += 1

    began = loop.time()
    starts = sorted(rng.uniform(0, plan["over"]) for _ in plan["machines"])
    tasks = [loop.create_task(one(n, start)) for n, start in enumerate(starts)]
    done, late = await asyncio.wait(tasks, timeout=plan["limit"])
    for task in late:
        task.cancel()
    if late:
        count.results["not done in time"] += len(late)
    for task in done:
        if error := task.exception():
            count.results[f"{type(error).__name__}: {error}"[:100]] += 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    booted, tries = count.results.pop("booted", 0), count.results.pop("tries", 0)
    return {
        "booted": booted,
        "tried_again": tries - booted,
        "failures": dict(count.results.most_common(8)),
        "failed": len(tasks) - booted,
        "wrong": sum(count.wrong.values()),
        "wrongs": dict((+count.wrong).most_common(5)),
        "seconds": round(loop.time() - began, 2),
        "offer_p50_ms": _at(hub.offers, 0.5),
        "offer_p99_ms": _at(hub.offers, 0.99),
        "boot_p50_s": round(_at(count.seconds, 0.5) / 1000, 2),
        "boot_p99_s": round(_at(count.seconds, 0.99) / 1000, 2),
        "load_behind_s": round(clock.behind, 1),
        "load_cpu_s": round(used.ru_utime + used.ru_stime, 1),
    }


def _at(values: list[float], part: float) -> float:
    """A percentile, in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 2) if ordered else 0.0


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(storm(plan))))


if __name__ == "__main__":
    main()
