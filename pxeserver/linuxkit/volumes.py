"""Volumes of a spec, and the binds and mounts of containers that name one instead of a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pxeserver.checked import replace
from pxeserver.errors import UsageError, did_you_mean
from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.spec import ContainerSpec, Mount, VolumeSpec

BASE = "containers/volumes"


def folder(name: str) -> str:
    return f"{BASE}/{name}".rstrip("/")


def resolve(container: ContainerSpec, volumes: Mapping[str, VolumeSpec], ctx: Context) -> ContainerSpec:
    """A source without a leading slash is a volume and becomes the path of its merged folder.

    Strict leaves the source of `mounts` as it is, as LinuxKit does by mistake: only the name is checked.
    """
    update: dict[str, Any] = {}
    for field, alias in (("binds", "binds"), ("binds_add", "binds.add")):
        given = getattr(container, field)
        if given is not None:
            update[field] = tuple(_bind(text, volumes, ctx, alias, i) for i, text in enumerate(given))
    if container.mounts is not None:
        update["mounts"] = tuple(_mount(m, volumes, ctx, i) for i, m in enumerate(container.mounts))
    return replace(container, **update)


def _bind(text: str, volumes: Mapping[str, VolumeSpec], ctx: Context, field: str, index: int) -> str:
    parts = text.split(":")
    if parts[0].startswith("/"):
        return text
    volume = _known(parts[0], volumes, ctx, field, index)
    options = parts[2] if len(parts) > 2 else ""
    read_only = options == "ro" if ctx.strict else "ro" in options.split(",")
    if volume.readonly and not read_only:
        raise _read_only(volume, ctx, field, index, f"{parts[0]}:{':'.join(parts[1:2]) or 'DST'}:ro")
    return ":".join((f"/{folder(volume.name)}/merged", *parts[1:]))


def _mount(mount: Mount, volumes: Mapping[str, VolumeSpec], ctx: Context, index: int) -> Mount:
    if mount.type != "bind" or mount.source.startswith("/"):
        return mount
    volume = _known(mount.source, volumes, ctx, "mounts", index)
    first = next((o for o in mount.options if o in ("ro", "rw")), "rw")
    if volume.readonly and first == "rw":
        raise _read_only(volume, ctx, "mounts", index, "options: [ro, bind]")
    return mount if ctx.strict else replace(mount, source=f"/{folder(volume.name)}/merged")


def _known(name: str, volumes: Mapping[str, VolumeSpec], ctx: Context, field: str, index: int) -> VolumeSpec:
    if name not in volumes:
        hint = "a path begins with a slash" + (f"; volumes are: {', '.join(volumes)}" if volumes else "")
        raise ctx.fault("unknown-volume", f'no volume "{name}"{did_you_mean(name, volumes)}', field, index, hint=hint)
    return volumes[name]


def _read_only(volume: VolumeSpec, ctx: Context, field: str, index: int, hint: str) -> UsageError:
    return ctx.fault("volume-readonly", f'volume "{volume.name}" is read-only', field, index, hint=hint)
