"""Times: Unix seconds in the program, RFC 3339 for people and in JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any


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


class _Times:
    """How pydantic (serial.py) takes and gives such a number; it is loaded only where somebody asks for JSON."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema as schema

        text = schema.plain_serializer_function_ser_schema(rfc3339, when_used="json")
        return schema.no_info_before_validator_function(unix_seconds, handler(source), serialization=text)


When = Annotated[float, _Times()]
