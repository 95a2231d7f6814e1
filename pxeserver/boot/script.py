"""iPXE scripts from templates/ipxe/*.j2: what a machine reads and does. Pure but for reading the templates.

Every value that a template prints is checked: nothing that iPXE would read as its own syntax gets in (`text.printed`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pxeserver.boot import cmdline, personal, preflight
from pxeserver.boot.admission import Wait
from pxeserver.boot.answer import SCRIPT
from pxeserver.boot.profile import LOCAL_BOOT_VAR, Profile
from pxeserver.boot.text import Checked, printed, shown
from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError, Where, did_you_mean
from pxeserver.mac import Mac
from pxeserver.model import Machine
from pxeserver.resources import shipped

SUFFIX = ".ipxe.j2"
INITRD = "initrd.img"
KERNEL = "kernel"
EFI, BIOS = "efi", "pcbios"
LOCAL_METHODS = ("exit", "exit1", "sanboot")
# UEFI shows its menu after a plain exit and goes on to the next entry after `exit 1`; BIOSes differ, so their disk is
# started directly.
_LOCAL_DEFAULT = {EFI: "exit1", BIOS: "sanboot"}


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """Who asks and where we are. `base_url`: `http://ADDR:PORT`; `platform`: iPXE's own word, "" if it did not say."""

    base_url: str
    token: str
    mac: Mac
    platform: str = ""
    poll_seconds: int = 5
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def boot_url(self) -> str:
        return f"{self.base_url}/boot/{self.token}" if self.token else f"{self.base_url}/boot"


def cmdline_for(profile: Profile, ctx: ScriptContext) -> tuple[cmdline.Part, ...]:
    """The profile's parameters and what every boot needs: BOOTIF, pxeserver.url and, for UEFI, initrd=."""
    own = [f"BOOTIF=01-{ctx.mac.replace(':', '-')}", f"pxeserver.url={ctx.boot_url}"]
    if ctx.platform != BIOS:
        own.append(f"initrd={INITRD}")  # by which the kernel's EFI stub finds it
    parts = [part for part in profile.cmdline_parts if part.key not in ("BOOTIF", "pxeserver.url", "initrd")]
    return (*parts, *(cmdline.Part(text, "server") for text in own))


def render(
    profile: Profile,
    machine: Machine | None,
    ctx: ScriptContext,
    templates: Sequence[Path] = (),
    *,
    wait: Wait | None = None,
) -> str:
    """The script of one machine; with `wait` the one that asks again when the link has room.

    `templates` are the user's folders, searched before the shipped one. Raises NotFound (`template-not-found`),
    UsageError (`template-syntax`, `template-undefined`, `template-failed`, `template-not-ipxe`) or Refused
    (`script-bad-value`, `cmdline-*`, `personal-*`); answer those with `failure`.
    """
    values = context(profile, machine, ctx)
    if wait is not None:
        values |= {"poll_seconds": wait.seconds, "problem": wait.reason}
    name: str = profile.action if wait is None else "busy"
    if name == "boot" and machine is not None and machine.template:
        name = machine.template.removesuffix(SUFFIX)
    elif name == "ignore":
        name = "local"  # its policy changed under way: it must go on by itself
    return _render(f"{name}{SUFFIX}", values, templates)


def context(profile: Profile, machine: Machine | None, ctx: ScriptContext) -> dict[str, Any]:
    """Every variable of the templates; docs/templates.md explains them."""
    image = profile.image
    values: dict[str, Any] = {
        **_common(ctx),
        "title": _title(machine, ctx.mac),
        "mac": ctx.mac,
        "machine": _machine(machine, ctx.mac),
        "facts": dict(ctx.facts),
        "platform": ctx.platform,
        "action": profile.action,
        "problem": profile.problem,
        "local_method": _local_method(machine, ctx.platform),
        "boot_url": ctx.boot_url,
        "base_url": ctx.base_url,
        "memory_mib": (machine.memory_mib if machine is not None else None) or 0,
    }
    if image is None:
        return values
    cmdline_parts = cmdline_for(profile, ctx)
    config = ctx.token != "" and personal.wanted(machine)
    if config:
        personal.check(machine)
        cmdline.join((*cmdline_parts, cmdline.Part(f"initrd={personal.NAME}", "server")))  # the template adds it
    return values | {
        "image": {"spec": image.spec, "digest": image.digest, "short": image.short, "arch": image.arch},
        "kernel_url": _blob_url(ctx, image.kernel.digest, KERNEL),
        "initrd_url": _blob_url(ctx, image.initrd.digest, INITRD),
        "cmdline": Checked(cmdline.join(cmdline_parts)),
        "config_url": f"{ctx.boot_url}/{personal.NAME}" if config else "",
        "memory_need": preflight.memory_need(image, efi=ctx.platform != BIOS),
    }


