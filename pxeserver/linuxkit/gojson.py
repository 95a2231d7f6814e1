"""JSON as Go's encoding/json writes it with four spaces: any JSON would do to boot, but the bytes name the image."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"  # bytes that are not UTF-8 are lost, as in Go


def dumps(value: Any) -> bytes:
    """`value` in its own key order, without a line end. These characters stand inside strings only."""
    text = json.dumps(value, ensure_ascii=False, indent=4)
    return _ESCAPED.sub(_escape, text).encode()


def sorted_map(value: dict[str, str]) -> dict[str, str]:
    """Go writes maps in the order of their keys' bytes, which is the order of characters."""
    return {key: value[key] for key in sorted(value)}
