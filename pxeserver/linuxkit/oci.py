"""A container's config.json, byte for byte what LinuxKit writes (runtime-spec 1.2.1)."""

from __future__ import annotations

from typing import Any

from pxeserver.linuxkit import capabilities, gojson, limits, namespaces
from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.entries import ImageDefaults
from pxeserver.linuxkit.mounts import mappings_json, mounts
from pxeserver.linuxkit.spec import ContainerSpec

VERSION = "1.2.1"


def config_json(merged: ContainerSpec, image: ImageDefaults, ctx: Context) -> bytes:
    """`merged` has the label merged in and its volumes resolved. UsageError at the field that makes no sense."""
    body: dict[str, Any] = {"ociVersion": VERSION, "process": _process(merged, image, ctx), "root": {"path": "rootfs"}}
    if merged.readonly:
        body["root"]["readonly"] = True
    if merged.hostname:
        body["hostname"] = merged.hostname
    body["mounts"] = mounts(merged, ctx)
    if merged.annotations:
        body["annotations"] = gojson.sorted_map(merged.annotations)
    body["linux"] = _linux(merged, ctx)
    return gojson.dumps(body)


def _process(merged: ContainerSpec, image: ImageDefaults, ctx: Context) -> dict[str, Any]:
    """The image's User is not looked at: LinuxKit runs what does not say otherwise as root."""
    user: dict[str, Any] = {"uid": ctx.numeric(merged.uid, "uid"), "gid": ctx.numeric(merged.gid, "gid")}
    groups = [ctx.numeric(g, "additionalGids", i) for i, g in enumerate(merged.additional_gids or ())]
    if groups:
        user["additionalGids"] = groups
    args = (*image.entrypoint, *image.cmd) if merged.command is None else merged.command
    env = image.env if merged.env is None else merged.env
    body: dict[str, Any] = {"user": user}
    if args:
        body["args"] = list(args)
    if env:
        body["env"] = list(env)
    body["cwd"] = merged.cwd or image.working_dir or "/"
    body["capabilities"] = capabilities.sets(merged.capabilities or (), merged.ambient or (), ctx)
    if merged.rlimits:
        body["rlimits"] = limits.rlimits(merged.rlimits, ctx)
    if merged.no_new_privileges:
        body["noNewPrivileges"] = True
    if merged.oom_score_adj is not None:
        body["oomScoreAdj"] = merged.oom_score_adj
    return body


def _linux(merged: ContainerSpec, ctx: Context) -> dict[str, Any]:
    given = merged.devices or ()
    nodes = limits.devices(given, ctx)
    body = {
        "uidMappings": mappings_json(merged.uid_mappings or ()),
        "gidMappings": mappings_json(merged.gid_mappings or ()),
        "sysctl": gojson.sorted_map(merged.sysctl or {}),
        "resources": limits.resources(merged.resources, given),
        "cgroupsPath": merged.cgroups_path,
        "namespaces": namespaces.namespaces(merged, ctx),
        "devices": nodes,
        "rootfsPropagation": merged.rootfs_propagation,
        "maskedPaths": list(merged.masked_paths or ()),
        "readonlyPaths": list(merged.readonly_paths or ()),
    }
    return {k: v for k, v in body.items() if v or k == "resources"}
