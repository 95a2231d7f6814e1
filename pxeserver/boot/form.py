"""An answer with blanks: a rack of one model says the same a thousand times, but for a MAC, an xid and a UUID. Pure.

What a `Form` leaves blank of a DISCOVER decides nothing of its answer, so that all packets that are alike get the
answer that one of them was given, with their own values in the blanks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from pxeserver.boot.answer import NOWHERE, Arrival, Reply
from pxeserver.boot.decide import Decision
from pxeserver.boot.profile import LOCAL_BOOT_VAR, assigned_image
from pxeserver.boot.request import BootRequest
from pxeserver.model import STYLE_FACT, Digest, FleetView, Machine, Pin, Recent
from pxeserver.wire import dhcp

Blanks = tuple[slice, ...]  # in the order of the bytes, at least two

_COUNTED = slice(4, 10)  # xid and secs, which the answer repeats
_CHADDR = slice(28, 34)
_OWN = slice(31, 34)  # of the MAC: quirks go by the first half
_NO_VENDOR = bytes(3)  # such a MAC may be no address at all
_UUID_SIZE, _IDENT_SIZE = 17, 7  # a type and then 16 bytes; a type and then the MAC
_NOTHING = slice(0, 0)
_NO_PIN = Pin()


@dataclass(frozen=True, slots=True)
class Form:
    """The answer to packets that are alike. `request`, `decision` and `arrival` are those of the one that was decided
    on; the decision's reasons, which name its machine, are left out."""

    request: BootRequest
    decision: Decision
    arrival: Arrival
    address: str
    port: int
    uuid: slice  # of the request: option 97 without its type
    parts: tuple[bytes, bytes, bytes, bytes]  # the answer around its blanks

    def fill(self, raw: bytes) -> bytes:
        """The payload that answers this packet."""
        start, addresses, options, rest = self.parts
        return b"".join((start, raw[4:10], addresses, raw[28:34], options, raw[self.uuid], rest))

    def uuid_of(self, raw: bytes) -> bytes:
        """Option 97 of a packet with its type, b"" if it has none."""
        return raw[self.uuid.start - 1 : self.uuid.stop] if self.uuid is not _NOTHING else b""


def form_of(
    raw: bytes, packet: dhcp.Packet, request: BootRequest, decision: Decision, arrival: Arrival, reply: Reply
) -> tuple[Blanks, Form] | None:
    """What this answer has in common with those to packets like `raw`, and where those may differ from it.

    It holds for boots that begin, of machines of one `kin`, as long as fleet and configuration stay what they are.
    None where an answer is one machine's own: scripts and URLs have its token.
    """
    if decision.kind != "loader" or request.http or request.ipxe or not request.opening:
        return None
    if packet.htype != 1 or len(packet.chaddr) != 6 or raw[28:31] == _NO_VENDOR or packet.ciaddr != NOWHERE:
        return None
    blanks = [_COUNTED, _OWN]
    asked = told = _NOTHING
    uuid, ident = packet.option(dhcp.OPT_UUID), packet.option(dhcp.OPT_CLIENT_ID)
    if uuid is not None and len(uuid) == _UUID_SIZE:
        here, there = dhcp.option_at(raw, dhcp.OPT_UUID), dhcp.option_at(reply.payload, dhcp.OPT_UUID)
        if here is None or there is None:
            return None
        asked, told = (slice(at + 1, at + _UUID_SIZE) for at in (here, there))
        blanks.append(asked)
    if ident is not None and len(ident) == _IDENT_SIZE:
        here = dhcp.option_at(raw, dhcp.OPT_CLIENT_ID)
        if here is None:
            return None
        blanks.append(slice(here + 1, here + _IDENT_SIZE))
    between = told if told is not _NOTHING else slice(_CHADDR.stop, _CHADDR.stop)
    payload = reply.payload
    parts = (
        payload[: _COUNTED.start],
        payload[_COUNTED.stop : _CHADDR.start],
        payload[_CHADDR.stop : between.start],
        payload[between.stop :],
    )
    form = Form(request, decision._replace(reasons=()), arrival, reply.address, reply.port, asked, parts)
    return tuple(sorted(blanks, key=lambda blank: blank.start)), form


class Kin(NamedTuple):
    """What of a machine its form follows from, and what it is bound to: `form` and (image, revision).

    No image: the decision that the form was made by has it, for all machines without an assignment get the same.
    """

    form: tuple[str, str, bool]
    bound: tuple[Digest, int] | None


_STRANGER = Kin(("", "", False), None)


def kin_of(machine: Machine | None, past: Recent | None, view: FleetView) -> Kin | None:
    """None for a machine that is decided on by itself. `past` is what its MAC did before the boot that begins."""
    style = past.style if past is not None else ""
    if machine is None:
        return Kin((style, "", False), None) if style else _STRANGER
    if machine.pin != _NO_PIN or LOCAL_BOOT_VAR in machine.vars:
        return None
    assignment = view.assignments.get(machine.id)
    form = style, machine.facts.get(STYLE_FACT, ""), assignment is not None
    if assignment is None:
        return Kin(form, None)
    image = view.images.get(assigned_image(assignment, view))
    refused = image is None or (machine.arch and machine.arch != image.arch)
    return Kin(form, ("" if refused or image is None else image.digest, assignment.revision))


def cut(blanks: Blanks) -> Callable[[bytes], tuple[bytes, ...]]:
    """From a packet to what is around its blanks: equal for packets of one length that are alike."""
    starts = [0, *(blank.stop for blank in blanks)]
    stops = [*(blank.start for blank in blanks), None]
    return itemgetter(*map(slice, starts, stops))
