"""The merged spec as a file inside the image: `files: [{path: ..., metadata: yaml}]`.

The members and their order are LinuxKit's Go structures, as its YAML and JSON encoders print them: in YAML the parts
of the runtime specification appear with every member under its all-lower-case name, in JSON without the empty ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pxeserver import yamlpos
from pxeserver.checked import fields, kinds, parts_in
from pxeserver.linuxkit import gojson, goyaml, lossy, reference
from pxeserver.linuxkit.limits import resources
from pxeserver.linuxkit.mounts import mappings_json, mount_json
from pxeserver.linuxkit.spec import (
    SECTIONS,
    BindNs,
    ContainerConfig,
    ContainerSpec,
    Device,
    FileSpec,
    IdMapping,
    Interface,
    Mount,
    Part,
    Resources,
    Runtime,
    Spec,
    VolumeSpec,
)


def render(spec: Spec, form: str, *, strict: bool = False) -> bytes:
    """`spec` as "yaml" or "json", its references expanded but those of volumes.

    Strict: without the fields that LinuxKit loses.
    """
    body = _body(spec, form, strict, reference.expand)
    if form == "yaml":
        return goyaml.dumps(body)
    return gojson.dumps({key: None if value == [] else value for key, value in body.items()})


def shown(spec: Spec, *, strict: bool = False) -> bytes:
    """`spec` as `linuxkit build --dry-run` prints it: yaml.v3's layout, references as they are written."""
    return goyaml.v3(_body(spec, "yaml", strict, str)) + b"\n"


def as_spec(text: bytes, file: str) -> bytes:
    """A YAML metadata file as a spec again: the parts of the runtime specification under the names that specs have,
    without what no spec can set. LinuxKit cannot read its own. What is no such file comes back as it is."""
    body = yamlpos.parse(text, file).data
    for section in SECTIONS if isinstance(body, dict) else ():
        containers = body.get(section)
        for container in containers if isinstance(containers, list) else ():
            if isinstance(container, dict):
                for part, holder in ((ContainerConfig, container), (Runtime, container.get("runtime"))):
                    _rename(part, holder)
    return goyaml.dumps(body) if isinstance(body, dict) else text


def _rename(part: type[Part], holder: Any) -> None:
    """The members of `holder` that hold parts of the runtime specification, in place."""
    for name, info in fields(part).items():
        parts = [k for k in parts_in(kinds(part)[name]) if issubclass(k, Mount | Resources | IdMapping)]
        if parts and isinstance(holder, dict) and holder.get(info.key) is not None:
            holder[info.key] = _named(parts[0], holder[info.key])


def _named(kind: type[Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_named(kind, item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {info.key.lower(): (info.key, kinds(kind)[name]) for name, info in fields(kind).items()}
    found = {}
    for key, item in value.items():
        name, hint = names.get(key.lower(), ("", None))
        if name and item is not None:
            inner = parts_in(hint)
            found[name] = _named(inner[0], item) if inner else item
    return found


def _body(spec: Spec, form: str, strict: bool, named: Callable[[str], str]) -> dict[str, Any]:
    """`named` spells a reference."""
    kernel = spec.kernel
    body: dict[str, Any] = {
        "kernel": {
            "image": named(kernel.image) if kernel.image else "",
            **_set({"cmdline": kernel.cmdline, "binary": kernel.binary}),
            **_written({"tar": kernel.tar, "ucode": kernel.ucode}),
        },
        "init": [named(ref) for ref in spec.init],
    }
    for section in SECTIONS:
        containers = getattr(spec, section)
        body[section] = [_container(lossy.drop(c) if strict else c, form, named) for c in containers]
    body["files"] = [_file(f) for f in spec.files]
    body["volumes"] = [_volume(v) for v in spec.volumes]
    return body


def _set(members: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v}


def _written(members: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None}


def _container(container: ContainerSpec, form: str, named: Callable[[str], str]) -> dict[str, Any]:
    body: dict[str, Any] = {"name": container.name, "image": named(container.image)}
    for name, info in fields(ContainerConfig).items():
        value = getattr(container, name)
        if value != info.default:
            body[info.key] = _value(value, form)
    return body


def _value(value: Any, form: str) -> Any:
    if isinstance(value, tuple):
        return [_value(v, form) for v in value]
    if isinstance(value, dict):
        return gojson.sorted_map(value) if form == "json" else goyaml.sorted_map(value)
    if isinstance(value, Runtime):
        return _runtime(value, form)
    if isinstance(value, Resources):
        return resources(value, ()) if form == "json" else _lower(value)
    if isinstance(value, Mount):
        return mount_json(value) if form == "json" else _lower(value)
    if isinstance(value, IdMapping):
        return mappings_json((value,))[0] if form == "json" else _lower(value)
    if isinstance(value, Device):
        node = {"path": value.path, "type": value.type, "major": value.major, "minor": value.minor}
        return {**node, **_set({"mode": value.mode})}
    if isinstance(value, Interface):
        texts = _set({"name": value.name, "add": value.add, "peer": value.peer})
        return {**texts, "createInRoot": value.create_in_root}
    return value


# Members of the Go structures that no spec can set, behind the ones it can; Go prints them too.
_UNSETTABLE: dict[str, dict[str, Any]] = {
    "Resources": {"rdma": {}, "unified": {}},
    "Memory": {"usehierarchy": None, "checkbeforeupdate": None},
    "Cpu": {"idle": None},
}


def _lower(part: Part) -> dict[str, Any]:
    """Every member of a part of the runtime specification, the unset ones as null, [] or ""."""
    body: dict[str, Any] = {}
    for name, info in fields(type(part)).items():
        value = getattr(part, name)
        if isinstance(value, tuple):
            value = [_lower(v) if isinstance(v, Part) else v for v in value]
        body[info.key.lower()] = _lower(value) if isinstance(value, Part) else value
        if name == "quota":
            body["burst"] = None
    return {**body, **_UNSETTABLE.get(type(part).__name__, {})}


def _runtime(runtime: Runtime, form: str) -> dict[str, Any]:
    names = ("cgroups", "mounts", "mkdir", "interfaces")
    body = {name: _value(getattr(runtime, name), form) for name in names if getattr(runtime, name) is not None}
    spaces = _written({name: getattr(runtime.bind_ns, name) for name in fields(BindNs)})
    if spaces or form == "json":
        body["bindNS"] = spaces
    return {**body, **_written({"namespace": runtime.namespace})}


def _file(item: FileSpec) -> dict[str, Any]:
    return {
        "path": item.path,
        "directory": item.directory,
        **_set({"symlink": item.symlink}),
        **_written({"contents": item.contents}),
        **_set({"source": item.source, "metadata": item.metadata}),
        "optional": item.optional,
        **_set({"mode": item.mode}),
        **_written({"uid": item.uid, "gid": item.gid}),
    }


def _volume(volume: VolumeSpec) -> dict[str, Any]:
    rest = {"image": volume.image, "readonly": volume.readonly, "format": volume.format}
    return {"name": volume.name, **_set({**rest, "platforms": list(volume.platforms)})}
