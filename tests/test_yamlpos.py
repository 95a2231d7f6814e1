"""YAML with places: Go's scalars, faults with line and column, no traceback on any input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver import yamlpos
from pxeserver.checked import Part
from pxeserver.errors import PxeServerError, UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("Y", "Y"),
        ("true", True),
        ("FALSE", False),
        ("0644", 0o644),
        ("010", 8),
        ("0o17", 0o17),
        ("-0o17", -0o17),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("0_644", 0o644),
        ("089", 89),
        ("0x_", "0x_"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("~", None),
        ("null", None),
        ('"null"', "null"),
        ("!own text", "text"),
        ("!!str 12", "12"),
        ("!!binary aGn/", "hi\udcff"),
        ("=", "="),
    ],
)
def test_scalars_are_read_as_go_reads_them(text: str, value: Any) -> None:
    assert yamlpos.parse(f"- {text}\n").data == [value]


def test_only_the_first_document_counts() -> None:
    assert yamlpos.parse("a: 1\n---\n]\n").data == {"a": 1}
    assert yamlpos.parse("").data is None
    assert yamlpos.parse("# nothing\n").data is None


def test_merged_maps_own_keys_first_then_the_map_named_first() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"
    doc = yamlpos.parse(text, "f")
    assert doc.data["c"] == {"x": 3, "y": 1, "z": 2}
    assert str(doc.where(("c", "z"))) == "f:2:17: c.z"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a:\tb\t\n", {"a": "b"}),
        ("a: b\tc \t# d\n", {"a": "b\tc"}),
        ("a: b\t\n  c\n", {"a": "b c"}),
        ("a: 'x'\t# y\nb:\t\n  - z\t\n", {"a": "x", "b": ["z"]}),
        ('{\n\t"a":\t1,\n\t"b": [\t"c"\t]\n}\n', {"a": 1, "b": ["c"]}),
    ],
)
def test_tabs_separate_as_in_json_and_go(text: str, data: Any) -> None:
    assert yamlpos.parse(text).data == data


def test_places_of_keys_values_and_missing_parts() -> None:
    doc = yamlpos.parse("a:\n  - b: 1\n    c: [x, y]\n", "f")
    assert str(doc.where(("a", 0, "b"))) == "f:2:8: a[0].b"
    assert str(doc.where(("a", 0, "c"), key=True)) == "f:3:5: a[0].c"
    assert str(doc.where(("a", 0, "c", 1))) == "f:3:12: a[0].c[1]"
    assert str(doc.where(("a", 0, "missing", 4))) == "f:2:5: a[0].missing[4]"


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ("a: [", "yaml-syntax", "not YAML"),
        ("a: 1\nb: 2\na: 3\n", "yaml-duplicate-key", ":3:1: a"),
        ("1: x\n", "yaml-bad-key", "must be text"),
        ("? [a]\n: x\n", "yaml-bad-key", ":1:3"),
        ("<<: x\n", "yaml-bad-merge", ":1:5"),
        ("a: &a [*a]\n", "yaml-alias", "inside its own anchor"),
        ("a: &a {<<: *a, b: 1}\n", "yaml-alias", "itself"),
        ("a: &a {b: {c: *a}}\n", "yaml-alias", "inside its own anchor"),
        ("a: *b\n", "yaml-syntax", "undefined alias"),
        ("a: !!int x\n", "yaml-bad-value", "'x'"),
        ("a: !!bool x\n", "yaml-bad-value", "'x'"),
        ("a: !!float ''\n", "yaml-bad-value", "''"),
        ("a: !!python/object:os.system x\n", "yaml-bad-value", "'x'"),
        ("a: " + "9" * 5000, "yaml-bad-value", "999..."),
        ('a: "\\ud800"\n', "yaml-bad-value", "half a character"),
        ('"\\ud800": a\n', "yaml-bad-value", "half a character"),
        ('a: "\\UFFFFFFFF"\n', "yaml-syntax", "not YAML"),
        ("a: b\nc: \x01", "yaml-syntax", "f:2:4: not YAML"),
        (b"\xc3\xa9: \xc3\xa9\xe9\n", "yaml-syntax", "f:1:5: not YAML"),
        (b"\xc3\xa9: \x01\n", "yaml-syntax", "f:1:4: not YAML"),
        ("a:\n\tb: 1\n", "yaml-syntax", "f:2:1: not YAML"),
        ("-\tb\n", "yaml-syntax", "f:1:2: not YAML"),
        ("a: b\n\t# c\nd: e\n", "yaml-syntax", "f:2:1: not YAML"),
        ("[" * 150 + "]" * 150, "", ""),
        ("[" * 1_000_000, "yaml-too-deep", "f:1:201: nested more than 200 levels"),
        ("- " * 5000, "yaml-too-deep", "200 levels"),
        ("%YAML 9.9\n---\na\n", "yaml-syntax", "not YAML"),
    ],
)
def test_a_fault_has_a_slug_and_a_place(text: str, slug: str, words: str) -> None:
    if not slug:
        yamlpos.parse(text)
        return
    with pytest.raises(UsageError) as caught:
        yamlpos.parse(text, "f")
    assert caught.value.slug == slug
    assert words in str(caught.value) and "f" in str(caught.value.where)
    assert len(str(caught.value)) < 300


def laughs(levels: int, item: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} {item.format(*([f'*a{i - 1}'] * 10))}")
    return "\n".join(lines)


def test_aliases_that_multiply_are_refused_before_memory_is_full() -> None:
    assert yamlpos.parse(laughs(3, "[{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]")).data["a2"][9][9] == ["x"] * 10
    with pytest.raises(UsageError) as caught:
        yamlpos.parse(laughs(20, "[{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]"))
    assert caught.value.slug == "yaml-alias"
    merges = "a0: &a0 {k: v}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
    )
    with pytest.raises(UsageError) as caught:
        yamlpos.parse(merges)
    assert caught.value.slug == "yaml-alias"


class Inner(Part):
    size: int = 0


class Outer(Part):
    items: tuple[Inner, ...] | None = None
    names: tuple[str, ...] = ()
    title: str


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("title: x\nitems:\n  - sise: 1\n", 'f:3:5: items[0].sise: unknown key "sise" - did you mean "size"?'),
        ("title: x\nitems: [{size: a}]\n", "f:2:16: items[0].size: \"size\" must be a whole number, not text 'a'"),
        ("title: x\nnames: [a, 1]\n", 'f:2:12: names[1]: "names[1]" must be text, not a number 1'),
        ("items: []\n", 'f:1:1: title: "title" is required'),
        ("[]\n", 'f:1:1: "the document" must be a map, not a list'),
    ],
)
def test_a_model_fault_names_place_field_and_nearest_key(text: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        yamlpos.validate(Outer, yamlpos.parse(text, "f"), slug="x")
    assert str(caught.value).partition("]: ")[2] == wanted


@given(st.binary(max_size=200) | st.text(max_size=200) | st.text("&*a:<-[]{}!|>\"'\n #%@?,0x.~", max_size=60))
def test_any_input_is_data_or_a_fault(raw: bytes | str) -> None:
    try:
        yamlpos.parse(raw, "f")
    except PxeServerError as error:
        assert error.slug.startswith("yaml-") and "f" in str(error.where)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_json_is_yaml(data: Any) -> None:
    assert yamlpos.parse(json.dumps(data)).data == data
