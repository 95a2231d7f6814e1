"""YAML with places: plain data, and for every node the line and column where it stands.

Scalars are read as Go's yaml.v3 reads them, because LinuxKit specs were written for it: yes/no/on/off stay text,
0644 and 0o644 are octal integers, duplicate keys are errors, only the first document counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pxeserver.errors import UsageError, Where, did_you_mean, nearest

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Document:
    """Plain data of the first document and the (line, column) of each path; keys and values are both recorded."""

    data: Any
    file: str = ""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def where(self, path: Iterable[str | int], *, key: bool = False) -> Where:
        """The place of `path`, or of the nearest parent that the file really has."""
        full = tuple(path)
        shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in full).lstrip(".")
        for n in range(len(full), -1, -1):
            place = (self.keys if key else self.values).get(full[:n]) or self.values.get(full[:n])
            if place:
                return Where(self.file, place[0], place[1], shown)
        return Where(self.file, None, None, shown)


class _Loader(yaml.SafeLoader):
    """SafeLoader with Go's scalar rules."""


_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rx) for tag, rx in rules if tag.endswith((":null", ":merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _go_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    if digits[:2].lower() in ("0x", "0o", "0b"):
        return sign * int(digits, 0)
    if len(digits) > 1 and digits[0] == "0" and set(digits) <= set("01234567"):
        return sign * int(digits, 8)
    return sign * int(digits)


_Loader.add_constructor("tag:yaml.org,2002:int", _go_int)


def _build(loader: _Loader, node: yaml.Node, path: Path, doc: Document, depth: int) -> Any:
    if depth > 200:
        raise UsageError("yaml-too-deep", "nested more than 200 levels deep", where=doc.where(path[:3]))
    doc.values[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        own = {k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode) and not k.tag.endswith(":merge")}
        seen: set[Any] = set()
        for k, _ in node.value:
            if isinstance(k, yaml.ScalarNode) and not k.tag.endswith(":merge"):
                if k.value in seen:
                    at = Where(doc.file, k.start_mark.line + 1, k.start_mark.column + 1, k.value)
                    raise UsageError("yaml-duplicate-key", f'key "{k.value}" is given twice', where=at)
                seen.add(k.value)
        loader.flatten_mapping(node)
        out: dict[Any, Any] = {}
        for k, v in node.value:
            if not isinstance(k, yaml.ScalarNode):
                at = Where(doc.file, k.start_mark.line + 1, k.start_mark.column + 1)
                raise UsageError("yaml-bad-key", "a key must be plain text", where=at)
            name = k.value
            if name in out and name not in own:
                continue  # merged maps: the first one given wins
            out[name] = _build(loader, v, (*path, name), doc, depth + 1)
            doc.keys[(*path, name)] = (k.start_mark.line + 1, k.start_mark.column + 1)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, v, (*path, i), doc, depth + 1) for i, v in enumerate(node.value)]
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError("yaml-bad-value", f"cannot read {node.value!r}: {error}", where=doc.where(path)) from None
    if isinstance(value, str | int | float | bool | bytes | None):
        return value
    return node.value  # timestamps and other tags stay text, as a Go string field reads them


def parse(text: str | bytes, file: str = "") -> Document:
    """First document of `text`; UsageError with file, line and column if it is not YAML. Empty text gives data None."""
    doc = Document(None, file)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_node() if loader.check_node() else None
        if node is not None:
            doc.data = _build(loader, node, (), doc, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file)
        raise UsageError("yaml-syntax", f"not YAML: {error.problem or error.context}", where=at) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise UsageError("yaml-syntax", f"not YAML: {first}", where=Where(file)) from None
    finally:
        if loader is not None:
            loader.dispose()
    return doc


_WORDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a map",
    "mapping_type": "must be a map",
    "model_type": "must be a map",
    "model_attributes_type": "must be a map",
    "float_type": "must be a number",
    "missing": "is required",
}


def _shape(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    names = {dict: "a map", list: "a list", bool: "true/false", int: "a number", float: "a number", str: "text"}
    kind = names.get(type(value), type(value).__name__)
    return f"{kind} {value!r}" if isinstance(value, str | int | float) and len(repr(value)) < 60 else kind


def _known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that the (nested) model at `path` accepts, by alias."""
    kinds: list[Any] = [model]
    for part in path:
        following: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for name, info in kind.model_fields.items():
                    if part in (name, info.alias):
                        following.append(info.annotation)
            else:
                following.append(kind)
        kinds = [leaf for k in following for leaf in _leaves(k)]
    models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return [info.alias or name for m in models for name, info in m.model_fields.items()]


def _leaves(kind: Any) -> list[Any]:
    args = getattr(kind, "__args__", None)
    return [leaf for a in args for leaf in _leaves(a)] if args else [kind]


def validate(model: type[M], doc: Document, *, slug: str, data: Any = None) -> M:
    """Check `doc` (or `data` out of it) against a pydantic model; the first fault becomes a UsageError with its place.

    `slug` prefixes the error: <slug>-unknown-key, <slug>-missing, <slug>-type, <slug>-value.
    """
    value = doc.data if data is None else data
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
        path: Path = tuple(p for p in fault["loc"] if not (isinstance(p, str) and p.startswith("function-")))
        if fault["type"] == "extra_forbidden":
            keys = _known_keys(model, path[:-1])
            raise UsageError(
                f"{slug}-unknown-key",
                f'unknown key "{path[-1]}"{did_you_mean(str(path[-1]), keys)}',
                hint="" if nearest(str(path[-1]), keys) else "known keys here: " + ", ".join(sorted(keys)),
                where=doc.where(path, key=True),
            ) from None
        name = str(path[-1]) if path else "the document"
        if fault["type"] == "missing":
            raise UsageError(f"{slug}-missing", f'"{name}" is required', where=doc.where(path[:-1])) from None
        if fault["type"] in _WORDS:
            text = f'"{name}" {_WORDS[fault["type"]]}, not {_shape(fault.get("input"))}'
            raise UsageError(f"{slug}-type", text, where=doc.where(path)) from None
        text = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"{slug}-value", f'"{name}": {text}', where=doc.where(path)) from None


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}; for showing an effective configuration."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
