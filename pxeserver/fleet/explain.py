"""What would happen, and why: the real decide(), answer() and script on a recorded or made-up packet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from pxeserver.boot import answer, answer6, token
from pxeserver.boot.decide import Decision, decide, discovers_after
from pxeserver.boot.quirks import Quirks, load_quirks
from pxeserver.boot.request import BootRequest, request_of
from pxeserver.boot.request6 import mac_of6, request_of6
from pxeserver.boot.styles import DHCP6
from pxeserver.errors import NotFound, Refused, UsageError
from pxeserver.fleet import profiles
from pxeserver.fleet.optiontext import option_infos, option_infos6
from pxeserver.fleet.values import EventRecord, ExplainOrder, Explanation, Rendering, TextPart
from pxeserver.mac import Mac, looks_like_mac, mac_to_bytes, parse_mac
from pxeserver.model import Machine, Reason, Recent, Stage
from pxeserver.when import rfc3339
from pxeserver.wire import dhcp, dhcp6, pxe
from pxeserver.wire.reader import WireError

if TYPE_CHECKING:
    from pxeserver.fleet.fleet import Fleet

FIRMWARE = ("bios", "efi", "ipxe")
RENDERED = ("script", "cmdline")
NO_BOOT = "0" * 16  # boot id in the token of a made-up boot
_BINL_PORT = 4011
_EFI_ARCH = {"arm64": 11, "arm": 10, "riscv64": 27, "loong64": 39}
_IPXE_FEATURES = ("pxe", "http", "https", "tftp", "bzimage", "menu")


@dataclass(frozen=True, slots=True)
class _Question:
    """A packet to decide on, and what was known when it came."""

    packet: dhcp.Packet | dhcp6.Packet
    source: str
    port: int
    now: float
    own_ip: str
    boot: str = NO_BOOT
    peer: str = ""
    recent: Recent | None = None
    mac: Mac = ""  # of the card that sent it, where the packet does not say

    @property
    def request(self) -> BootRequest | None:
        if isinstance(self.packet, dhcp.Packet):
            return request_of(self.packet, self.port)
        mac = self.mac or mac_of6(self.packet, self.peer)
        return request_of6(self.packet, self.port, mac, self.own_ip) if mac else None


def explain(fleet: Fleet, target: str, order: ExplainOrder) -> Explanation:
    """The whole decision. UsageError "packet-bad" if the packet is none, "arch-unknown", "firmware-unknown"."""
    machine, mac = _who(fleet, target)
    asked = _question(fleet, machine, mac, order)
    request = asked.request
    view = fleet.view()
    if request is None:
        why = (Reason("request", "not a network-booting client: such packets are never answered"),)
        name = machine.name if machine else ""
        return Explanation(mac, name, asked.source, "ignore", "", "", "", why, packet=asked.packet.pack().hex())
    machine = view.machine(request.mac)
    decision = decide(request, view, asked.recent, fleet.config, asked.now, _quirks())
    bound = token.Token(asked.boot, request.mac, token.image_prefix(decision.image), decision.revision)
    sealed = token.seal(fleet.secret(), bound)
    profile = profiles.info(machine, request.mac, view, fleet.config, token=sealed, ip=asked.own_ip)
    base = Explanation(
        mac=request.mac,
        name=machine.name if machine else "",
        source=asked.source,
        action=decision.action,
        style=decision.style,
        loader=decision.loader,
        kind=decision.kind if decision.action == "answer" else "",
        reasons=decision.reasons,
        packet=asked.packet.pack().hex(),
        profile=profile,
    )
    return _with_answer(base, asked, request, decision, sealed, fleet.config.http.told_port)


def render(fleet: Fleet, target: str, what: str) -> Rendering:
    """`script` or `cmdline` of a machine as it would be now, in parts with their origin."""
    if what not in RENDERED:
        raise UsageError("render-what", f'cannot render "{what}"', hint="one of: " + ", ".join(RENDERED))
    machine, mac = _who(fleet, target)
    profile = profiles.info(machine, mac, fleet.view(), fleet.config)
    if what == "cmdline":
        return Rendering(what, profile.cmdline, profile.parts)
    if not profile.script:
        raise Refused("script-failed", profile.problem, hint="mend the template or the machine's values")
    name = profile.template or profile.action
    return Rendering(what, profile.script, (TextPart(profile.script, f"template {name}"),))


def _with_answer(
    base: Explanation, asked: _Question, request: BootRequest, decision: Decision, sealed: str, http_port: int
) -> Explanation:
    if decision.action != "answer":
        return base
    url = answer.boot_url(asked.own_ip, http_port, sealed)
    if isinstance(asked.packet, dhcp6.Packet):
        arrival = answer.Arrival(asked.own_ip, 0, asked.port, asked.peer or "::", asked.port)
        reply = answer6.answer6(asked.packet, request, decision, arrival, url)
        boot_file = answer6.boot_file6(request, decision, asked.own_ip, url)
        options = option_infos6(dhcp6.parse(reply.payload).options)
    else:
        sender = asked.peer if asked.peer not in ("", answer.EVERYONE) else answer.NOWHERE
        arrival = answer.Arrival(asked.own_ip, 0, asked.port, sender, asked.port if sender != answer.NOWHERE else 68)
        reply = answer.answer(asked.packet, request, decision, arrival, url)
        boot_file = answer.boot_file(request, decision, url)
        options = option_infos(dhcp.parse(reply.payload).options)
    return replace(
        base,
        payload=reply.payload.hex(),
        to=f"{answer.url_host(reply.address)}:{reply.port}",
        boot_file=boot_file,
        options=options,
    )


def _who(fleet: Fleet, target: str) -> tuple[Machine | None, Mac]:
    """A known machine, or any MAC: what would a new machine get?"""
    try:
        machine = fleet.find(target)
    except NotFound:
        if not looks_like_mac(target):
            raise
        return None, parse_mac(target)
    return machine, parse_mac(target) if looks_like_mac(target) else machine.mac


def _question(fleet: Fleet, machine: Machine | None, mac: Mac, order: ExplainOrder) -> _Question:
    own_ip, now = profiles.own_ip(fleet.config), fleet.clock()
    if order.packet:
        packet = _parsed(order.packet)
        if isinstance(packet, dhcp6.Packet):
            own6, port = profiles.own_ip6(fleet.config), fleet.config.dhcp6.port
            return _Question(packet, "the given packet", port, now, own6, mac=mac)
        return _Question(packet, "the given packet", fleet.config.dhcp.port, now, own_ip)
    if machine is not None and order == ExplainOrder():
        found = _recorded(fleet, machine, own_ip)
        if found is not None:
            return found
    made, what = made_up(machine, mac, order)
    return _Question(made, f"made up: {what}", fleet.config.dhcp.port, now, own_ip)


def _parsed(text: str) -> dhcp.Packet | dhcp6.Packet:
    """Whatever begins as a DHCPv4 packet does is none of DHCPv6: no message type of it has that cookie behind it."""
    try:
        raw = bytes.fromhex(text)
        return dhcp.parse(raw) if raw[236:240] == dhcp.MAGIC or len(raw) < 4 else dhcp6.parse(raw)
    except (ValueError, WireError) as error:
        raise UsageError("packet-bad", f"not a DHCP packet in hex: {error}") from None


def _recorded(fleet: Fleet, machine: Machine, own_ip: str) -> _Question | None:
    """The machine's last packet, with what its card had done before it."""
    events = fleet.events(machine.mac, limit=200)
    last = next((e for e in reversed(events) if e.kind == Stage.OFFER and e.data.get("packet")), None)
    if last is None:
        return None
    port = last.data.get("port", "")
    return _Question(
        packet=_parsed(last.data["packet"]),
        source=f"its packet of {rfc3339(last.at)}",
        port=int(port) if port.isdecimal() else fleet.config.dhcp.port,
        now=last.at,
        own_ip=last.data.get("own_ip", "") or own_ip,
        boot=last.boot or NO_BOOT,
        peer=last.peer if last.peer.count(":") > 1 else last.peer.partition(":")[0],
        recent=recent_of((e for e in events if e.mac == last.mac and e.id < last.id), last.boot, last.at),
        mac=last.mac,
    )


