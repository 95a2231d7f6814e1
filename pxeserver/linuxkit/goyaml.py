"""YAML as Go's yaml.v2 writes it: two spaces, lists as deep as their key, text in quotes where v2 would misread it.

`v3` writes as yaml.v3 does: four spaces, lists deeper than their key, long lines whole.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping
from typing import Any

import yaml

_STR, _BINARY = "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"
# What yaml.v2 reads as something else than text when it stands without quotes (YAML 1.1, sexagesimals included)
_WORDS = "y yes n no on off true false null .nan"
_OTHER = re.compile(
    r"|~|<<|[-+]?\.inf|\.Inf|\.INF|[-+]?\.Inf|[-+]?\.INF|\.NaN|\.NAN"
    r"|[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*"
    r"|[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)?"
)


class _Dumper(yaml.SafeDumper):
    """Plain style is chosen here, not by what PyYAML would read back."""

    yaml_implicit_resolvers: dict[Any, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _DumperV3(_Dumper):
    """Every level at the next multiple of four columns, but two after the dash of a list's item."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        self.indents.append(self.indent)
        if self.indent is None:
            self.indent = 4 if flow else 0
        elif self.states and self.states[-1] == self.expect_block_sequence_item:
            self.indent += 2
        else:
            self.indent = 4 * ((self.indent + 4) // 4)


def _ambiguous(text: str) -> bool:
    spellings = {s for w in _WORDS.split() for s in (w, w.capitalize(), w.upper())}
    return text in spellings or _OTHER.fullmatch(text) is not None


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    if "\n" in text:
        return dumper.represent_scalar(_STR, text, style="|")
    return dumper.represent_scalar(_STR, text, style='"' if _ambiguous(text) else None)


def _plain(dumper: _Dumper, value: Any) -> yaml.Node:
    shown = {None: "null", True: "true", False: "false"}[value] if not _is_int(value) else str(value)
    return dumper.represent_scalar(_STR, shown)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bytes(dumper: _Dumper, value: bytes) -> yaml.Node:
    """Base64 in lines of 70, or in one without a line end."""
    text = base64.b64encode(value).decode()
    if len(text) < 70:
        return dumper.represent_scalar(_BINARY, text)
    lines = [text[i : i + 70] + "\n" for i in range(0, len(text), 70)]
    return dumper.represent_scalar(_BINARY, "".join(lines), style="|")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(bytes, _bytes)
for _kind in (int, bool, type(None)):
    _Dumper.add_representer(_kind, _plain)


def dumps(value: Any) -> bytes:
    """`value` in its own key order; bytes that are not UTF-8 become base64 under !!binary."""
    text: str = yaml.dump(_binary(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text.encode()


def v3(value: Any) -> bytes:
    """`dumps` in the layout of yaml.v3."""
    text: str = yaml.dump(
        _binary(value), Dumper=_DumperV3, sort_keys=False, allow_unicode=True, default_flow_style=False,
        indent=4, width=float("inf"),
    )  # fmt: skip
    return text.encode()


def _binary(value: Any) -> Any:
    """Text that stands for bytes (surrogate escapes) back to bytes."""
    if isinstance(value, Mapping):
        return {k: _binary(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_binary(v) for v in value]
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        return value.encode("utf-8", "surrogateescape")
    return value


def sorted_map(value: Mapping[str, str]) -> dict[str, str]:
    """yaml.v2 writes maps with numbers in keys by value and letters after everything else."""
    return {key: value[key] for key in sorted(value, key=functools.cmp_to_key(_compare))}


def _compare(a: str, b: str) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x == y:
            continue
        if x.isalpha() or y.isalpha():
            return (x > y) - (x < y) if x.isalpha() and y.isalpha() else 1 if x.isalpha() else -1
        runs = [re.match("[0-9]*", text[i:]) for text in (a, b)]
        digits = [r.group() if r else "" for r in runs]
        keys = [(int(d or "0"), len(d), c) for d, c in zip(digits, (x, y), strict=True)]
        return -1 if keys[0] < keys[1] else 1
    return (len(a) > len(b)) - (len(a) < len(b))
