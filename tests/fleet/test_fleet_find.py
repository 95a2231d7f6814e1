"""Naming a machine: any spelling of a MAC, exact names first, ambiguity is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import NotFound, Refused
from pxeserver.fleet.find import find
from pxeserver.model import Machine

UUID = "4c4c4544-0042-3510-8051-b4c04f4d3232"
FLEET = (
    Machine(1, "web-1", ("52:54:00:aa:bb:01",)),
    Machine(2, "web-10", ("52:54:00:aa:bb:02", "52:54:00:aa:cc:02"), facts={"uuid": UUID}),
    Machine(3, "beef", ("52:54:00:aa:be:ef",)),
    Machine(30, "", ("00:0c:29:12:34:56",), known=False),
)


@given(st.binary(min_size=6, max_size=6), st.data())
def test_a_mac_in_any_spelling(raw: bytes, data: st.DataObject) -> None:
    digits = raw.hex()
    pairs = [digits[i : i + 2] for i in range(0, 12, 2)]
    quads = [digits[i : i + 4] for i in range(0, 12, 4)]
    spellings = [":".join(pairs), "-".join(pairs), ".".join(quads), "-".join(quads), digits]
    spellings += [f"{digits[:6]}-{digits[6:]}", f"{digits[:6]}:{digits[6:]}"]
    text = data.draw(st.sampled_from(spellings))
    text = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in text)
    machine = Machine(7, "m", (":".join(pairs),))
    assert find(f" {text} ", (*FLEET, machine)).macs == machine.macs


@pytest.mark.parametrize(
    ("text", "ident"),
    [("web-1", 1), ("WEB-10", 2), ("52-54-00-AA-CC-02", 2), ("30", 30), ("#2", 2), ("123456", 30), ("aa:cc:02", 2)]
    + [("000c29", 30), ("4c4c4544", 2), (UUID, 2)],
)
def test_one_machine_is_meant(text: str, ident: int) -> None:
    assert find(text, FLEET).id == ident


def test_a_whole_name_wins_over_a_piece_of_a_mac() -> None:
    assert find("beef", FLEET).id == 3


def test_the_beginning_of_a_name_is_not_enough() -> None:
    with pytest.raises(NotFound, match='no machine "web-" - did you mean "web-1"'):
        find("web-", FLEET)


@pytest.mark.parametrize("text", ["", " ", "#", "7", "web", "bb0", "zz:zz", "5254"[:3]])
def test_nothing_is_meant(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        find(text, FLEET)
    assert caught.value.slug == "machine-not-found"


def test_ambiguity_lists_the_candidates() -> None:
    with pytest.raises(Refused) as caught:
        find("5254.00aa", FLEET)
    assert caught.value.slug == "machine-ambiguous"
    assert "beef (52:54:00:aa:be:ef), web-1 (52:54:00:aa:bb:01), web-10 (52:54:00:aa:bb:02)" in caught.value.message


def test_a_long_list_of_candidates_is_cut() -> None:
    many = [Machine(n, f"m{n}", (f"52:54:00:00:00:{n:02x}",)) for n in range(20)]
    with pytest.raises(Refused, match="fits 20 machines: .* and 12 more"):
        find("52:54:00", many)


def test_a_mac_that_nobody_has_says_how_to_add_it() -> None:
    with pytest.raises(NotFound) as caught:
        find("5254.00ff.ffff", FLEET)
    assert "52:54:00:ff:ff:ff" in caught.value.message and "machines add" in caught.value.hint
