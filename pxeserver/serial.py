"""Frozen values <-> JSON, one function each way: REST bodies and `-o json` are the same text.

Field names stay as they are, tuples become lists, enums their value, `When` (when.py) an RFC 3339 time in UTC.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")

_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(value: object) -> Any:
    """Plain JSON data of a frozen value, or of a list, tuple or map of them."""
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], data: Any) -> T:
    """The value of type `kind` that `data` was made of; pydantic.ValidationError if it is something else."""
    value: T = _adapter(kind).validate_python(data)
    return value
