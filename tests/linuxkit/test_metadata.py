"""The merged spec as a file inside the image, in Go's YAML and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pxeserver import yamlpos
from pxeserver.checked import replace
from pxeserver.errors import UsageError
from pxeserver.linuxkit import goyaml, loader, metadata

EVERYTHING = (Path(__file__).parent / "specs" / "everything.yml").read_text()


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("strict", [False, True])
def test_every_field_as_a_whole_file(load: Callable[..., loader.Loaded], golden: Any, form: str, strict: bool) -> None:
    loaded = load(EVERYTHING, strict=strict)
    golden(
        f"everything.{'strict' if strict else 'fixed'}.metadata.{form}",
        metadata.render(loaded.spec, form, strict=strict),
    )


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_an_empty_spec_as_a_whole_file(load: Callable[..., loader.Loaded], golden: Any, form: str) -> None:
    golden(f"empty.metadata.{form}", metadata.render(load("{}").spec, form))


@pytest.mark.parametrize("strict", [False, True])
def test_every_field_as_a_dry_run_shows_it(load: Callable[..., loader.Loaded], golden: Any, strict: bool) -> None:
    """Four spaces and whole lines, as yaml.v3 writes; names as they are written."""
    loaded = load(EVERYTHING, strict=strict)
    text = metadata.shown(loaded.spec, strict=strict)
    golden(f"everything.{'strict' if strict else 'fixed'}.dry-run.yaml", text)
    assert yaml.safe_load(text) == yaml.safe_load(goyaml.dumps(yaml.safe_load(text)))


def test_it_is_a_spec_again(load: Callable[..., loader.Loaded]) -> None:
    text = (
        "kernel: {image: k, cmdline: c, tar: none}\ninit: [i]\nonboot: [{name: o, image: x, capabilities: [],"
        " env: [A=1], runtime: {mkdir: [/a], bindNS: {net: /n}}, sysctl: {a: '1'}, readonly: false,"
        " devices: [{path: all, type: b}]}]\n"
        "files: [{path: m, metadata: yaml}, {path: f, contents: 'a\n\n  b\n', mode: '0644', uid: 0}]\n"
        "volumes: [{name: v, image: w, readonly: true}]\n"
    )
    spec = load(text).spec
    again = load(metadata.render(spec, "yaml"), strict=True).spec
    assert metadata.render(again, "yaml") == metadata.render(spec, "yaml")
    assert replace(again.onboot[0], image="x") == spec.onboot[0]
    assert again.files == spec.files and again.volumes == spec.volumes


def test_every_field_comes_back_from_a_metadata_file(load: Callable[..., loader.Loaded]) -> None:
    spec = load(EVERYTHING).spec
    text = metadata.render(spec, "yaml")
    again = load(metadata.as_spec(text, "m")).spec
    assert metadata.render(again, "yaml") == text
    for section in ("onboot", "onshutdown", "services"):
        for was, now in zip(getattr(spec, section), getattr(again, section), strict=True):
            assert replace(now, image=was.image) == was


@pytest.mark.parametrize("text", ["", "[]", "onboot: [1, {runtime: 2, mounts: x}]", "services: 5", "a: b"])
def test_what_is_no_metadata_file_is_for_the_loader_to_refuse(load: Callable[..., loader.Loaded], text: str) -> None:
    with pytest.raises(UsageError):
        load(metadata.as_spec(text.encode(), "m"))


def test_texts_that_other_readers_misread_are_in_quotes() -> None:
    quoted = [
        "y",
        "n",
        "yes",
        "No",
        "ON",
        "off",
        "true",
        "null",
        "~",
        "<<",
        "",
        "1",
        "0x1f",
        "0o7",
        "1_000",
        "1.5",
        "1e3",
        ".inf",
    ]
    quoted += ["1:30", "2026-11-23", "2026-11-23T10:00:00Z", "-1"]
    for text in quoted:
        assert goyaml.dumps([text]) == f'- "{text}"\n'.encode()
    for text in ["a", "yess", "1.2.3", "v1", "a b", "docker.io/lab/x:1", "é", "10.0.0.1", "0755a", "=", "nofile,1,2"]:
        assert goyaml.dumps([text]) == f"- {text}\n".encode()
    assert goyaml.dumps(["a: b", "#c", "it's", " x", "@a"]) == b"- 'a: b'\n- '#c'\n- it's\n- ' x'\n- '@a'\n"
    assert goyaml.dumps({"a": "x\ny\n", "b": [], "c": {}, "d": None, "e": True, "f": 7}) == (
        b"a: |\n  x\n  y\nb: []\nc: {}\nd: null\ne: true\nf: 7\n"
    )
    assert goyaml.dumps(["h\udcff"]) == b"- !!binary 'aP8='\n"
    assert goyaml.dumps(["\udcff" * 60]) == b"- !!binary |\n  " + b"/" * 70 + b"\n  " + b"/" * 10 + b"\n"


def test_map_keys_count_in_order() -> None:
    keys = ["a10", "a9", "a", "B", "b", "a.b", "net.ipv4.x", "net.ipv10.x", "1", "é"]
    found = list(goyaml.sorted_map(dict.fromkeys(keys, "")))
    assert found == ["1", "B", "a", "a.b", "a9", "a10", "b", "net.ipv4.x", "net.ipv10.x", "é"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    written = goyaml.dumps(value)
    assert yamlpos.parse(written).data == value
    assert yaml.safe_load(written) == value
