"""How a machine comes to know its address and its boot file: DISCOVER to ACK, and port 4011 where its rules say so."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pxeserver.mac import mac_to_bytes
from pxeserver.sim import packets
from pxeserver.sim.effects import Broadcast, Clock, Heard, Listen, Open, Play, Say, Send, Stopped, Use
from pxeserver.sim.firmware import Firmware
from pxeserver.sim.offers import Offer, read
from pxeserver.sim.packets import Card
from pxeserver.sim.rules import Choice
from pxeserver.wire import dhcp

CLIENT, SERVER, BOOT_SERVER = 68, 67, 4011


@dataclass(frozen=True, slots=True)
class BootFile:
    """`file` on `server`, as told; `address` is the machine's own from now on."""

    server: str
    file: str
    address: str


def find_file(firmware: Firmware, card: Card, rng: random.Random) -> Play[BootFile]:
    """The whole dialogue. Stopped("dhcp") with the reason when this firmware finds nothing to load."""
    xid = rng.randbytes(4)
    choice = yield from _discover(firmware, card, xid)
    if choice.lease is None or choice.do in ("wait", "stop"):
        raise Stopped("dhcp", choice.why)
    address = yield from _take_address(firmware, card, xid, choice.lease)
    yield Say("offer", choice.why)
    if choice.do in ("ask", "item"):
        choice = yield from _ask(firmware, card, xid, address, choice, rng)
    return BootFile(choice.server, choice.file, address)


def _discover(firmware: Firmware, card: Card, xid: bytes) -> Play[Choice]:
    """DISCOVER after DISCOVER until the rules choose; the last choice says "wait" if they never do."""
    began: float = yield Clock()
    offers: list[Offer] = []
    choice = Choice("wait", "nobody answered")
    for number, wait in enumerate(firmware.discover):
        now: float = yield Clock()
        yield Say("discover", f"{firmware.name}: DISCOVER" + (f", try {number + 1}" if number else ""))
        yield Broadcast(packets.discover(firmware, card, xid))
        while True:
            heard: Heard | None = yield Listen(CLIENT, now + wait)
            if heard is None:
                at: float = yield Clock()
                choice = firmware.rules.choose(offers, at - began) if offers else choice
                break
            offer = read(heard.payload, heard.peer, heard.at - began, xid=xid, chaddr=mac_to_bytes(card.mac))
            if offer is None or offer.packet.message not in (dhcp.OFFER, 0):
                continue
            offers.append(offer)
            yield Say("offer", _shown(offer))
            if firmware.rules.eager:
                choice = firmware.rules.choose(offers, offer.at)
                if choice.do != "wait":
                    return choice
        if choice.do != "wait":
            return choice
    return choice


def _shown(offer: Offer) -> str:
    parts = [f"address {offer.address}" if offer.address else "", f'file "{offer.file}"' if offer.file else ""]
    parts.append(f"siaddr {offer.siaddr}" if offer.siaddr else "")
    parts.append("option 43" if offer.vendor else "")
    told = ", ".join(part for part in parts if part) or "nothing"
    return f"from {offer.server_id or offer.sender} after {offer.at:.2f} s: {told}"


def _take_address(firmware: Firmware, card: Card, xid: bytes, lease: Offer) -> Play[str]:
    server = lease.server_id or lease.sender
    payload = packets.request(firmware, card, xid, lease.address, server)

    def fits(offer: Offer) -> bool:
        return (
            offer.port == SERVER
            and offer.packet.message in (dhcp.ACK, dhcp.NAK)
            and bool(offer.packet.message == dhcp.NAK or offer.address == lease.address)
        )

    for wait in firmware.request:
        yield Broadcast(payload)
        answer = yield from _answer(CLIENT, wait, xid, card, fits)
        if answer is None:
            continue
        if answer.packet.message == dhcp.NAK:
            raise Stopped("dhcp", f"{server} took its offer of {lease.address} back")
        address: str = yield Use(lease.address, server)
        return address
    raise Stopped("dhcp", f"{server} offered {lease.address} and did not acknowledge it")


def _answer(port: int, wait: float, xid: bytes, card: Card, fits: Callable[[Offer], bool]) -> Play[Offer | None]:
    """The first answer to this transaction that fits, None when none comes in time."""
    now: float = yield Clock()
    while True:
        heard: Heard | None = yield Listen(port, now + wait)
        if heard is None:
            return None
        offer = read(heard.payload, heard.peer, heard.at - now, xid=xid, chaddr=mac_to_bytes(card.mac))
        if offer is not None and fits(offer):
            return offer


def _ask(firmware: Firmware, card: Card, xid: bytes, address: str, choice: Choice, rng: random.Random) -> Play[Choice]:
    """REQUEST to each server in turn; Stopped("4011") when none of them tells a file."""
    port = firmware.ask_port
    yield Open(port)
    if port == BOOT_SERVER:
        xid = rng.randbytes(4)  # EDK2 begins a new transaction
    elif choice.item:
        xid = bytes(4)  # and so does iPXE for a menu, with the number 0
    why = "no answer"
    for server in choice.servers:
        for wait in firmware.ask:
            payload = packets.ask(firmware, card, xid, address, server, choice.item)
            if server:
                yield Say("4011", f"REQUEST to {server}:{BOOT_SERVER} from port {port}")
                yield Send(payload, (server, BOOT_SERVER), port)
            else:
                yield Say("4011", "REQUEST for the menu's first item, to everybody")
                yield Broadcast(payload)
            taken = yield from _told(firmware, card, xid, port, server, wait)
            if isinstance(taken, Choice):
                yield Say("4011", f'file "{taken.file}" on {taken.server}')
                return taken
            why = taken or why
    raise Stopped("4011", f"{_listed(choice.servers)}: {why}")


def _told(firmware: Firmware, card: Card, xid: bytes, port: int, server: str, wait: float) -> Play[Choice | str]:
    """What the first acceptable answer says; else why the last one was not ("": there was none)."""
    now: float = yield Clock()
    why = ""
    while True:
        heard: Heard | None = yield Listen(port, now + wait)
        if heard is None:
            return why
        offer = read(heard.payload, heard.peer, 0.0, xid=xid, chaddr=mac_to_bytes(card.mac))
        if offer is None:
            continue
        taken = firmware.rules.take(offer, server)
        if taken.do == "load":
            return taken
        why = taken.why


def _listed(servers: Sequence[str]) -> str:
    return ", ".join(f"{server}:{BOOT_SERVER}" if server else "everybody" for server in servers) or "no boot server"
