"""The label org.mobyproject.config of an image, merged under what the spec says of its container.

The label holds a container's fields without name and image, as JSON or YAML. What the spec writes wins, field by
field; an explicit empty list, map, false or 0 wins too, an empty plain text (net, cwd, ...) does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pxeserver import checked, yamlpos
from pxeserver.errors import UsageError, Where
from pxeserver.linuxkit import lossy
from pxeserver.linuxkit.context import Place, somewhere
from pxeserver.linuxkit.spec import BindNs, ContainerConfig, ContainerSpec, Runtime

LABEL = "org.mobyproject.config"


class _Label(ContainerConfig):
    """A label must not name a container; the schema lets it try."""

    name: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """`spec` is complete but for what the image's own config adds; `place` leads to the spec or to the label."""

    spec: ContainerSpec
    place: Place = field(compare=False)


def parse(text: str, file: str) -> tuple[ContainerConfig, yamlpos.Document]:
    """A label that is not empty; UsageError "label-*" with the place inside it. `file` is how the label is called."""
    doc = yamlpos.parse(text, file)
    if not isinstance(doc.data, dict):
        raise UsageError("label-type", "the label must be a map of container fields", where=Where(doc.file))
    label = yamlpos.validate(_Label, doc, slug="label")
    for name in ("name", "image"):
        if getattr(label, name):
            raise UsageError("label-value", f"{name} cannot be set in a label", where=doc.where((name,)))
    return label, doc


def merge(own: ContainerSpec, text: str, *, strict: bool = False, place: Place = somewhere) -> Merged:
    """`text` is the label, "" for none. Strict merges as LinuxKit does: `.add` inside a label is ignored, one beside a
    written list too, and "all" plus an addition is an error."""
    called = f"label {LABEL} of {own.image}"
    outer = str(place("image"))
    label, doc = ContainerConfig(), yamlpos.Document({})
    if text:
        label, doc = parse(text, f"{outer}: {called}" if outer else called)
    if strict:
        label = lossy.drop(label)

    def labelled(*path: str | int) -> Where:
        return doc.where(path)

    fields = checked.fields(ContainerConfig)
    # what says nothing is the field's default: None, or "" for a plain text
    theirs = {n for n, f in fields.items() if getattr(own, n) == f.default and getattr(label, n) != f.default}
    update: dict[str, Any] = {name: getattr(label, name) for name in theirs}
    items: dict[str, tuple[_Item, ...] | None] = {}
    for name in ("capabilities", "binds"):
        items[name] = found = _items(own, label, name, strict, place, labelled)
        update |= {name: None if found is None else tuple(i.text for i in found), f"{name}_add": None}
    update["runtime"] = _runtime(own.runtime or Runtime(), label.runtime or Runtime())
    aliases = {fields[name].key for name in theirs}

    def located(*path: str | int) -> Where:
        match path:
            case ("capabilities" | "binds" as name, int(index)) if index < len(items[name] or ()):
                return (items[name] or ())[index].where
            case (str(name), *_) if name in aliases:
                return labelled(*path)
        return place(*path)

    return Merged(checked.replace(own, **update), located)


@dataclass(frozen=True, slots=True)
class _Item:
    text: str
    where: Where


def _items(
    own: ContainerSpec, label: ContainerConfig, name: str, strict: bool, place: Place, labelled: Place
) -> tuple[_Item, ...] | None:
    """The written list or the label's, and what is to be added to it; each text with its place."""

    def given(part: ContainerConfig, key: str, at: Place) -> list[_Item] | None:
        texts = getattr(part, key.replace(".", "_"))
        return None if texts is None else [_Item(text, at(key, i)) for i, text in enumerate(texts)]

    mine, added = given(own, name, place), given(own, f"{name}.add", place)
    theirs, label_added = given(label, name, labelled), given(label, f"{name}.add", labelled)
    if strict:
        lists = [mine] if mine is not None else [theirs, added]
    else:
        lists = [mine, added] if mine is not None else [theirs, label_added, added]
    if all(part is None for part in lists):
        return None
    found = [item for part in lists for item in part or ()]
    return tuple(found if strict or name == "binds" else _with_words(found))


def _with_words(items: list[_Item]) -> list[_Item]:
    """Of several capabilities, "all" takes in every other and "none" adds nothing."""
    everything = [i for i in items if i.text.lower() == "all"]
    return everything[:1] or [i for i in items if i.text.lower() != "none"] or items[:1]


def _runtime(own: Runtime, label: Runtime) -> Runtime:
    """Each sub-field by itself, each bound namespace too."""
    update: dict[str, Any] = {
        name: getattr(label, name)
        for name in ("cgroups", "mounts", "mkdir", "interfaces", "namespace")
        if getattr(own, name) is None
    }
    spaces = {
        name: getattr(label.bind_ns, name) if getattr(own.bind_ns, name) is None else getattr(own.bind_ns, name)
        for name in checked.fields(BindNs)
    }
    return checked.replace(own, **update, bind_ns=BindNs(**spaces))
