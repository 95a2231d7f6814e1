"""Whether firmware is given the image itself, as one EFI program, instead of a loader. Pure.

A unified kernel image holds its command line, the same for every machine: no token is in it. The booted system finds
its server by asking (`boot.find`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pxeserver.boot.profile import Profile
from pxeserver.boot.request import BootRequest
from pxeserver.config import Config
from pxeserver.model import UKI, Blob, Machine, Reason

NAME = "uki.efi"  # the file's name in URLs and by TFTP


@dataclass(frozen=True, slots=True)
class Whole:
    """`blob` is set when the image itself is offered; `problem` when the machine is pinned to it and cannot have it."""

    blob: Blob | None = None
    reason: Reason | None = None
    problem: str = ""


_NOT = Whole()


def path(digest: str) -> str:
    """Where HTTP and TFTP have it."""
    return f"b/{digest.removeprefix('sha256:')}/{NAME}"


def choose(request: BootRequest, family: str, machine: Machine | None, chosen: Profile, config: Config) -> Whole:
    """A pin decides; without one, UEFI HTTP boot takes the image's UKI when nothing needs a script."""
    pin = machine.pin.loader if machine is not None else ""
    by_itself = request.http and not request.arch.uboot  # U-Boot can start EFI programs, or was built without
    if request.ipxe or family == "bios" or (pin and pin != UKI) or not (pin or by_itself):
        return _NOT
    image = chosen.image
    if image is None:
        return Whole(problem="pinned to its image's UKI, and there is no image for it now") if pin else Whole()
    if image.uki is None:
        hint = f"make one: pxeserver images uki {image.short}"
        return Whole(problem=f"pinned to its image's UKI, and {image.short} has none ({hint})") if pin else Whole()
    if request.arch.goarch != image.arch:
        problem = f"the UKI of {image.short} is for {image.arch}, this firmware is {request.arch.name}"
        return Whole(problem=problem) if pin else Whole(reason=Reason("uki", problem))
    edits = _edits(machine, chosen, config)
    if pin:
        lost = f", without the edits of its command line ({edits})" if edits else ""
        return Whole(image.uki, Reason("uki", f"pinned to the UKI of {image.short}{lost}"))
    if edits:
        return Whole(reason=Reason("uki", f"not the UKI of {image.short}: only a script can carry {edits}"))
    return Whole(image.uki, Reason("uki", f"HTTP boot, and {image.short} has a UKI"))


def _edits(machine: Machine | None, chosen: Profile, config: Config) -> str:
    """What a script would add to the image's own command line, "" for nothing."""
    own = machine.cmdline if machine is not None else ()
    args = chosen.assignment.args if chosen.assignment is not None else ()
    return " ".join((*config.defaults.cmdline, *own, *args))
