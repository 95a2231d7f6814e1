"""The 2017 form of the spec (tool `moby`), recognised by keys that today's form does not have.

Accepted by turning it into today's values: `system` and `daemon` were onboot and services, `init` may be one text,
containers had `network_mode`, `read_only`, `oom_score_adj` and `disableOOMKiller`, `outputs` named the formats.
Namespaces that are not written are today's defaults (the host's), where 2017 made new ones.
"""

from __future__ import annotations

from typing import Annotated, Any

from pxeserver import yamlpos
from pxeserver.checked import Before, Path, field, fields, replace
from pxeserver.errors import UsageError
from pxeserver.linuxkit.spec import (
    SECTIONS,
    ContainerSpec,
    Int64,
    Many,
    Memory,
    Opt,
    Part,
    Resources,
    Spec,
    Strings,
)

_TOP = ("outputs", "system", "daemon")
_CONTAINER = ("network_mode", "read_only", "oom_score_adj", "disableOOMKiller")
_MOVED = {"system": "onboot", "daemon": "services"}
# Formats by their names of then
_FORMATS = {"gcp-img": "gcp", "gcp-storage": "gcp", "qcow": "qcow2-bios", "qcow2": "qcow2-bios", "img-gz": "raw-bios"}


class Output(Part):
    format: str


class OldContainer(ContainerSpec):
    network_mode: str = field(default="", key="network_mode")
    read_only: Opt[bool] = field(default=None, key="read_only")
    old_oom_score_adj: Opt[Int64] = field(default=None, key="oom_score_adj")
    disable_oom_killer: Opt[bool] = field(default=None, key="disableOOMKiller")


class OldSpec(Spec):
    """Both forms at once: people had begun to mix them before the tool stopped reading the old one."""

    init: Annotated[Strings, Before(lambda v: [v] if isinstance(v, str) else v)] = ()
    onboot: Many[OldContainer] = ()
    onshutdown: Many[OldContainer] = ()
    services: Many[OldContainer] = ()
    system: Many[OldContainer] = ()
    daemon: Many[OldContainer] = ()
    outputs: Many[Output] = ()


def signs(data: Any) -> list[str]:
    """The keys of 2017 that a parsed document has; empty for today's form."""
    if not isinstance(data, dict):
        return []
    found = [key for key in _TOP if key in data]
    if isinstance(data.get("init"), str):
        found.append("init")
    for section in (*SECTIONS, *_MOVED):
        containers = data.get(section)
        for container in containers if isinstance(containers, list) else ():
            if isinstance(container, dict):
                found += [key for key in _CONTAINER if key in container and key not in found]
    return found


def convert(doc: yamlpos.Document, data: Any = None) -> tuple[Spec, tuple[str, ...], dict[str, str]]:
    """The spec in today's form, the formats of `outputs` by today's names, and which section was called what."""
    old = yamlpos.validate(OldSpec, doc, slug="spec", data=data)
    sections: dict[str, Any] = {}
    called: dict[str, str] = {}
    for section in SECTIONS:
        before = next((k for k, v in _MOVED.items() if v == section and getattr(old, k)), "")
        if before and getattr(old, section):
            text = f'"{before}" is the name of "{section}" in 2017: give one of them'
            raise UsageError("spec-value", text, where=doc.where((before,), key=True))
        called[section] = before or section
        containers = getattr(old, called[section])
        sections[section] = tuple(_container(c, doc, (called[section], i)) for i, c in enumerate(containers))
    rest = {name: getattr(old, name) for name in ("kernel", "init", "volumes", "files", "trust")}
    spec = Spec(**rest, **sections)
    return spec, tuple(dict.fromkeys(_FORMATS.get(o.format, o.format) for o in old.outputs)), called


def _container(old: OldContainer, doc: yamlpos.Document, path: Path) -> ContainerSpec:
    update = {name: getattr(old, name) for name in fields(ContainerSpec)}
    moved = (
        ("network_mode", "network_mode", "net"),
        ("read_only", "read_only", "readonly"),
        ("old_oom_score_adj", "oom_score_adj", "oom_score_adj"),
    )
    for name, key, today in moved:
        value = getattr(old, name)
        if value is None or value == "":
            continue
        if update[today] not in (None, ""):
            alias = fields(ContainerSpec)[today].key
            text = f'"{key}" is the name of "{alias}" in 2017: give one of them'
            raise UsageError("spec-value", text, where=doc.where((*path, key), key=True))
        update[today] = value
    if old.disable_oom_killer is not None:
        resources = old.resources or Resources()
        memory = replace(resources.memory or Memory(), disable_oom_killer=old.disable_oom_killer)
        update["resources"] = replace(resources, memory=memory)
    return ContainerSpec(**update)
