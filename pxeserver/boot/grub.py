"""GRUB's configuration for one machine: what a signed GRUB reads by TFTP where iPXE would read its script. Pure.

GRUB asks `grub/grub.cfg-01-aa-bb-cc-dd-ee-ff`, then names made of its address, then `grub/grub.cfg` (GRUB manual,
"Network"). Every path in here names our own address: GRUB's own idea of its server is the next-server of the site's
DHCP.
"""

from __future__ import annotations

import re

from pxeserver.boot.profile import Profile
from pxeserver.boot.script import INITRD, KERNEL, ScriptContext, cmdline_for
from pxeserver.boot.text import shown
from pxeserver.errors import Refused
from pxeserver.mac import Mac
from pxeserver.model import Machine

LOADERS = ("shimx64.efi", "grubx64.efi")  # a machine with one of these reads this configuration
_NAME = re.compile(r"(?:.*/)?grub\.cfg(?:-01((?:-[0-9a-f]{2}){6}))?", re.IGNORECASE)
_PAUSE = 10  # seconds, at least: each round stays in GRUB's memory


def asked(path: str) -> Mac | None:
    """The MAC in the name of a configuration, "" for a name without one, None for any other file."""
    found = _NAME.fullmatch(path)
    if found is None:
        return None
    return (found[1] or "")[1:].replace("-", ":").lower()


def render(profile: Profile, machine: Machine | None, ctx: ScriptContext, server: str) -> str:
    """The configuration. `server` is our address. Refused `script-bad-value`, `cmdline-*`: answer with `failure`."""
    if profile.action in ("local", "ignore"):
        return "exit\n"
    if profile.image is None:
        return failure(profile.problem or "waits for an image", machine, ctx, server)
    words = [word for part in cmdline_for(profile, ctx) if part.key != "initrd" for word in part.text.split()]
    kernel, initrd = profile.image.kernel.digest, profile.image.initrd.digest
    again = failure(f"{profile.image.short} did not start", machine, ctx, server)
    return _lines(
        _echo(f"{_title(machine, ctx)} boots {profile.image.short}"),
        f"linux {_blob(server, kernel, KERNEL)} {' '.join(map(_quoted, words))}",
        f"initrd {_blob(server, initrd, INITRD)}",
        "boot",
        again.rstrip("\n"),
    )


def failure(problem: str, machine: Machine | None, ctx: ScriptContext, server: str) -> str:
    """Shows the reason on the machine's screen and asks again."""
    return _lines(
        _echo(f"{_title(machine, ctx)}: {problem}"),
        f"sleep {max(ctx.poll_seconds, _PAUSE)}",
        f"configfile (tftp,{server})/grub/grub.cfg-01-{ctx.mac.replace(':', '-')}",
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _title(machine: Machine | None, ctx: ScriptContext) -> str:
    return f"{machine.name} ({ctx.mac})" if machine is not None and machine.name else ctx.mac


def _echo(text: str) -> str:
    return f"echo 'pxeserver: {shown(text).replace(chr(39), '?')}'"


def _blob(server: str, digest: str, name: str) -> str:
    return f"(tftp,{server})/b/{digest.removeprefix('sha256:')}/{name}"


def _quoted(word: str) -> str:
    """A word as it is. GRUB hands quotes on with a backslash before them, so there must be none."""
    if set(word) & set("'\"\\") or not word.isascii() or not word.isprintable():
        raise Refused(
            "script-bad-value",
            f"{word[:80]!r} cannot stand in GRUB's configuration: it holds a quote or is not plain ASCII",
            hint="boot this machine by iPXE or a UKI, or change its command line",
        )
    return f"'{word}'"