def recent_of(events: Iterable[EventRecord], boot: str, now: float) -> Recent:
    """What the recorder knew of a card after these events of it, when the next packet of `boot` came."""
    found: Recent | None = None
    for event in events:
        found = _step(_begun(found, event.boot, event.at), event) if event.boot else found
    return _begun(found, boot, now)


def _begun(before: Recent | None, boot: str, at: float) -> Recent:
    """As serve.recorder begins a boot: style and a loader that goes in circles are remembered."""
    if before is None:
        return Recent(boot, at, at)
    if before.boot == boot:
        return before
    return Recent(boot, at, at, style=before.style, loader=before.loader, loader_cycles=before.loader_cycles)


def _step(now: Recent, event: EventRecord) -> Recent:
    before, now = now, now._replace(last=event.at, stage=event.stage or now.stage)
    if event.stage is Stage.OFFER and event.data.get("style") == DHCP6:
        return now
    if event.stage is Stage.OFFER:
        discovers = 0 if event.data.get("port") == str(_BINL_PORT) else discovers_after(before, event.at)
        return now._replace(style=event.data.get("style", now.style), discovers=discovers)
    if event.stage is Stage.LOADER:
        name, cycles = event.data.get("loader", ""), now.loader_cycles + 1
        return now._replace(loader=name, loader_at=event.at, loader_cycles=cycles, discovers=0)
    if event.stage is Stage.SCRIPT:
        return now._replace(script_at=event.at, loader_cycles=0, discovers=0)
    return now


