"""Which namespaces a container gets of its own: today's LinuxKit shares net, ipc, uts and user with the host."""

from __future__ import annotations

from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.spec import ContainerSpec

HOST = ("", "host", "root")


def namespaces(merged: ContainerSpec, ctx: Context) -> list[dict[str, str]]:
    """The `linux.namespaces` list in LinuxKit's order; a text that is no known word is the path of a namespace."""
    pid = merged.pid or "new"
    wanted = (
        ("network", "net", "new" if merged.net == "none" else merged.net),
        ("ipc", "ipc", merged.ipc),
        ("uts", "uts", merged.uts),
        ("pid", "pid", pid),
        ("user", "userns", merged.userns),
    )
    found = []
    for kind, field, value in wanted:
        if value in HOST:
            continue
        if value == "new":
            found.append({"type": kind})
            continue
        if not value.startswith("/"):
            ctx.warn(f'"{value}" is taken as the path of a namespace; known words are new, host and root', field)
        found.append({"type": kind, "path": value})
    return [*found, {"type": "mount"}]
