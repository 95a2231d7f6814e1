"""What one machine gets beside the image that it shares with others: a few files, by a second initrd.

/etc/hostname                  its name (or its variable `hostname`): LinuxKit's init, and ours, set it
/etc/pxeserver/metadata.json   what GET /boot/TOKEN/metadata says: name, labels, vars
/etc/pxeserver/url             http://ADDR:PORT/boot/TOKEN: good for this one boot
and the files of its variable `files`. Not below /run, /tmp or /var: init mounts over these.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pxeserver.errors import Refused
from pxeserver.mac import Mac
from pxeserver.model import Image, Machine
from pxeserver.units import size as size_text

NAME = "config.cpio"
HOSTNAME_VAR, FILES_VAR, KEYS_VAR, USER_VAR = "hostname", "files", "ssh_keys", "userdata"
TOTAL_MAX = 4 << 20  # bytes; what is larger belongs into the image
_HIDDEN = ("run", "tmp", "var", "dev", "proc", "sys")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_OWN = frozenset({"etc/hostname", "etc/pxeserver/metadata.json", "etc/pxeserver/url"})


@dataclass(frozen=True, slots=True)
class File:
    """`path` without a leading slash; owned by root."""

    path: str
    content: bytes
    mode: int = 0o600


def wanted(machine: Machine | None) -> bool:
    """True if there is anything that the image does not know."""
    return machine is not None and bool(machine.name or machine.vars)


def hostname(machine: Machine) -> str:
    """What the machine should call itself; "" if its name is no host name."""
    text = machine.vars.get(HOSTNAME_VAR, "") or machine.name.replace("_", "-")
    return text if _HOSTNAME.fullmatch(text) else ""


def authorized_keys(machine: Machine) -> str:
    """The variable `ssh_keys`, a key a line."""
    keys = [key.strip() for key in re.split(r"[\n,]", machine.vars.get(KEYS_VAR, ""))]
    return "".join(f"{key}\n" for key in keys if key)


def metadata(machine: Machine | None, mac: Mac, boot: str, image: Image | None) -> bytes:
    """What the booted system may know of itself, as JSON."""
    body: dict[str, object] = {"boot": boot, "mac": mac, "name": "", "macs": [], "labels": {}, "vars": {}}
    if machine is not None:
        body |= {"name": machine.name, "macs": list(machine.macs)}
        body |= {"labels": dict(machine.labels), "vars": dict(machine.vars)}
    body |= {"spec": image.spec if image else "", "image": image.digest if image else ""}
    return json.dumps(body, indent=1).encode() + b"\n"


def files(machine: Machine, body: bytes, url: str) -> tuple[File, ...]:
    """All files, in the order of their paths. Refused "personal-files", "personal-too-large"."""
    found = {file.path: file for file in _asked(machine)}
    name = hostname(machine)
    if name:
        found["etc/hostname"] = File("etc/hostname", f"{name}\n".encode(), 0o644)
    found["etc/pxeserver/metadata.json"] = File("etc/pxeserver/metadata.json", body)
    found["etc/pxeserver/url"] = File("etc/pxeserver/url", f"{url}\n".encode())
    size = sum(len(file.content) for file in found.values())
    if size > TOTAL_MAX:
        raise Refused(
            "personal-too-large",
            f"the files of {machine.name or machine.mac} are {size_text(size)}, at most {size_text(TOTAL_MAX)}",
            hint="what many machines share belongs into the image",
        )
    return tuple(found[path] for path in sorted(found))


def check(machine: Machine | None) -> None:
    """Refused, as `files` would, before the machine asks for them."""
    if machine is not None:
        files(machine, b"", "")


def _asked(machine: Machine) -> list[File]:
    """The variable `files`: {"/etc/motd": "text", "/usr/local/bin/x": {"content": "...", "mode": "0755"}}."""
    text = machine.vars.get(FILES_VAR, "")
    if not text:
        return []
    who = machine.name or machine.mac
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Refused("personal-files", f"the variable files of {who} is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refused("personal-files", f"the variable files of {who} must be a map of paths")
    return [_file(who, str(path), value) for path, value in given.items()]


def _file(who: str, path: str, value: Any) -> File:
    parts = path.strip("/").split("/")
    problem = ""
    mode = "0644"
    if isinstance(value, dict):
        mode = value.get("mode", mode)
        if set(value) - {"content", "mode"}:
            problem = "has keys other than content and mode"
        value = value.get("content")
    if not path.startswith("/") or {"", ".", ".."} & set(parts) or "\0" in path or len(path) > 1000:
        problem = "is no absolute path of a file"
    elif parts[0] in _HIDDEN:
        problem = f"is hidden as soon as init mounts /{parts[0]}; another folder, or `userdata`"
    elif "/".join(parts) in _OWN or path.startswith("/.pxeserver/"):
        problem = "is written by the server itself"
    elif not isinstance(value, str):
        problem = "must be text, or have content: text"
    elif not isinstance(mode, str) or not re.fullmatch(r"[0-7]{3,4}", mode):
        problem = 'needs a mode in octal, as text: "0644"'
    if problem:
        raise Refused("personal-files", f"in the variable files of {who}, {path} {problem}")
    return File("/".join(parts), value.encode("utf-8", "surrogateescape"), int(mode, 8))
