"""The mounts of a container: LinuxKit's defaults, then tmpfs, binds and mounts; the last of a destination counts."""

from __future__ import annotations

from typing import Any

from pxeserver.checked import replace
from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.spec import ContainerSpec, IdMapping, Mount

# type -> where it is mounted when the spec does not say
_MOUNTPOINTS = {
    "proc": "/proc",
    "devpts": "/dev/pts",
    "sysfs": "/sys",
    "cgroup": "/sys/fs/cgroup",
    "mqueue": "/dev/mqueue",
}


def mount_json(mount: Mount) -> dict[str, Any]:
    """A mount object of runtime-spec 1.2, empty members left out."""
    body = {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
        "uidMappings": mappings_json(mount.uidmappings),
        "gidMappings": mappings_json(mount.gidmappings),
    }
    return {"destination": body.pop("destination"), **{k: v for k, v in body.items() if v}}


def mappings_json(mappings: tuple[IdMapping, ...]) -> list[dict[str, int]]:
    return [{"containerID": m.container_id, "hostID": m.host_id, "size": m.size} for m in mappings]


def mounts(merged: ContainerSpec, ctx: Context) -> list[dict[str, Any]]:
    """The `mounts` of config.json, sorted by destination so that /dev comes before /dev/pts."""
    table = {m.destination: m for m in _defaults(bool(merged.readonly))}
    for i, text in enumerate(merged.tmpfs or ()):
        mount = _tmpfs(text, i, ctx)
        table[mount.destination] = mount
    for i, text in enumerate(merged.binds or ()):
        mount = _bind(text, i, ctx)
        table[mount.destination] = mount
    for i, given in enumerate(merged.mounts or ()):
        mount = _mount(given, i, ctx)
        table[mount.destination] = mount
    return [mount_json(table[d]) for d in sorted(table)]


def _defaults(readonly: bool) -> tuple[Mount, ...]:
    ro = ("ro",) if readonly else ()
    return (
        _of("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k", *ro)),
        _of("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
        _of("/proc", "proc", "proc", ("nosuid", "nodev", "noexec", "relatime")),
        _of("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", *ro)),
        _of("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
    )


def _of(destination: str, kind: str, source: str, options: tuple[str, ...]) -> Mount:
    return Mount(destination=destination, type=kind, source=source, options=options)


def _tmpfs(text: str, index: int, ctx: Context) -> Mount:
    destination, colon, options = text.partition(":")
    if ":" in options:
        raise ctx.fault(
            "bad-tmpfs", f'cannot read tmpfs "{text}": more than one colon', "tmpfs", index, hint="DST[:OPTIONS]"
        )
    return _of(destination, "tmpfs", "tmpfs", tuple(options.split(",")) if colon else ())


def _bind(text: str, index: int, ctx: Context) -> Mount:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        fault = "no colon" if len(parts) < 2 else "more than two colons"
        raise ctx.fault("bad-bind", f'cannot read bind "{text}": {fault}', "binds", index, hint="SRC:DST[:OPTIONS]")
    options = (*parts[2].split(","), "rbind") if len(parts) == 3 else ("rw", "rbind", "rshared")
    return _of(parts[1], "bind", parts[0], options)


def _mount(given: Mount, index: int, ctx: Context) -> Mount:
    """What the spec leaves out is taken from what it says: type, source and destination name each other."""
    kind = given.type or (given.source if given.source in _MOUNTPOINTS else "")
    if not kind and given.destination == "/dev":
        kind = "tmpfs"
    if not kind:
        name = given.destination or given.source
        raise ctx.fault("bad-mount", f'the mount on "{name}" has no type', "mounts", index, "type")
    destination = given.destination or _MOUNTPOINTS.get(kind, "")
    if not destination:
        raise ctx.fault("bad-mount", f'the mount of type "{kind}" has no destination', "mounts", index, "destination")
    full = {"type": kind, "source": given.source or kind, "destination": destination}
    if ctx.strict:  # LinuxKit forgets the id mappings of a container's mounts
        full |= {"uidmappings": (), "gidmappings": ()}  # type: ignore[dict-item]
    return replace(given, **full)
