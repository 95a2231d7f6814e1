"""Capabilities of a container: "all", "none", or exact names (capabilities(7)), into runc's five sets."""

from __future__ import annotations

from collections.abc import Sequence

from pxeserver.errors import did_you_mean
from pxeserver.linuxkit.context import Context

# In the kernel's order, include/uapi/linux/capability.h
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
ALL = tuple(f"CAP_{name}" for name in _NAMES.split())


def sets(capabilities: Sequence[str], ambient: Sequence[str], ctx: Context) -> dict[str, list[str]]:
    """The `process.capabilities` object: empty sets are left out."""
    effective = _expand(capabilities, "capabilities", ctx)
    raised = _expand(ambient, "ambient", ctx)
    bounding = sorted({*effective, *raised})
    found = {
        "bounding": bounding,
        "effective": effective,
        "inheritable": bounding,
        "permitted": bounding,
        "ambient": raised,
    }
    return {name: list(caps) for name, caps in found.items() if caps}


def _expand(names: Sequence[str], field: str, ctx: Context) -> list[str]:
    if len(names) == 1 and names[0].lower() in ("all", "none"):
        return list(ALL) if names[0].lower() == "all" else []
    for i, name in enumerate(names):
        if name not in ALL:
            upper = name.upper() if name.upper().startswith("CAP_") else "CAP_" + name.upper()
            near = f' - did you mean "{upper}"?' if upper in ALL else did_you_mean(upper, ALL)
            hint = '"all" and "none" stand alone' if name.lower() in ("all", "none") else ""
            raise ctx.fault(
                "unknown-capability", f'unknown capability "{name}"{"" if hint else near}', field, i, hint=hint
            )
    return list(names)
