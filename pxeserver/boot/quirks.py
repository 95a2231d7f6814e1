"""Quirks of firmware as data (config/quirks.yaml): loaded here, applied by decide()."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pxeserver import yamlpos
from pxeserver.boot.request import BootRequest
from pxeserver.boot.styles import STYLES
from pxeserver.checked import After, Part
from pxeserver.errors import did_you_mean
from pxeserver.resources import shipped
from pxeserver.wire import pxe

_OUI = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){2}")


def _oui(value: str) -> str:
    if not _OUI.fullmatch(value):
        raise ValueError(f'"{value}" is not the first three bytes of a MAC, as in b8:27:eb')
    return value.lower()


def _style(value: str) -> str:
    if value and value not in STYLES:
        raise ValueError(f'no style "{value}"{did_you_mean(value, STYLES)}')
    return value


def _family(value: str) -> str:
    if value and value not in pxe.FAMILIES:
        raise ValueError(f'no family "{value}"{did_you_mean(value, pxe.FAMILIES)}')
    return value


class Match(Part):
    oui: tuple[Annotated[str, After(_oui)], ...] = ()
    arch: tuple[int, ...] = ()
    family: str = ""
    ipxe: bool | None = None


class Change(Part):
    family: Annotated[str, After(_family)] = ""
    style: Annotated[str, After(_style)] = ""
    loader: str = ""


class Quirk(Part):
    """One entry. An empty `match` key holds for everything."""

    name: str
    match: Match = Match()
    set: Change = Change()
    why: str
    link: str = ""

    def fits(self, request: BootRequest) -> bool:
        match = self.match
        return (
            (not match.oui or request.mac[:8] in match.oui)
            and (not match.arch or request.arch.code in match.arch)
            and (not match.family or request.arch.family == match.family)
            and (match.ipxe is None or request.ipxe == match.ipxe)
        )


Quirks = tuple[Quirk, ...]


def load_quirks(file: Path | None = None) -> Quirks:
    """The table of `file`, or the shipped one. UsageError with the place (`quirks-...`) for anything wrong inside."""
    path = file or shipped("config") / "quirks.yaml"
    return yamlpos.validate(Quirks, yamlpos.parse(path.read_bytes(), str(path)), slug="quirks")


def quirk_for(request: BootRequest, quirks: Quirks) -> Quirk | None:
    """The first entry that fits."""
    for quirk in quirks:
        if quirk.fits(request):
            return quirk
    return None
