"""Typed values out of plain data: what is accepted, every fault with its path, and back again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver import checked
from pxeserver.checked import After, Before, Between, Fault, Part, field, replace


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


class Leaf(Part, keys=checked.camel):
    name: str
    how_many: Annotated[int, Between(0, 9)] = 0
    odd_key: str | None = field(key="ODD", default=None)


class Tree(Part):
    leaf: Leaf = Leaf(name="first")
    leaves: tuple[Leaf, ...] = ()
    texts: Mapping[str, str] = field(default={})
    colour: Colour = Colour.RED
    kind: Literal["a", 1] = "a"
    even: Annotated[int, Before(lambda v: int(v) if v == "2" else v), After(_even)] = 0
    either: str | Mapping[str, str] = ""
    flag: bool | None = None
    above: Annotated[int, Between(5)] = 5
    anything: Any = None


class Higher(Tree):
    """Its own fields come behind, but one that it only defines anew keeps its place."""

    own: str
    flag: bool | None = True


def made(data: Any, kind: Any = Tree) -> Any:
    faults: list[Fault] = []
    value = checked.check(kind, data, faults)
    assert not faults
    return value


def faults_of(data: Any, kind: Any = Tree) -> list[Fault]:
    faults: list[Fault] = []
    checked.check(kind, data, faults)
    return faults


def test_a_value_out_of_data_and_back() -> None:
    data = {
        "leaves": [{"name": "x", "howMany": 3, "ODD": "o"}, {"name": "y"}],
        "texts": {"a": "b"},
        "colour": "blue",
        "even": "2",
        "either": {"k": "v"},
        "anything": [1, None],
    }
    tree = made(data)
    assert tree == Tree(
        leaves=(Leaf(name="x", how_many=3, odd_key="o"), Leaf(name="y")),
        texts={"a": "b"},
        colour=Colour.BLUE,
        even=2,
        either={"k": "v"},
        anything=[1, None],
    )
    assert checked.plain(tree, keys=True, none=False, defaults=False) == {**data, "even": 2}
    assert made(checked.plain(tree, keys=True)) == tree
    assert checked.plain(tree)["leaves"][1] == {"name": "y", "how_many": 0, "odd_key": None}


def test_what_is_not_written_is_the_default() -> None:
    assert made({}) == Tree() and made({}).leaf == Leaf(name="first")
    assert list(checked.fields(Higher))[-1] == "own" and list(checked.fields(Higher)).index("flag") == 7
    assert made({"own": "x"}, Higher).flag is True and Tree().flag is None


@pytest.mark.parametrize(
    ("data", "path", "kind", "text"),
    [
        ([], (), "type", "must be a map"),
        ({"leef": 1}, ("leef",), "unknown-key", "is not known"),
        ({"leaf": {}}, ("leaf", "name"), "missing", "is required"),
        ({"leaf": {"name": 1}}, ("leaf", "name"), "type", "must be text"),
        ({"leaves": {}}, ("leaves",), "type", "must be a list"),
        ({"leaves": [{"name": "x"}, 1]}, ("leaves", 1), "type", "must be a map"),
        ({"leaf": {"name": "x", "how_many": 1}}, ("leaf", "how_many"), "unknown-key", "is not known"),
        ({"leaf": {"name": "x", "howMany": 10}}, ("leaf", "howMany"), "value", "must be 0 to 9"),
        ({"leaf": {"name": "x", "howMany": True}}, ("leaf", "howMany"), "type", "must be a whole number"),
        ({"leaf": {"name": "x", "howMany": 1.0}}, ("leaf", "howMany"), "type", "must be a whole number"),
        ({"leaf": {"name": "x", "ODD": 1}}, ("leaf", "ODD"), "type", "must be text"),
        ({"texts": []}, ("texts",), "type", "must be a map"),
        ({"texts": {"a": 1}}, ("texts", "a"), "type", "must be text"),
        ({"texts": {1: "a"}}, ("texts", "1"), "type", "must be text"),
        ({"colour": "green"}, ("colour",), "value", "must be 'red' or 'blue'"),
        ({"kind": True}, ("kind",), "value", "must be 'a' or 1"),
        ({"even": 3}, ("even",), "value", "must be even"),
        ({"even": "3"}, ("even",), "type", "must be a whole number"),
        ({"either": 1}, ("either",), "type", "must be text or a map"),
        ({"either": {"k": 1}}, ("either", "k"), "type", "must be text"),
        ({"flag": 0}, ("flag",), "type", "must be true or false"),
        ({"above": 4}, ("above",), "value", "must be 5 or more"),
    ],
)
def test_a_fault_has_its_path(data: Any, path: checked.Path, kind: str, text: str) -> None:
    (fault,) = faults_of(data)
    assert fault[:3] == (path, kind, text)


def test_all_faults_in_the_order_of_the_fields_and_unknown_keys_behind_those_of_their_map() -> None:
    found = faults_of({"zzz": 1, "flag": 1, "leaf": {"x": 1, "name": 2}})
    assert [f.path for f in found] == [("leaf", "name"), ("leaf", "x"), ("flag",), ("zzz",)]


def test_a_value_stays_as_it_is() -> None:
    leaf = Leaf(name="x")
    with pytest.raises(FrozenInstanceError):
        leaf.name = "y"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del leaf.name
    assert replace(leaf, how_many=2) == Leaf(name="x", how_many=2) != leaf
    assert hash(leaf) == hash(Leaf(name="x")) and leaf != Tree()
    assert copy.deepcopy(leaf) == pickle.loads(pickle.dumps(leaf)) == leaf
    assert repr(leaf) == "Leaf(name='x', how_many=0, odd_key=None)"
    with pytest.raises(TypeError, match="needs name"):
        Leaf()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no nam"):
        replace(leaf, nam="y")


def test_a_type_that_it_does_not_know_is_our_fault() -> None:
    with pytest.raises(TypeError, match="no type of a field"):
        checked.check(set[str], [], [])


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats() | st.sampled_from(["", "a", "red", "2", "name"]),
    lambda i: (
        st.lists(i, max_size=3)
        | st.dictionaries(st.sampled_from([*checked.fields(Tree), "name", "howMany", "ODD", "x"]), i, max_size=4)
    ),
    max_leaves=12,
)


@given(junk)
def test_any_data_is_a_value_or_has_a_fault(data: Any) -> None:
    faults: list[Fault] = []
    value = checked.check(Tree, data, faults)
    assert faults or isinstance(value, Tree)
    if not faults:
        assert repr(made(checked.plain(value, keys=True))) == repr(value)  # nan is not itself