def entry(url: str, *, poll_seconds: int = 5, templates: Sequence[Path] = ()) -> str:
    """The first of two scripts: chains to `url`, the same script's, with the machine's facts as a query."""
    return _render(f"entry{SUFFIX}", {"script_url": url, "poll_seconds": poll_seconds}, templates)


def autoexec(base_url: str, *, poll_seconds: int = 5, templates: Sequence[Path] = ()) -> str:
    """`autoexec.ipxe`: as `entry`, for an iPXE that has no token and perhaps no address yet."""
    url = f"{base_url}/boot/{SCRIPT}"
    return _render(f"autoexec{SUFFIX}", {"script_url": url, "poll_seconds": poll_seconds}, templates)


def failure(problem: PxeServerError | str, ctx: ScriptContext, machine: Machine | None = None) -> str:
    """A script that shows the reason on the machine's screen and asks again; always from the shipped templates."""
    text = f"{problem.message} ({problem.slug})" if isinstance(problem, PxeServerError) else problem
    values = {**_common(ctx), "title": _title(machine, ctx.mac), "problem": text}
    return _render(f"refuse{SUFFIX}", values, ())


def stamp(templates: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Another value once a template of these folders, or a shipped one, has changed: names, times and sizes."""
    found = []
    for folder in _folders(templates):
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                try:
                    stat = os.stat(path)
                except OSError:  # taken away meanwhile
                    continue
                found.append((path, stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))


def _folders(templates: Sequence[Path]) -> list[Path]:
    return [*(folder / "ipxe" for folder in templates), shipped("templates") / "ipxe"]


def _common(ctx: ScriptContext) -> dict[str, Any]:
    return {"script_url": f"{ctx.boot_url}/{SCRIPT}", "poll_seconds": ctx.poll_seconds}


def _title(machine: Machine | None, mac: Mac) -> str:
    return f"{machine.name} ({mac})" if machine is not None and machine.name else mac


def _machine(machine: Machine | None, mac: Mac) -> dict[str, Any]:
    if machine is None:
        return {"name": "", "macs": (mac,), "labels": {}, "vars": {}, "arch": ""}
    return {
        "name": machine.name,
        "macs": machine.macs,
        "labels": dict(machine.labels),
        "vars": dict(machine.vars),
        "arch": machine.arch,
    }


def _local_method(machine: Machine | None, platform: str) -> str:
    chosen = machine.vars.get(LOCAL_BOOT_VAR, "") if machine is not None else ""
    return chosen if chosen in LOCAL_METHODS else _LOCAL_DEFAULT.get(platform, "exit1")


def _blob_url(ctx: ScriptContext, digest: str, name: str) -> str:
    query = f"?boot={ctx.token}" if ctx.token else ""
    return f"{ctx.base_url}/b/{digest.removeprefix('sha256:')}/{name}{query}"


@lru_cache(maxsize=16)
def _environment(folders: tuple[Path, ...]) -> ImmutableSandboxedEnvironment:
    """One per set of folders: Jinja keeps the compiled templates in it and looks at their times."""
    found = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(_folders(folders)),
        undefined=jinja2.StrictUndefined,
        finalize=printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["shown"] = shown
    return found


def _render(name: str, values: Mapping[str, Any], templates: Sequence[Path]) -> str:
    environment = _environment(tuple(templates))
    try:
        text = environment.get_template(name).render(values)
    except jinja2.TemplateNotFound as error:
        known = [known.removesuffix(SUFFIX) for known in environment.list_templates() if known.endswith(SUFFIX)]
        wanted = (error.name or name).removesuffix(SUFFIX)
        raise NotFound(
            "template-not-found",
            f'no iPXE template "{wanted}"{did_you_mean(wanted, known)}',
            hint="templates are: " + ", ".join(sorted(known)),
        ) from None
    except jinja2.TemplateSyntaxError as error:
        where = Where(error.filename or error.name or name, error.lineno)
        raise UsageError("template-syntax", f"{error.message}", where=where) from None
    except jinja2.UndefinedError as error:
        raise UsageError(
            "template-undefined",
            f"{error.message}",
            hint="docs/templates.md lists the variables",
            where=Where(name),
        ) from None
    except Refused:
        raise
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError("template-failed", f"{type(error).__name__}: {error}", where=Where(name)) from None
    if not text.startswith("#!ipxe\n"):
        raise UsageError(
            "template-not-ipxe", "the first line must be #!ipxe, or iPXE takes it for no script", where=Where(name)
        )
    return text
