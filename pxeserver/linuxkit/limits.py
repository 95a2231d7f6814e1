"""Resources, devices and rlimits of a container, as config.json has them (runtime-spec 1.2, config-linux.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pxeserver.checked import plain
from pxeserver.errors import did_you_mean
from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.spec import BlockIo, Device, DeviceRule, HugepageLimit, Network, Part, Resources

UNLIMITED = (1 << 64) - 1
_RLIMITS = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
RLIMITS = tuple(_RLIMITS.split())
_OCTAL = re.compile(r"\+?[0-7]{1,11}")


def octal(text: str) -> int | None:
    """The mode that "0644" means; None when it is not an octal number below 2^31."""
    value = int(text, 8) if _OCTAL.fullmatch(text) else 1 << 31
    return value if value < 1 << 31 else None


def resources(given: Resources | None, devices: Sequence[Device]) -> dict[str, Any]:
    """The `linux.resources` object: always there, what is not set left out. Each device brings its own rule."""
    given = given or Resources()
    rules = [_rule(r) for r in given.devices] + [_own_rule(d) for d in devices]
    body = {
        "devices": rules,
        "memory": _members(given.memory),
        "cpu": _members(given.cpu),
        "pids": {"limit": given.pids.limit} if given.pids else None,
        "blockIO": _blockio(given.blockio),
        "hugepageLimits": [_hugepages(h) for h in given.hugepage_limits],
        "network": _network(given.network),
    }
    return {k: v for k, v in body.items() if v is not None and v != []}


def _members(part: Part | None) -> dict[str, Any] | None:
    """The set members under their own names; {} when the part is there but says nothing."""
    if part is None:
        return None
    return {k: v for k, v in plain(part, keys=True, none=False).items() if v != ""}


def _rule(rule: DeviceRule) -> dict[str, Any]:
    return {"allow": rule.allow, **{k: v for k, v in (_members(rule) or {}).items() if k != "allow"}}


def _own_rule(device: Device) -> dict[str, Any]:
    kind = {"type": device.type} if device.type else {}
    numbers = {} if device.path == "all" else {"major": device.major, "minor": device.minor}
    return {"allow": True, **kind, **numbers, "access": "rwm"}


def _blockio(given: BlockIo | None) -> dict[str, Any] | None:
    if given is None:
        return None
    body = plain(given, keys=True, none=False)
    return {k: v for k, v in body.items() if v != []}


def _hugepages(limit: HugepageLimit) -> dict[str, Any]:
    """The kernel knows page sizes as "2MB": the largest unit that goes in without a rest."""
    size, unit = limit.page_size, 0
    while size and size % 1024 == 0 and unit < 3:
        size, unit = size // 1024, unit + 1
    return {"pageSize": f"{size}{('', 'K', 'M', 'G')[unit]}B", "limit": limit.limit}


def _network(given: Network | None) -> dict[str, Any] | None:
    if given is None:
        return None
    class_id = {} if given.class_id is None else {"classID": given.class_id}
    priorities = [{"name": p.name, "priority": p.priority} for p in given.priorities]
    return {**class_id, **({"priorities": priorities} if priorities else {})}


def devices(given: Sequence[Device], ctx: Context) -> list[dict[str, Any]]:
    """The `linux.devices` list; path "all" makes no node, only a rule."""
    found = []
    for i, device in enumerate(given):
        if device.path == "all":
            continue
        mode = octal(device.mode)
        if mode is None:
            text = f'the device "{device.path}" needs an octal mode, not "{device.mode}"'
            raise ctx.fault("bad-mode", text, "devices", i, "mode", hint='for example mode: "0660"')
        node = {"path": device.path, "type": device.type, "major": device.major, "minor": device.minor}
        found.append({**node, "fileMode": mode})
    return found


def rlimits(given: Sequence[str], ctx: Context) -> list[dict[str, Any]]:
    """The `process.rlimits` list of texts such as "nofile,1024,unlimited" (name, soft, hard)."""
    found = []
    for i, text in enumerate(given):
        parts = [p.strip() for p in text.split(",", 2)]
        if len(parts) != 3:
            raise ctx.fault("bad-rlimit", f'cannot read rlimit "{text}"', "rlimits", i, hint="NAME,SOFT,HARD")
        name = parts[0].upper().removeprefix("RLIMIT_")
        soft, hard = (_limit(p, text, i, ctx) for p in parts[1:])
        if name not in RLIMITS:
            near = did_you_mean(name, RLIMITS)
            raise ctx.fault("bad-rlimit", f'unknown limit "{parts[0]}" in rlimit "{text}"{near}', "rlimits", i)
        found.append({"type": f"RLIMIT_{name}", "hard": hard, "soft": soft})
    return found


def _limit(text: str, whole: str, index: int, ctx: Context) -> int:
    if text.lower() == "unlimited":
        return UNLIMITED
    value = int(text) if re.fullmatch(r"[0-9]{1,20}", text) else UNLIMITED + 1
    if value > UNLIMITED:
        message = f'"{text}" in rlimit "{whole}" is no limit'
        raise ctx.fault("bad-rlimit", message, "rlimits", index, hint="a number from 0, or unlimited")
    return value
