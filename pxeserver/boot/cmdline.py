"""The kernel command line: layers of edits over the image's own, each part with its origin.

An edit is one or more parameters: `k=v` replaces every `k`, `-k` removes it, `console=` appends. Parameters are split
where the kernel splits them: at white space outside double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pxeserver.boot.text import fault as script_fault
from pxeserver.errors import Refused

# Bytes. x86's COMMAND_LINE_SIZE is 2048 with the NUL, UEFI loaders put "kernel " in front, and the kernel cuts the rest
# without a word.
LIMIT = 2048 - 1 - len("kernel ")
APPENDED = frozenset({"console"})

_PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


@dataclass(frozen=True, slots=True)
class Part:
    """One parameter and the layer that it comes from: image, default, machine, --arg, server."""

    text: str
    origin: str

    @property
    def key(self) -> str:
        return self.text.partition("=")[0]


def split(text: str) -> list[str]:
    """'a="b c" d' -> ['a="b c"', 'd']."""
    return _PARAMETER.findall(text)


def edit(layers: Sequence[tuple[str, Sequence[str]]], base: str) -> tuple[Part, ...]:
    """Apply `layers` (origin, edits), first to last, to the image's `base`."""
    parts = [Part(text, "image") for text in split(base)]
    for origin, edits in layers:
        for one in edits:
            for text in split(one):
                parts = _apply(parts, text, origin)
    return tuple(parts)


def _apply(parts: list[Part], text: str, origin: str) -> list[Part]:
    if text.startswith("-") and len(text) > 1 and text != "--":
        gone = text[1:]
        return [part for part in parts if gone not in (part.key, part.text)]
    new = Part(text, origin)
    if new.key in APPENDED:
        return [part for part in parts if part.text != text] + [new]
    out: list[Part] = []
    placed = False
    for part in parts:
        if part.key != new.key:
            out.append(part)
        elif not placed:  # the new value stands where the first old one stood
            out.append(new)
            placed = True
    return out if placed else [*out, new]


def join(parts: Iterable[Part]) -> str:
    """One line, checked: Refused with `cmdline-too-long`, or `cmdline-bad-value` and the part's origin."""
    kept = tuple(parts)
    for part in kept:
        problem = fault(part.text)
        if problem:
            raise Refused(
                "cmdline-bad-value",
                f"kernel parameter {part.text!r} (from {part.origin}) {problem}",
                hint="the boot script would read it as its own syntax; remove it",
            )
    line = " ".join(part.text for part in kept)
    check_length(line)
    return line


def check_length(line: str) -> None:
    """Refused "cmdline-too-long" when the kernel would cut it."""
    size = len(line.encode("utf-8", "surrogateescape"))
    if size > LIMIT:
        raise Refused(
            "cmdline-too-long",
            f"the kernel command line has {size} bytes, the kernel reads {LIMIT}",
            hint="remove parameters; `pxeserver render` shows where each comes from",
        )


@lru_cache(maxsize=1024)  # thousands of machines have the same few parameters
def fault(text: str) -> str:
    """Why this parameter cannot go through an iPXE script to the kernel, "" if it can."""
    if text.count('"') % 2:
        return "has a quote without its partner"
    if "  " in text:
        return "holds two spaces in a row, which iPXE makes one"
    return script_fault(text)
