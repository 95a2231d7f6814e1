"""Fields that LinuxKit checks and then loses: its loader looks for them under all-lower-case names.

A strict build loses them too, anything else keeps them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pxeserver.checked import plain, replace
from pxeserver.linuxkit.spec import BlockIo, ContainerConfig, Cpu, IdMapping, Memory, Mount, Network, Resources
from pxeserver.yamlpos import flatten

C = TypeVar("C", bound=ContainerConfig)


def drop(container: C) -> C:
    """`container` as LinuxKit understands it."""
    update: dict[str, Any] = {}
    for name in ("uid_mappings", "gid_mappings"):
        if getattr(container, name):
            update[name] = _mappings(getattr(container, name))
    if container.mounts:
        update["mounts"] = tuple(_mount(m) for m in container.mounts)
    if container.resources:
        update["resources"] = _resources(container.resources)
    if container.runtime and container.runtime.mounts:
        mounts = tuple(_mount(m) for m in container.runtime.mounts)
        update["runtime"] = replace(container.runtime, mounts=mounts)
    return replace(container, **update)


def lost(container: ContainerConfig) -> tuple[str, ...]:
    """The keys of `container` that LinuxKit would drop, dotted, each once; additions beside a written list too."""
    whole, kept = _leaves(container), _leaves(drop(container))
    names = [name for name, value in whole.items() if kept.get(name) != value]
    for name in ("capabilities", "binds"):
        if getattr(container, name) is not None and getattr(container, f"{name}_add") is not None:
            names.append(f"{name}.add")
    return tuple(names)


def _leaves(container: ContainerConfig) -> dict[str, Any]:
    return flatten(plain(container, keys=True, none=False, defaults=False))


def _mappings(mappings: tuple[IdMapping, ...]) -> tuple[IdMapping, ...]:
    return tuple(replace(m, host_id=0, container_id=0) for m in mappings)


def _mount(mount: Mount) -> Mount:
    changed = {"uidmappings": _mappings(mount.uidmappings), "gidmappings": _mappings(mount.gidmappings)}
    return replace(mount, **changed)


def _resources(given: Resources) -> Resources:
    update: dict[str, Any] = {"hugepage_limits": ()}
    if given.memory:
        kept = {"limit", "reservation", "swap", "kernel", "swappiness"}
        update["memory"] = Memory(**{name: getattr(given.memory, name) for name in kept})
    if given.cpu:
        kept = {"shares", "quota", "period", "cpus", "mems"}
        update["cpu"] = Cpu(**{name: getattr(given.cpu, name) for name in kept})
    if given.blockio:
        update["blockio"] = BlockIo(weight=given.blockio.weight)
    if given.network:
        update["network"] = Network(priorities=given.network.priorities)
    return replace(given, **update)
