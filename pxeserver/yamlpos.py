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

from pxeserver import checked
from pxeserver.checked import Path
from pxeserver.errors import UsageError, Where, did_you_mean, nearest

T = TypeVar("T")


def dotted(path: Path) -> str:
    """("a", 0, "b") -> "a[0].b"."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


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
        shown = dotted(full)
        for n in range(len(full), -1, -1):
            place = (self.keys if key else self.values).get(full[:n]) or self.values.get(full[:n])
            if place:
                return Where(self.file, place[0], place[1], shown)
        return Where(self.file, None, None, shown)


DEPTH_MAX = 200
ALIAS_NODES_MAX = 100_000  # nodes reached through aliases; more is an attack ("billion laughs"), not a document


class _Loader(yaml.SafeLoader):
    """SafeLoader with Go's scalar rules, and with tabs where Go and YAML 1.2 take them: between tokens, as JSON has
    them, and inside plain text; never as indentation."""

    file = ""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            while self.peek() == "\t":
                self.forward()
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str] | None:
        length = 0
        while self.peek(length) in " \t":
            length += 1
        blanks = self.prefix(length)
        if "\t" not in blanks:
            return super().scan_plain_spaces(indent, start_mark)
        self.forward(length)
        if self.peek() in "\0\r\n\x85\u2028\u2029":
            return super().scan_plain_spaces(indent, start_mark)  # blanks before the end of a line are nothing
        return [blanks]

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """The scanner's work grows with the square of the depth: what is too deep is refused at once."""
        if self.flow_level >= DEPTH_MAX:
            at = Where(self.file, self.line + 1, self.column + 1)
            raise UsageError("yaml-too-deep", f"nested more than {DEPTH_MAX} levels deep", where=at)
        super().fetch_flow_collection_start(token)


