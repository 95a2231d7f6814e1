"""What may be printed into an iPXE script. iPXE knows no quoting: it splits a line at white space and reads some words.

Its syntax (core/exec.c): `${setting}` anywhere, the words `&&`, `||` and `;`, a word that begins with `#`, a backslash
at the end of a line, and the line break itself.
"""

from __future__ import annotations

import re

from pxeserver.errors import Refused

_SHOWN_MAX = 300
_NOT_SHOWN = re.compile(r"&(?=&)|[^A-Za-z0-9 .,:@/_+()=~<>*!?%&'\"-]")
_PLAIN = re.compile(r"[A-Za-z0-9 .,:@/_+()=?*-]*")  # nothing that `fault` would look at
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUOTES = frozenset("\"'`")


class Checked(str):
    """Text that was checked where it was made; `printed` lets it pass."""

    __slots__ = ()


def fault(text: str) -> str:
    """Why this text cannot stand in an iPXE script, "" if it can."""
    if _CONTROL.search(text):
        return "holds a line break or another control character"
    if not text.isascii():
        return "is not plain ASCII"
    if "${" in text:
        return 'holds "${"'
    for word in text.split():
        if word in ("&&", "||", ";") or word.startswith("#"):
            return f'holds "{word}"'
    return "ends in a backslash" if text.endswith("\\") else ""


def printed(value: object) -> str:
    """Jinja's last step for every `{{ value }}`: text that is safe as it is, or Refused (`script-bad-value`)."""
    if isinstance(value, Checked):
        return value
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    problem = fault(text) or ("holds a quote" if _QUOTES & set(text) else "")
    if problem:
        raise Refused(
            "script-bad-value",
            f"{text[:80]!r} cannot stand in a boot script: it {problem}",
            hint="print it with the filter `shown` if it is only for the screen",
        )
    return text


def shown(value: object) -> Checked:
    """Any text made fit for `echo`: what iPXE or the screen could stumble over becomes "?"."""
    return Checked(_NOT_SHOWN.sub("?", str(value))[:_SHOWN_MAX])
