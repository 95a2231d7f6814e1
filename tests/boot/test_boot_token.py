"""Tokens: 62 characters, one spelling, no other key."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot import token
from pxeserver.boot.token import Token
from pxeserver.mac import mac_from_bytes

KEY = b"k" * 32
TOKENS = st.builds(
    Token,
    boot=st.binary(min_size=8, max_size=8).map(bytes.hex),
    mac=st.binary(min_size=6, max_size=6).map(mac_from_bytes),
    image=st.just("") | st.binary(min_size=16, max_size=16).filter(any).map(bytes.hex),
    revision=st.integers(0, 2**32 - 1),
)


@given(TOKENS)
def test_opening_gives_back_what_was_sealed(value: Token) -> None:
    sealed = token.seal(KEY, value)
    assert len(sealed) == token.LENGTH == 62
    assert set(sealed) <= set(string.ascii_letters + string.digits + "-_")
    assert token.open(KEY, sealed) == value


@given(TOKENS, st.integers(0, 61), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_a_token_with_another_character_does_not_open(value: Token, at: int, other: str) -> None:
    sealed = token.seal(KEY, value)
    changed = sealed[:at] + other + sealed[at + 1 :]
    assert (token.open(KEY, changed) is None) == (changed != sealed)


@given(TOKENS)
def test_a_token_of_another_key_does_not_open(value: Token) -> None:
    assert token.open(b"x" * 32, token.seal(KEY, value)) is None


@given(st.text(max_size=80) | st.text(alphabet=string.ascii_letters + "-_=+/é", min_size=62, max_size=62))
def test_no_text_opens_by_chance_or_raises(text: str) -> None:
    assert token.open(KEY, text) is None


def test_a_token_says_what_it_binds() -> None:
    digest = "sha256:" + "ab" * 32
    assert token.image_prefix(digest) == "ab" * 16
    assert token.image_prefix("") == ""


def test_fields_of_the_wrong_size_are_the_callers_fault() -> None:
    with pytest.raises(ValueError):
        token.seal(KEY, Token("00", "52:54:00:77:00:01"))


def test_the_spare_bits_of_the_last_character_are_no_second_spelling() -> None:
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    sealed = token.seal(KEY, Token("00" * 8, "52:54:00:77:00:01"))
    at = alphabet.index(sealed[-1])
    assert at % 16 == 0  # 46 bytes leave four bits of the 62nd character unused
    assert token.open(KEY, sealed[:-1] + alphabet[at + 1]) is None
