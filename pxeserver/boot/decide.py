"""What a booting machine is answered, as a value with its reasons. Pure: view, past and time are arguments."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

from pxeserver.boot import uki
from pxeserver.boot.profile import LOCAL_BOOT_VAR, NO_OFFER, choose
from pxeserver.boot.quirks import Quirk, Quirks, quirk_for
from pxeserver.boot.request import OWN_CLASS, BootRequest, request_of
from pxeserver.boot.styles import DHCP6, SILENCE, STYLES, styles_for
from pxeserver.config import Config
from pxeserver.model import STYLE_FACT, UKI, Digest, FleetView, Machine, Pin, Reason, Recent
from pxeserver.wire import dhcp, dhcp6, pxe

__all__ = ["SEEN", "STYLES", "BootRequest", "Decision", "decide", "request_of"]

LOADER_FRESH = 180.0  # seconds; iPXE may wait this long for a link that spanning tree blocks before it asks again
LOOP_CYCLES = 2  # loaders fetched in a row, with no script asked for, that make a loop

PAUSE = 0.9  # seconds without a packet after which the same one is a new one
SEEN = frozenset(
    {"policy-ignore", "policy-local", "no-loader", "no-uki"}
)  # ignored, but this machine wanted something of us

_NO_PIN = Pin()


@lru_cache(maxsize=1024)
def _reason(topic: str, text: str, *words: object) -> Reason:
    """A reason that names no machine: the same again and again."""
    return Reason(topic, text.format(*words))


class Decision(NamedTuple):
    """`kind` "loader": `loader` is a file of the loader set; "image": `uki` is the blob of the image's own EFI program.
    The boot's token binds `image` and `revision`.

    `goarch` is the processor that the request shows ("" if it does not), after the quirks: arch 0 of a Pi is arm64.
    `why` is the slug of an ignored request, for counters: dhcp-off, not-ours, policy-ignore, policy-local, no-loader,
    no-uki.
    """

    action: Literal["answer", "ignore"]
    reasons: tuple[Reason, ...]
    kind: Literal["loader", "script", "image"] = "script"
    style: str = ""
    loader: str = ""
    uki: Digest = ""
    image: Digest = ""
    revision: int = 0
    goarch: str = ""
    why: str = ""


def decide(
    request: BootRequest, view: FleetView, recent: Recent | None, config: Config, now: float, quirks: Quirks
) -> Decision:
    """The answer to one request, or why there is none. `recent` is what this MAC did before this packet."""
    reasons = [
        _reason("request", "{} on port {}, {}", request.said, request.port, request.vendor.decode()),
        _reason("firmware", "{}: {} from {}", request.firmware, request.arch.code, request.arch_from),
    ]

    def ignore(why: str, text: str) -> Decision:
        return Decision("ignore", (*reasons, Reason("ignored", text)), why=why)

    unasked = _not_ours(request, config)
    if unasked:
        return ignore(*unasked)
    machine = view.machine(request.mac)
    chosen = choose(machine, request.mac, view, config)
    reasons.extend(chosen.reasons)
    if chosen.action == "ignore":
        return ignore("policy-ignore", "a machine without an assignment gets no answer here")
    if chosen.action == "local" and machine is not None and machine.vars.get(LOCAL_BOOT_VAR) == NO_OFFER:
        return ignore("policy-local", f"its var {LOCAL_BOOT_VAR} is {NO_OFFER}: the firmware goes on by itself")
    quirk = quirk_for(request, quirks)
    if quirk is not None:
        reasons.append(_reason("quirk", "{}: {}", quirk.name, quirk.why))
    family = quirk.set.family if quirk is not None and quirk.set.family else request.arch.family
    pin = machine.pin if machine is not None else _NO_PIN

    whole = uki.choose(request, family, machine, chosen, config)
    if whole.reason is not None:
        reasons.append(whole.reason)
    if whole.problem:
        return ignore("no-uki", whole.problem)
    wants_loader, because = False, "the firmware starts the image itself"
    if whole.blob is None:
        wants_loader, because = _wants_loader(request, pin, recent, now)
    reasons.append(_reason("kind", "{}", because))
    loader = ""
    if wants_loader:
        loader, origin = _loader(family, pin, quirk, config)
        if not loader:
            return ignore("no-loader", f"no loader for {request.arch.name}: set boot.loaders.{family}, or pin one")
        reasons.append(_reason("loader", "{}, {}", loader, origin))
        if recent is not None and recent.loader_cycles >= LOOP_CYCLES:
            reasons.append(
                Reason("loop", f"{recent.loader} was fetched {recent.loader_cycles} times, its script never")
            )
    style, origin = _style(request, family, pin, quirk, recent, machine)
    reasons.append(_reason("style", "{}: {}; {}", style, STYLES[style].about, origin))
    return Decision(
        "answer",
        tuple(reasons),
        "image" if whole.blob is not None else "loader" if wants_loader else "script",
        style,
        loader,
        whole.blob.digest if whole.blob is not None else "",
        chosen.image.digest if chosen.image is not None else "",
        chosen.assignment.revision if chosen.assignment is not None else 0,
        request.arch.goarch if family == request.arch.family else pxe.goarch_of(family),
    )


def _not_ours(request: BootRequest, config: Config) -> tuple[str, str] | None:
    """Slug and text if no proxyDHCP server answers such a packet."""
    if request.version == 6:
        return _not_ours6(request, config)
    if config.dhcp.mode == "off":
        return "dhcp-off", "dhcp.mode is off"
    if request.port == config.dhcp.port:
        if request.opening:
            return None
        to = f", here {request.server_id}" if request.server_id else ""
        return "not-ours", f"on this port only DISCOVER is for us; a REQUEST is for the address server{to}"
    if request.message == dhcp.REQUEST or (request.message == dhcp.INFORM and request.boot_item is not None):
        return None
    return "not-ours", "on this port only REQUEST is for us, or an INFORM with a boot item"


def _not_ours6(request: BootRequest, config: Config) -> tuple[str, str] | None:
    if config.dhcp6.mode == "off":
        return "dhcp-off", "dhcp6.mode is off"
    if request.message == dhcp6.REQUEST and (request.names_us or not request.server_id):
        return None
    if request.opening and request.port == config.dhcp6.port:
        return None
    return "not-ours", "only SOLICIT, INFORMATION-REQUEST and a REQUEST to us are for a server without addresses"


def _wants_loader(request: BootRequest, pin: Pin, recent: Recent | None, now: float) -> tuple[bool, str]:
    """Loader or script, and why. Only iPXE fetches scripts; which iPXE is asking follows from what its MAC just did."""
    if not request.ipxe:
        return True, "firmware cannot read scripts: a loader"
    if request.user_class == OWN_CLASS:
        return False, "our own iPXE, by its user class: the script"
    if pin.loader and pin.loader != UKI:
        why = "iPXE of the network card, but the machine is pinned to a loader"
    elif request.user_class == "gPXE":
        why = "gPXE is too old for our scripts: a loader"
    elif request.features and "http" not in request.features:
        why = "this iPXE has no HTTP: a loader that has it"
    else:
        return False, "iPXE fetches the script itself"
    if recent is None or recent.loader_at <= recent.script_at or now - recent.loader_at >= LOADER_FRESH:
        return True, why
    if request.bare or request.arch.family != "bios":
        return False, f"this MAC fetched {recent.loader} moments ago, so this is that iPXE: the script"
    # An iPXE in a card's ROM says the whole of option 60; one that it loaded says the bare word, out of our own answer.
    if recent.loader_cycles < LOOP_CYCLES:
        return True, f"{recent.loader} returned, and the iPXE of the network card asks again: once more"
    return (
        False,
        f"{recent.loader} returned {recent.loader_cycles} times: the script, so that the machine boots after all",
    )


def _loader(family: str, pin: Pin, quirk: Quirk | None, config: Config) -> tuple[str, str]:
    """File name ("" if there is none) and where the choice comes from."""
    if pin.loader and pin.loader != UKI:
        return pin.loader, "pinned"
    if quirk is not None and quirk.set.loader:
        return quirk.set.loader, f"by the quirk {quirk.name}"
    if family in config.boot.loaders:
        return config.boot.loaders[family], f"boot.loaders.{family}"
    if family == "bios":
        return config.boot.bios_loader, "boot.bios_loader"
    if family == "efi64":
        return config.boot.efi_loader, "boot.efi_loader"
    return "", ""


def discovers_after(recent: Recent, now: float) -> int:
    """`Recent.discovers` with one more DISCOVER now. Copies of one come at once, by a second interface in the same
    network or by a relay beside the wire: they are one."""
    copy = recent.discovers and now - recent.last < PAUSE
    return recent.discovers if copy else recent.discovers + 1


def _style(
    request: BootRequest,
    family: str,
    pin: Pin,
    quirk: Quirk | None,
    recent: Recent | None,
    machine: Machine | None,
) -> tuple[str, str]:
    """Style and why: pinned > the last one, or the next one after SILENCE unanswered offers > the one that an earlier
    boot took > by quirk > the first."""
    order = styles_for(family, http=request.http, uboot=request.arch.uboot)
    if request.version == 6:
        return DHCP6, "DHCPv6 has no other"
    if request.http:
        return order[0], "HTTP boot has no other"
    if pin.style in STYLES:
        return pin.style, "pinned"
    if quirk is not None and quirk.set.style:
        order = (quirk.set.style, *(name for name in order if name != quirk.set.style))
    if recent is None or recent.style not in order:
        learnt = machine.facts.get(STYLE_FACT, "") if machine is not None else ""
        if learnt in order:
            return learnt, "its firmware took it in an earlier boot"
        return order[0], f"the first for {family}"
    if request.opening and recent.discovers and recent.discovers % SILENCE == 0:
        following = order[(order.index(recent.style) + 1) % len(order)]
        return following, f"{recent.discovers} offers brought no sign of life, {recent.style} was last"
    return recent.style, "as last time"