def made_up(machine: Machine | None, mac: Mac, order: ExplainOrder) -> tuple[dhcp.Packet, str]:
    """A DISCOVER as such firmware sends it, and its description."""
    firmware = order.firmware or (machine.facts.get("firmware", "") if machine else "") or "efi"
    if firmware not in FIRMWARE:
        raise UsageError("firmware-unknown", f'no firmware "{firmware}"', hint="one of: " + ", ".join(FIRMWARE))
    code = order.arch
    if code is None:
        efi = _EFI_ARCH.get(machine.arch if machine else "", 7)
        bios = firmware == "bios" or (firmware == "ipxe" and machine and machine.facts.get("firmware") == "bios")
        code = 0 if bios else efi
    if code not in pxe.ARCHES:
        raise UsageError(
            "arch-unknown", f"no architecture {code}", hint="the number in DHCP option 93: 0 BIOS, 7 x86-64, 11 arm64"
        )
    arch = pxe.ARCHES[code]
    kind = pxe.HTTP_CLIENT if arch.http else pxe.PXE_CLIENT
    vendor = order.vendor_class.encode("latin-1", "replace") or kind + b":Arch:%05d:UNDI:003016" % code
    options = [
        (dhcp.OPT_MESSAGE_TYPE, bytes((dhcp.DISCOVER,))),
        (dhcp.OPT_MAX_SIZE, (1472).to_bytes(2, "big")),
        (dhcp.OPT_VENDOR_CLASS, vendor),
        (dhcp.OPT_ARCH, pxe.pack_archs((code,))),
        (dhcp.OPT_UNDI, b"\x01\x03\x10"),
    ]
    uuid = _uuid(machine.facts.get("uuid", "")) if machine else b""
    if uuid:
        options.append((dhcp.OPT_UUID, b"\0" + uuid))
    if firmware == "ipxe":
        codes = {name: number for number, name in pxe.IPXE_FEATURES.items()}
        names = (*_IPXE_FEATURES, *(("efi",) if arch.family != "bios" else ()))
        options.append((dhcp.OPT_USER_CLASS, b"iPXE"))
        options.append((dhcp.OPT_IPXE, dhcp.pack_suboptions([(codes[name], b"\x01") for name in names])))
    raw = mac_to_bytes(mac)
    packet = dhcp.Packet(dhcp.BOOTREQUEST, raw[2:], raw, tuple(options), flags=dhcp.BROADCAST)
    what = f"a DISCOVER of {'iPXE on ' if firmware == 'ipxe' else ''}{arch.name} (option 93 = {code})"
    return packet, what


def _uuid(text: str) -> bytes:
    """As SMBIOS has it; b"" for what is none."""
    try:
        return UUID(text).bytes_le
    except ValueError:
        return b""


@cache
def _quirks() -> Quirks:
    return load_quirks()
