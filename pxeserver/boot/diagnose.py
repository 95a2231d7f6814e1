"""What a boot is stuck on, from its events: a named cause with evidence and what to do. Pure; `now` is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pxeserver.boot.preflight import memory_need
from pxeserver.model import STAGES, Event, Image, Machine, Result, Stage

LOOP_CYCLES = 2
OFFERS_MAX = 3

# Seconds of silence after a stage that are normal; the slowest seen, doubled. iPXE waits for routers and for links that
# spanning tree blocks, and a large initrd takes its time to unpack.
PATIENCE: Mapping[Stage, float] = {
    Stage.OFFER: 30,
    Stage.LOADER: 120,
    Stage.SCRIPT: 120,
    Stage.KERNEL: 300,
    Stage.INITRD: 300,
    Stage.NETWORK: 300,
    Stage.CONTAINERD: 300,
}
WAIT_PATIENCE = 120.0  # a waiting machine asks every few seconds and is written down every 30
STOPPED_PATIENCE = 15.0  # after a broken transfer; iPXE and we retry within this

# slug -> what to do about it; MACHINE becomes its name. docs/errors.md explains each.
FIXES: Mapping[str, str] = {
    "no-offer-uptake": "look for a second boot server here (pxeserver doctor); try pxeserver pin MACHINE style=late",
    "other-boot-server": "take the boot options (66, 67, next-server, PXEClient) away from that server",
    "loader-not-fetched": "let UDP port 69 and the ports above 1024 of this server through the firewall",
    "loader-stopped": "look for packet loss; behind a tunnel set tftp.blksize_max to 1400 or less",
    "loader-loop": "try another loader: pxeserver pin MACHINE loader=ipxe.efi (UEFI) or loader=ipxe.pxe (BIOS)",
    "loader-silent": "it may not know this network card: pxeserver pin MACHINE loader=ipxe.efi, or newer loaders",
    "script-not-fetched": "let the boot HTTP port (http.port) through the firewall, and look at the machine's address",
    "not-assigned": "pxeserver assign MACHINE SPEC",
    "went-away": "it was switched off, or its screen tells more; power it on again once it has an image",
    "refused": "the message says what is missing",
    "kernel-not-fetched": "look at the machine's screen: iPXE shows why",
    "kernel-stopped": "look for packet loss, or whether the machine was switched off",
    "initrd-not-fetched": "look at the machine's screen: iPXE shows why; the memory may be too small",
    "initrd-stopped": "look for packet loss, or whether the machine was switched off or its memory is too small",
    "initrd-cut-short": "give the machine more memory, or make the image smaller",
    "no-network": "look at the console (add console=ttyS0); the kernel may lack a driver, or a DHCP client in the spec",
    "no-containerd": "look at the console: an onboot container may have failed",
    "not-up": "look at the console: a service may have failed; an image without our agent ends at network",
    "replaced": "look at the console of the next boot; a watchdog, a panic or a person may have restarted it",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """`slug` is listed in docs/errors.md; `evidence` are the facts that led to it, one a line."""

    slug: str
    text: str
    evidence: tuple[str, ...] = ()
    fix: str = ""


def diagnose(
    events: Sequence[Event],
    machine: Machine | None,
    image: Image | None,
    now: float,
    *,
    result: Result = Result.OPEN,
) -> Cause | None:
    """The cause of one boot's trouble, None if there is none (yet). `events` are the boot's, in order of time.

    A boot whose `result` is already "stuck" gets its cause without further patience.
    """
    cause = _find(events, machine, image, now, result) if events else None
    if cause is None:
        return None
    name = (machine.name if machine is not None else "") or events[-1].mac
    return replace(cause, fix=cause.fix.replace("MACHINE", name))


def _find(
    events: Sequence[Event], machine: Machine | None, image: Image | None, now: float, result: Result
) -> Cause | None:
    reached = max((event.stage for event in events if event.stage is not None), key=STAGES.index, default=Stage.OFFER)
    if reached is Stage.UP or result in (Result.UP, Result.LOCAL, Result.NETWORK_ONLY):
        return None
    reported = next((event for event in reversed(events) if event.kind == "cause" and event.data.get("cause")), None)
    if reported is not None:
        slug = reported.data["cause"]
        return _cause(slug, reported.text or slug, "the machine reported it itself")
    silence = math.inf if result is Result.STUCK else now - max(event.at for event in events)
    loop = _loop(events)
    if loop is not None:
        return loop
    if result is Result.REPLACED:
        return _replaced(machine, image, reached)
    stopped = _stopped(events)
    if stopped is not None and silence >= STOPPED_PATIENCE:
        return stopped
    if reached is Stage.OFFER:
        return _offer(events, silence)
    if reached is Stage.LOADER:
        return _loader(events, silence)
    if reached is Stage.SCRIPT:
        return _script(events, silence)
    if silence < PATIENCE[reached]:
        return None
    if reached is Stage.INITRD:
        return _cut_short(machine, image) or _late(events, reached)
    return _late(events, reached)


def _cause(slug: str, text: str, *evidence: str) -> Cause:
    return Cause(slug, text, tuple(line for line in evidence if line), FIXES.get(slug, ""))


def _what(event: Event, what: str) -> bool:
    return event.kind == "note" and event.data.get("what") == what


def _loop(events: Sequence[Event]) -> Cause | None:
    """Loaders fetched one after another with no script asked for between them."""
    cycles, name = 0, ""
    for event in events:
        if event.stage is Stage.LOADER:
            cycles, name = cycles + 1, event.data.get("loader", "") or name
        elif event.stage is not None and event.stage is not Stage.OFFER:
            cycles = 0
    if cycles < LOOP_CYCLES:
        return None
    who = name or "the loader"
    return _cause(
        "loader-loop",
        f"{who} returned to the firmware without asking for its script, {cycles} times",
        f"{who} was sent whole {cycles} times, a script never after it",
    )


def _stopped(events: Sequence[Event]) -> Cause | None:
    """The last broken transfer, unless the file came through later."""
    for event in reversed(events):
        if event.stage in (Stage.LOADER, Stage.KERNEL, Stage.INITRD):
            return None
        file = event.data.get("file", "")
        if _what(event, "stopped") and file in ("loader", "kernel", "initrd"):
            size = event.data.get("size", "")
            of = f" of {size}" if size else ""
            return _cause(
                f"{file}-stopped",
                f"the {file} stopped after {event.bytes}{of} bytes",
                f"to {event.peer}" if event.peer else "",
                event.text,
            )
    return None


def _offer(events: Sequence[Event], silence: float) -> Cause | None:
    offers = [event for event in events if event.stage is Stage.OFFER]
    if silence < PATIENCE[Stage.OFFER] and len(offers) < OFFERS_MAX:
        return None
    styles = ", ".join(dict.fromkeys(event.data["style"] for event in offers if event.data.get("style")))
    tried = f"{len(offers)} answers" + (f", styles {styles}" if styles else "")
    asked_again = any(event.data.get("port") == "4011" for event in offers)
    if not asked_again and not (offers and offers[-1].data.get("kind") == "script"):
        rival = next((event for event in reversed(events) if _what(event, "other-server")), None)
        if rival is not None:
            return _cause("other-boot-server", "the firmware took another server's offer, not ours", rival.text, tried)
        return _cause("no-offer-uptake", "the firmware took none of the offers", tried)
    if silence < PATIENCE[Stage.OFFER]:
        return None
    if offers[-1].data.get("kind") == "script":
        return _cause("script-not-fetched", "iPXE was given the script's address and never asked for it", tried)
    return _cause("loader-not-fetched", "the firmware took the offer and never fetched the loader", tried)


def _loader(events: Sequence[Event], silence: float) -> Cause | None:
    if silence < PATIENCE[Stage.LOADER]:
        return None
    last = max(n for n, event in enumerate(events) if event.stage is Stage.LOADER)
    name = events[last].data.get("loader", "the loader")
    if any(event.stage is Stage.OFFER and event.data.get("kind") == "script" for event in events[last + 1 :]):
        return _cause(
            "script-not-fetched",
            f"{name} runs and was given the script's address, and never asked for it",
            "nothing heard since",
        )
    return _cause("loader-silent", f"{name} was fetched and never asked DHCP", "nothing heard since")


def _script(events: Sequence[Event], silence: float) -> Cause | None:
    last = next(event for event in reversed(events) if event.stage is Stage.SCRIPT)
    action = last.data.get("action", "")
    if action == "wait" and silence >= WAIT_PATIENCE:
        return _cause("went-away", "the machine stopped asking while it waited for an image")
    if action == "queued":
        asks = float(last.data.get("seconds") or 0)
        gone = silence >= WAIT_PATIENCE + asks
        return _cause("went-away", "the machine stopped asking while it waited for its turn") if gone else None
    if action == "wait":
        return _cause("not-assigned", "the machine waits for an image", last.text)
    if action == "refuse":
        return _cause("refused", last.text or "the server refused this boot")
    if action == "local" or silence < PATIENCE[Stage.SCRIPT]:
        return None
    if action == "entry":
        return _cause("script-not-fetched", "the first script was sent, the second never asked for")
    return _cause("kernel-not-fetched", "the script was sent, the kernel never fetched whole")


def _cut_short(machine: Machine | None, image: Image | None) -> Cause | None:
    """Too little memory explains a system that says nothing: init reports it only if it still can."""
    if machine is None or image is None or not machine.memory_mib:
        return None
    need = memory_need(image, efi=machine.facts.get("firmware") == "efi")
    if machine.memory_mib >= need:
        return None
    return _cause(
        "initrd-cut-short",
        "initrd cut short, probably: the machine has too little memory for this image",
        f"memory {machine.memory_mib} MiB, {image.short} wants {need} MiB",
    )


def _late(events: Sequence[Event], reached: Stage) -> Cause:
    slug, text = {
        Stage.KERNEL: ("initrd-not-fetched", "the kernel was sent, the initrd never fetched whole"),
        Stage.INITRD: ("no-network", "kernel and initrd were sent, the system never showed up on the network"),
        Stage.NETWORK: ("no-containerd", "the network is up, containerd never was"),
    }.get(reached, ("not-up", "containerd runs, but the services are not up"))
    handed = any(event.stage in (Stage.KERNEL, Stage.INITRD) and event.data.get("proxy") for event in events)
    blind = "a proxy sends the files: whether they arrived stands in its log" if handed else ""
    return _cause(slug, text, "nothing heard since", blind)


def _replaced(machine: Machine | None, image: Image | None, reached: Stage) -> Cause:
    if reached is Stage.INITRD:
        cut = _cut_short(machine, image)
        if cut is not None:
            return cut
    return _cause("replaced", f"the machine started anew before this boot was up; it had come to {reached.value}")
