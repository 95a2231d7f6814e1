"""MAC addresses: every spelling in, one spelling out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import UsageError
from pxeserver.mac import looks_like_mac, mac_from_bytes, mac_to_bytes, parse_mac

FORMS = [
    lambda h: ":".join(h[i : i + 2] for i in range(0, 12, 2)),
    lambda h: "-".join(h[i : i + 2] for i in range(0, 12, 2)),
    lambda h: ".".join(h[i : i + 4] for i in range(0, 12, 4)),
    lambda h: h[:6] + "-" + h[6:],
    lambda h: h,
]


@given(st.binary(min_size=6, max_size=6), st.sampled_from(FORMS), st.booleans())
def test_every_spelling_means_the_same(raw: bytes, form, upper: bool) -> None:  # type: ignore[no-untyped-def]
    text = form(raw.hex())
    text = text.upper() if upper else text
    assert parse_mac(f" {text}\n") == mac_from_bytes(raw)
    assert mac_to_bytes(parse_mac(text)) == raw
    assert looks_like_mac(text)


@pytest.mark.parametrize(
    "text",
    ["", "52:54:00", "52:54:00:12:34:5g", "52:54-00:12:34:56", "5254.0012:3456", "525400123456 7", "٥٢٥٤٠٠١٢٣٤٥٦"],
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    assert not looks_like_mac(text)
    with pytest.raises(UsageError, match="not a MAC"):
        parse_mac(text)


@given(st.text())
def test_any_text_gives_a_mac_or_our_error(text: str) -> None:
    try:
        assert len(parse_mac(text)) == 17
    except UsageError as error:
        assert error.slug == "bad-mac"
