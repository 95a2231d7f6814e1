"""The quirks table: the shipped one loads, faults have their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pxeserver.boot.quirks import load_quirks
from pxeserver.errors import UsageError


def test_every_shipped_quirk_says_why_and_where_it_is_told() -> None:
    quirks = load_quirks()
    assert "raspberry-pi" in {quirk.name for quirk in quirks}
    assert all(quirk.why and quirk.link.startswith("https://") for quirk in quirks)
    assert len({quirk.name for quirk in quirks}) == len(quirks)


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ("- {name: a, why: b, match: {ouis: []}}", "quirks-unknown-key", 'unknown key "ouis"'),
        ("- {name: a}", "quirks-missing", "why"),
        ("- {name: a, why: b, match: {oui: [b8]}}", "quirks-value", "first three bytes"),
        ("- {name: a, why: b, match: {oui: ['zz:zz:zz']}}", "quirks-value", "first three bytes"),
        ("- {name: a, why: b, set: {style: bnl}}", "quirks-value", 'did you mean "binl"'),
        ("- {name: a, why: b, set: {family: efi}}", "quirks-value", 'no family "efi"'),
        ("- {name: a, why: b, match: {arch: [zero]}}", "quirks-type", "whole number"),
    ],
)
def test_faults_have_their_place(tmp_path: Path, text: str, slug: str, words: str) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_quirks(file)
    assert caught.value.slug == slug and words in str(caught.value) and "q.yaml:1" in str(caught.value)


def test_addresses_match_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    file.write_text("- {name: a, why: b, match: {oui: ['B8:27:EB']}}")
    assert load_quirks(file)[0].match.oui == ("b8:27:eb",)
