"""A container's runtime.json: what LinuxKit's `service` mounts, makes and binds before it starts the container."""

from __future__ import annotations

from typing import Any

from pxeserver.checked import fields
from pxeserver.linuxkit import gojson
from pxeserver.linuxkit.mounts import mount_json
from pxeserver.linuxkit.spec import BindNs, Interface, Runtime


def runtime_json(runtime: Runtime | None, folder: str, root: str, *, readonly: bool) -> bytes:
    """`root` is where the image's files are: in the container's own folder or in an earlier one's; no slash before."""
    given = runtime or Runtime()
    body = {
        "cgroups": list(given.cgroups or ()),
        "mounts": _rootfs(folder, root, readonly) + [mount_json(m) for m in given.mounts or ()],
        "mkdir": list(given.mkdir or ()),
        "interfaces": [_interface(i) for i in given.interfaces or ()],
        "bindNS": {name: getattr(given.bind_ns, name) or "" for name in fields(BindNs)},
        "namespace": given.namespace or "",
    }
    return gojson.dumps(body)


def _rootfs(folder: str, root: str, readonly: bool) -> list[dict[str, Any]]:
    """A read-only root is bound; a writable one is an overlay whose upper side is a private tmpfs."""
    if readonly:
        return [{"destination": f"/{folder}/rootfs", "source": f"/{root}", "options": ["bind"]}]
    tmp = f"/{folder}/tmp"
    layers = [f"lowerdir=/{root}", f"upperdir={tmp}/upper", f"workdir={tmp}/work"]
    return [
        {"destination": tmp, "type": "tmpfs", "source": "tmpfs"},
        {"destination": tmp, "options": ["remount", "private"]},
        {"destination": f"/{folder}/rootfs", "type": "overlay", "source": "overlay", "options": layers},
    ]


def _interface(given: Interface) -> dict[str, Any]:
    texts = {"name": given.name, "add": given.add, "peer": given.peer}
    return {**{k: v for k, v in texts.items() if v}, "createInRoot": given.create_in_root}
