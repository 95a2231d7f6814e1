"""A machine's profile as a value for people: image, command line with origins, reasons, and the script if wanted."""

from __future__ import annotations

from pathlib import Path

from pxeserver.boot import profile as boot_profile
from pxeserver.boot import script
from pxeserver.boot.answer import url_host
from pxeserver.boot.cmdline import Part, join
from pxeserver.boot.profile import Profile
from pxeserver.config import Config
from pxeserver.errors import PxeServerError
from pxeserver.fleet.values import ProfileInfo, TextPart
from pxeserver.mac import Mac
from pxeserver.model import FleetView, Machine

# Stand for what is known only when the machine asks; RFC 5737 and 3849 keep the addresses free for that.
EXAMPLE_IP, EXAMPLE_IP6 = "192.0.2.1", "2001:db8::1"
EXAMPLE_TOKEN = "TOKEN"

_WORDS = {
    "wait": "a script that waits until an image is assigned",
    "local": "its local disk",
    "ignore": "no answer",
}


def own_ip(config: Config) -> str:
    """The address given to machines if the configuration fixes it, else one that stands for it."""
    return EXAMPLE_IP if config.server.advertise == "auto" else config.server.advertise


def own_ip6(config: Config) -> str:
    """The same for a machine that comes by IPv6."""
    return EXAMPLE_IP6 if config.server.advertise6 == "auto" else config.server.advertise6


def context(mac: Mac, machine: Machine | None, config: Config, token: str, ip: str) -> script.ScriptContext:
    """What the script is rendered with outside of a boot."""
    firmware = machine.facts.get("firmware", "") if machine else ""
    return script.ScriptContext(
        base_url=f"http://{url_host(ip)}:{config.http.told_port}",
        token=token,
        mac=mac,
        platform=script.BIOS if firmware == "bios" else script.EFI,
        poll_seconds=config.boot.poll_seconds,
    )


def words(profile: Profile) -> str:
    """What the machine gets, in a few words."""
    if profile.image is not None:
        return profile.image.short
    return _WORDS.get(profile.action, f"nothing: {profile.problem}")


def info(
    machine: Machine | None, mac: Mac, view: FleetView, config: Config, *, token: str = EXAMPLE_TOKEN, ip: str = ""
) -> ProfileInfo:
    """The whole profile with script; a fault in command line or template is told in `problem`, never raised."""
    found = boot_profile.profile(machine, mac, view, config)
    ctx = context(mac, machine, config, token, ip or own_ip(config))
    parts: tuple[Part, ...] = ()
    text, line, problem = "", "", found.problem
    try:
        if found.image is not None:
            parts = script.cmdline_for(found, ctx)
            line = join(parts)
        text = script.render(found, machine, ctx, tuple(map(Path, config.images.templates)))
    except PxeServerError as error:
        problem = str(error)
    image = found.image
    return ProfileInfo(
        action=found.action,
        policy=found.policy,
        gets=words(found),
        image=image.digest if image else "",
        short=image.short if image else "",
        kernel=image.kernel.digest if image else "",
        initrd=image.initrd.digest if image else "",
        initrd_size=image.initrd.size if image else 0,
        initrd_raw_size=image.initrd.raw_size if image else 0,
        cmdline=line,
        parts=tuple(TextPart(p.text, p.origin) for p in parts),
        template=machine.template if machine else "",
        script=text,
        reasons=found.reasons,
        problem=problem,
    )
