"""Frozen values <-> JSON, one function each way: REST bodies and `-o json` are the same text.

Field names stay as they are, tuples become lists, enums their value, `When` an RFC 3339 time in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

T = TypeVar("T")


def rfc3339(seconds: float) -> str | None:
    """Unix seconds -> '2026-11-23T20:19:00.250Z' (milliseconds); 0 means never and gives None."""
    if not seconds:
        return None
    return datetime.fromtimestamp(round(seconds, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_seconds(value: Any) -> Any:
    """RFC 3339 text -> Unix seconds, None -> 0.0; anything else is left for the validator to judge."""
    if value is None:
        return 0.0
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


# Unix seconds in the program, RFC 3339 in JSON
When = Annotated[float, BeforeValidator(unix_seconds), PlainSerializer(rfc3339, when_used="json")]


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
