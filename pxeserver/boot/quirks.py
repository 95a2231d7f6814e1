"""Quirks of firmware as data (config/quirks.yaml): loaded here, applied by decide()."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from pxeserver import yamlpos
from pxeserver.boot.request import BootRequest
from pxeserver.boot.styles import STYLES
from pxeserver.errors import did_you_mean
from pxeserver.resources import shipped
from pxeserver.wire import pxe

_OUI = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){2}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Match(_Part):
    oui: tuple[str, ...] = Field(default=(), strict=False)
    arch: tuple[int, ...] = Field(default=(), strict=False)
    family: str = ""
    ipxe: bool | None = None

    @field_validator("oui")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _OUI.fullmatch(text):
                raise ValueError(f'"{text}" is not the first three bytes of a MAC, as in b8:27:eb')
        return tuple(text.lower() for text in value)


class Change(_Part):
    family: str = ""
    style: str = ""
    loader: str = ""

    @field_validator("style")
    @classmethod
    def _style(cls, value: str) -> str:
        if value and value not in STYLES:
            raise ValueError(f'no style "{value}"{did_you_mean(value, STYLES)}')
        return value

    @field_validator("family")
    @classmethod
    def _family(cls, value: str) -> str:
        if value and value not in pxe.FAMILIES:
            raise ValueError(f'no family "{value}"{did_you_mean(value, pxe.FAMILIES)}')
        return value


class Quirk(_Part):
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


class _File(RootModel[tuple[Quirk, ...]]):
    model_config = ConfigDict(frozen=True)


Quirks = tuple[Quirk, ...]


def load_quirks(file: Path | None = None) -> Quirks:
    """The table of `file`, or the shipped one. UsageError with the place (`quirks-...`) for anything wrong inside."""
    path = file or shipped("config") / "quirks.yaml"
    return yamlpos.validate(_File, yamlpos.parse(path.read_bytes(), str(path)), slug="quirks").root


def quirk_for(request: BootRequest, quirks: Quirks) -> Quirk | None:
    """The first entry that fits."""
    return next((quirk for quirk in quirks if quirk.fits(request)), None)