_TAG = "tag:yaml.org,2002:"
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0[bB][01_]+|0[oO][0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rx) for tag, rx in rules if tag.endswith((":null", ":merge"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + "bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


def _go_int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    try:
        if digits[:2].lower() in ("0x", "0o", "0b"):
            value = int(digits, 0)
        else:
            octal = len(digits) > 1 and digits[0] == "0" and set(digits) <= set("01234567")
            value = int(digits, 8 if octal else 10)
    except ValueError:
        if _INT.match(node.value) and len(text) < 20:
            return str(node.value)  # "0x_" looks like a number and is none
        raise
    if value >= 1 << 1024:
        raise ValueError("the number is far too large")
    return sign * value


def _binary(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Any bytes as text, the way os.fsdecode does it: a Go string holds them, and files are made of such text."""
    return loader.construct_yaml_binary(node).decode("utf-8", "surrogateescape")


_Loader.add_constructor(_TAG + "int", _go_int)
_Loader.add_constructor(_TAG + "binary", _binary)
_Loader.add_constructor(_TAG + "timestamp", lambda _, node: str(node.value))
_Loader.add_multi_constructor("!", lambda _, __, node: str(node.value))  # own tags mean nothing: the text stays


class _Builder:
    """Nodes -> plain data; notes where each one stands."""

    def __init__(self, loader: _Loader, doc: Document) -> None:
        self.loader, self.doc = loader, doc
        self.seen: set[int] = set()
        self.open: set[int] = set()
        self.shared = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.doc.values[path] = place = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        at = Where(self.doc.file, *place)
        if len(path) > DEPTH_MAX:
            raise UsageError("yaml-too-deep", f"nested more than {DEPTH_MAX} levels deep", where=at)
        if id(node) in self.open:
            raise UsageError("yaml-alias", "an alias stands inside its own anchor", where=at)
        if id(node) in self.seen:
            self.shared += 1 + len(node.value)
            if self.shared > ALIAS_NODES_MAX:
                raise UsageError("yaml-alias", f"aliases repeat more than {ALIAS_NODES_MAX} nodes", where=at)
        self.seen.add(id(node))
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            return [self.build(v, (*path, i)) for i, v in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        pairs = self.pairs(node, frozenset())
        for name, (key, _) in pairs.items():
            self.doc.keys[(*path, name)] = (key.start_mark.line + 1, key.start_mark.column + 1)
        return {name: self.build(value, (*path, name)) for name, (_, value) in pairs.items()}

    def pairs(self, node: yaml.MappingNode, inside: frozenset[int]) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key text -> (key, value); own keys win over merged ones, and of merged maps the first one given."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            at = Where(self.doc.file, key.start_mark.line + 1, key.start_mark.column + 1)
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                hint = "put it in quotes" if isinstance(key, yaml.ScalarNode) else ""
                raise UsageError("yaml-bad-key", "a key must be text", hint=hint, where=at)
            name = str(self.scalar(key, ()))
            if name in own:
                at = Where(at.file, at.line, at.column, name)
                raise UsageError("yaml-duplicate-key", f'key "{name}" is given twice', where=at)
            own[name] = (key, value)
        for other in merged:
            at = Where(self.doc.file, other.start_mark.line + 1, other.start_mark.column + 1, "<<")
            if not isinstance(other, yaml.MappingNode):
                raise UsageError("yaml-bad-merge", "<< takes a map, or a list of maps", where=at)
            self.shared += len(other.value) + 1
            if id(other) in inside or self.shared > ALIAS_NODES_MAX:
                raise UsageError("yaml-alias", "<< merges a map into itself, or far too many", where=at)
            for name, pair in self.pairs(other, inside | {id(node)}).items():
                own.setdefault(name, pair)
        return own

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        try:
            value = self.loader.construct_object(node)
            return _characters(value) if isinstance(value, str) and node.tag != _TAG + "binary" else value
        except (yaml.YAMLError, ValueError, LookupError) as error:
            shown = node.value if len(node.value) < 60 else node.value[:60] + "..."
            text = "half a character" if isinstance(error, UnicodeError) else _first_line(error)
            at = Where(self.doc.file, node.start_mark.line + 1, node.start_mark.column + 1, dotted(path))
            raise UsageError("yaml-bad-value", f"cannot read {shown!r}: {text}", where=at) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _characters(text: str) -> str:
    """JSON writes some characters as two halves (\\ud83d\\ude00); UnicodeError for half a character."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")


def parse(text: str | bytes, file: str = "") -> Document:
    """First document of `text`; UsageError with file, line and column if it is not YAML. Empty text gives data None."""
    doc = Document(None, file)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        loader.file = file
        node = loader.get_node() if loader.check_node() else None
        if node is not None:
            doc.data = _Builder(loader, doc).build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file)
        hint = "indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise UsageError("yaml-syntax", f"not YAML: {error.problem or error.context}", hint=hint, where=at) from None
    except yaml.reader.ReaderError as error:
        raise UsageError("yaml-syntax", f"not YAML: {_first_line(error)}", where=_place(text, file, error)) from None
    except RecursionError:
        raise UsageError("yaml-too-deep", f"nested more than {DEPTH_MAX} levels deep", where=Where(file)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError("yaml-syntax", f"not YAML: {_first_line(error)}", where=Where(file)) from None
    finally:
        if loader is not None:
            loader.dispose()
    return doc


def _place(text: str | bytes, file: str, error: yaml.reader.ReaderError) -> Where:
    """Where the reader met what is no text; it counts bytes that are no UTF-8, and otherwise characters."""
    if isinstance(text, bytes) and error.encoding != "unicode":
        head = text[: error.position].decode("utf-8", "replace")
    else:
        head = (text if isinstance(text, str) else text.decode("utf-8", "replace"))[: error.position]
    return Where(file, head.count("\n") + 1, len(head) - head.rfind("\n"))


def _shape(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    names = {dict: "a map", list: "a list", bool: "true/false", int: "a number", float: "a number", str: "text"}
    kind = names.get(type(value), type(value).__name__)
    return f"{kind} {value!r}" if isinstance(value, str | int | float) and len(repr(value)) < 60 else kind


def _name(path: Path) -> str:
    """The last key of `path` with the indexes behind it: "binds[1]"."""
    last = max((i for i, p in enumerate(path) if isinstance(p, str)), default=-1)
    shown = "".join(f"[{p}]" if isinstance(p, int) else p for p in path[max(last, 0) :])
    return shown or "the document"


def _known_keys(kind: Any, path: Path) -> list[str]:
    """The keys that the (nested) value at `path` accepts; list indexes in `path` choose nothing."""
    parts = checked.parts_in(kind)
    for step in path:
        if isinstance(step, str):
            hints = [checked.kinds(p)[n] for p in parts for n, f in checked.fields(p).items() if f.key == step]
            parts = [inner for hint in hints for inner in checked.parts_in(hint)]
    return [info.key for part in parts for info in checked.fields(part).values()]


def validate(kind: type[T], doc: Document, *, slug: str, data: Any = None) -> T:
    """`doc` (or `data` out of it) as a value of type `kind`; the first fault becomes a UsageError with its place.

    `slug` prefixes the error: <slug>-unknown-key, <slug>-missing, <slug>-type, <slug>-value.
    """
    faults: list[checked.Fault] = []
    value: T = checked.check(kind, doc.data if data is None else data, faults)
    if not faults:
        return value
    fault = next((f for f in faults if f.kind == "unknown-key"), faults[0])
    path, unknown = fault.path, fault.kind == "unknown-key"
    where = doc.where(path, key=unknown)
    if unknown:
        keys = _known_keys(kind, path[:-1])
        text = f'unknown key "{path[-1]}"{did_you_mean(str(path[-1]), keys)}'
        hint = "" if nearest(str(path[-1]), keys) else "known keys here: " + ", ".join(sorted(keys))
        raise UsageError(f"{slug}-unknown-key", text, hint=hint, where=where)
    text = {
        "missing": f'"{_name(path)}" {fault.text}',
        "type": f'"{_name(path)}" {fault.text}, not {_shape(fault.found)}',
        "value": f'"{_name(path)}": {fault.text}',
    }[fault.kind]
    raise UsageError(f"{slug}-{fault.kind}", text, where=where)


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}; for showing an effective configuration."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
