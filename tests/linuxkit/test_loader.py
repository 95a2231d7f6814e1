"""Specs from text: what is accepted, what is refused and where, and how several become one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pxeserver import checked
from pxeserver.errors import PxeServerError, UsageError
from pxeserver.linuxkit import loader, plan
from pxeserver.linuxkit.entries import ImageDefaults
from pxeserver.linuxkit.legacy import OldSpec
from pxeserver.linuxkit.spec import ContainerSpec, Spec

Load = Callable[..., loader.Loaded]


def test_every_documented_key_is_accepted(load: Load) -> None:
    text = (Path(__file__).parent / "specs" / "everything.yml").read_text()
    spec = load(text, strict=True).spec
    written = set(yaml.safe_load(text)["onboot"][0])
    assert written == {f.key for f in checked.fields(ContainerSpec).values()}
    assert set(yaml.safe_load(text)) == set(checked.fields(Spec))
    (everything,) = spec.onboot
    assert all(getattr(everything, name) not in (None, "", ()) for name in checked.fields(ContainerSpec))
    assert everything.resources is not None
    dumped = checked.plain(everything.resources, defaults=False)
    assert set(dumped) == {"devices", "memory", "cpu", "pids", "blockio", "hugepage_limits", "network"}
    assert all(
        len(part) == len(checked.fields(type(getattr(everything.resources, k))))
        for k, part in dumped.items()
        if isinstance(part, dict)
    )


def test_an_empty_map_is_a_spec_and_an_empty_file_is_none(load: Load) -> None:
    assert load("{}").spec == Spec()
    assert load("{}\n---\nnosuch: 1\n").spec == Spec()
    for text in ("", "# only words\n", "---\n"):
        with pytest.raises(UsageError) as caught:
            load(text)
        assert caught.value.slug == "spec-empty" and "1.yml" in str(caught.value)


# text -> what the message must name: the place, and the field where the file has one
REFUSED = [
    ("nosuch: 1", "1.yml:1:1: nosuch", "known keys here: files, init"),
    ("kernal: {}", "1.yml:1:1: kernal", 'did you mean "kernel"'),
    ("kernel: lab/kernel:1", "1.yml:1:9: kernel", "must be a map"),
    ("kernel:", "1.yml:1:8: kernel", "not nothing (null)"),
    ("kernel: {tar: ~}", "1.yml:1:15: kernel.tar", "leave the key out"),
    ("kernel: {cmdline: [a]}", "kernel.cmdline", "must be text, not a list"),
    ("kernel: {cmdlin: a}", "kernel.cmdlin", 'did you mean "cmdline"'),
    ("init: lab/init:1", "1.yml:1:7: init", "must be a list"),
    ("init: [1]", "1.yml:1:8: init[0]", "must be text, not a number 1"),
    ("init: [~]", "init[0]", "must be text"),
    ("init: [yes, true]", "init[1]", "must be text, not true/false True"),
    ("[]", "1.yml:1:1", "must be a map, not a list"),
    ("text", "1.yml:1:1", "must be a map, not text 'text'"),
    ("services: [{image: x}]", "1.yml:1:12: services[0].name", '"name" is required'),
    ("services: [{name: x}]", "services[0].image", '"image" is required'),
    ("services: [~]", "services[0]", "must be a map"),
    ("services: {name: x}", "services", "must be a list, not a map"),
    ("services: [{name: x, image: x, env: {A: b}}]", "1.yml:1:37: services[0].env", "must be a list, not a map"),
    ("services: [{name: x, image: x, readonly: yes}]", "services[0].readonly", "true or false, not text 'yes'"),
    ("services: [{name: x, image: x, readonly: ~}]", "services[0].readonly", "null"),
    ("services: [{name: x, image: x, cap: []}]", "services[0].cap", "capabilities"),
    ("services: [{name: x, image: x, capabilities_add: []}]", "capabilities_add", 'did you mean "capabilities.add"'),
    ("services: [{name: x, image: x, oom_score: 1}]", "services[0].oom_score", 'did you mean "oomScoreAdj"'),
    ("services: [{name: x, image: x, oomScoreAdj: 1.5}]", "services[0].oomScoreAdj", "whole number"),
    ("services: [{name: x, image: x, uid: 1.5}]", "services[0].uid", "number or the name"),
    ("services: [{name: x, image: x, uid: true}]", "services[0].uid", "number or the name"),
    ("services: [{name: x, image: x, additionalGids: [a, []]}]", "services[0].additionalGids[1]", "number or"),
    ("services: [{name: x, image: x, sysctl: {a.b: 1}}]", "services[0].sysctl.a.b", "must be text"),
    ("services: [{name: x, image: x, devices: [{mode: 0666}]}]", "services[0].devices[0].mode", "must be text"),
    ("services: [{name: x, image: x, resources: {cpu: {cpus: 1}}}]", "services[0].resources.cpu.cpus", "text"),
    (
        "services: [{name: x, image: x, resources: {memory: {limit: 1g}}}]",
        "services[0].resources.memory.limit",
        "whole",
    ),
    ("services: [{name: x, image: x, resources: {memory: {Limit: 1}}}]", "memory.Limit", 'did you mean "limit"'),
    (
        "services: [{name: x, image: x, resources: {cpu: {shares: -1}}}]",
        "services[0].resources.cpu.shares",
        "must be 0 to",
    ),
    ("services: [{name: x, image: x, runtime: {bindNS: {nett: a}}}]", "services[0].runtime.bindNS.nett", '"net"'),
    ("services: [{name: x, image: x, mounts: [{dest: /x}]}]", "services[0].mounts[0].dest", "destination"),
    ("services: [{name: x, image: a}, {name: x, image: a}]", "services[1].name", "services[0] has it too"),
    ("services: [{name: x, image: 'https://a/b'}]", "services[0].image", "leave out https://"),
    ("onboot: [{name: x, image: ''}]", "onboot[0].image", "it is empty"),
    ("onshutdown: [{name: x, image: 'a b'}]", "onshutdown[0].image", '"a b"'),
    ("init: ['lab/Bad:1']", "1.yml:1:8: init[0]", "small letters"),
    ("init: ['@pkg:./nosuch']", "init[0]", "could not be found"),
    ("kernel: {image: X}", "kernel.image", "small letters"),
    ("volumes: [{name: V.x}]", "1.yml:1:18: volumes[0].name", 'invalid volume name "V.x"'),
    ("volumes: [{name: v}, {name: v}]", "volumes[1].name", "duplicate volume"),
    ("volumes: [{name: v, format: tar}]", "volumes[0].format", "'oci' or 'filesystem'"),
    ("volumes: [{name: v, image: B}]", "volumes[0].image", "names no image"),
    ("files: [{path: x, contents: 1}]", "files[0].contents", "must be text"),
    ("files: [{path: x, content: a}]", "files[0].content", 'did you mean "contents"'),
    ("files: [{path: x, mode: 0644}]", "1.yml:1:25: files[0].mode", "must be text, not a number 420"),
    ("files: [{path: x, uid: 0x" + "f" * 5000 + "}]", "files[0].uid", "far too large"),
    ("files: [{path: x, contents: a, uid: 9223372036854775808}]", "files[0].uid", "below"),
    ('files: [{path: "a\\0b", contents: x}]', "1.yml:1:16: files[0].path", "NUL"),
    ('files: [{path: a, symlink: "\\0"}]', "files[0].symlink", "NUL"),
    ('services: [{name: "a\\0", image: x}]', "1.yml:1:19: services[0].name", "NUL"),
    ("kernel: {image: x, cmdline: !!binary '//8='}", "1.yml:1:29: kernel.cmdline", "must be text"),
    ("kernel: {image: x, binary: !!binary '//8='}", "kernel.binary", "must be text"),
    ("trust: {orgs: []}", "trust.orgs", 'did you mean "org"'),
    ("a: 1\na: 2", "1.yml:2:1: a", "given twice"),
    ("init: [", "1.yml:1:", "not YAML"),
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("text", "place", "words"), REFUSED)
def test_a_refused_spec_names_its_field(load: Load, text: str, place: str, words: str, strict: bool) -> None:
    if not strict and text == "init: lab/init:1":
        return  # the form of 2017
    with pytest.raises(UsageError) as caught:
        load(text, strict=strict)
    assert place in str(caught.value) and words in caught.value.render()


def test_whole_numbers_may_be_spelled_as_go_spells_them(load: Load) -> None:
    fields = "oomScoreAdj: 1e2, uid: 010, gid: 1.0, resources: {cpu: {shares: 0x10}, memory: {limit: -1}}"
    (service,) = load(f"services: [{{name: x, image: x, {fields}}}]").spec.services
    assert (service.oom_score_adj, service.uid, service.gid) == (100, 8, 1)
    assert service.resources and service.resources.cpu and service.resources.cpu.shares == 16


def test_appending_specs(load: Load) -> None:
    loaded = load(
        "kernel: {image: k1, cmdline: first, binary: b, tar: none}\ninit: [a]\nservices: [{name: s, image: x}]\n"
        "volumes: [{name: v}]\nfiles: [{path: a}]",
        'kernel: {cmdline: "", tar: ""}\ninit: [b]\nonboot: [{name: s, image: x}]\n'
        "services: [{name: t, image: x}]\nfiles: [{path: b}]",
        "kernel: {image: k3, cmdline: third}",
    )
    kernel = loaded.spec.kernel
    assert (kernel.image, kernel.cmdline, kernel.binary, kernel.tar, kernel.ucode) == ("k3", "third", "b", "", None)
    assert loaded.spec.init == ("a", "b")
    assert [s.name for s in loaded.spec.services] == ["s", "t"]
    assert [f.path for f in loaded.spec.files] == ["a", "b"]
    assert str(loaded.place("services", 1, "name")) == "2.yml:4:19: services[0].name"
    assert str(loaded.place("kernel", "cmdline")) == "3.yml:1:30: kernel.cmdline"
    assert str(loaded.place("kernel", "tar")) == "2.yml:1:28: kernel.tar"
    assert str(loaded.place("init", 1)) == "2.yml:2:8: init[0]"


def test_services_of_appended_specs_are_unique_too(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        load("services: [{name: s, image: x}]", "services: [{name: s, image: x}]")
    assert "2.yml:1:19: services[0].name" in str(caught.value) and caught.value.slug == "spec-duplicate"
    load("onboot: [{name: s, image: x}]", "onboot: [{name: s, image: x}]")


def test_binds_find_the_volumes_of_all_specs_but_strict_only_of_the_last(load: Load) -> None:
    texts = ("volumes: [{name: v}]", "volumes: [{name: w}]")
    assert set(load(*texts).volumes) == {"v", "w"}
    assert set(load(*texts, strict=True).volumes) == {"w"}
    load("volumes: [{name: v}]", "volumes: [{name: v}]", strict=True)
    with pytest.raises(UsageError, match="duplicate volume"):
        load("volumes: [{name: v}]", "volumes: [{name: v}]")


def test_trust_of_all_sources_counts(load: Load) -> None:
    loaded = load("trust: {org: [linuxkit], image: [a]}", "trust: {org: [b]}")
    assert (loaded.spec.trust.org, loaded.spec.trust.image, loaded.warnings) == (("linuxkit", "b"), ("a",), ())


def test_no_source_is_a_fault(load: Load) -> None:
    with pytest.raises(UsageError, match="no spec is given"):
        load()


TEXTS = [
    "",
    "x",
    "all",
    "none",
    "CAP_KILL",
    "/a:/b",
    "v:/x:ro",
    "v:/x",
    "0644",
    "x:y:z:w",
    "@pkg:x",
    "nofile,1,2",
    "new",
]
TEXTS += ["none", "../x", "/x", "etc/x", "yaml", "bind", "proc", "a", "root", "Bad", "lab/y:1"]
texts = st.sampled_from(TEXTS) | st.text(max_size=6)
scalars = st.none() | st.booleans() | st.integers(-(1 << 66), 1 << 66) | texts
junk = st.recursive(scalars, lambda i: st.lists(i, max_size=3) | st.dictionaries(texts, i, max_size=3), max_leaves=8)


def plausible(kind: Any, draw: st.DrawFn) -> Any:
    """A value that fits a field of the models more often than not."""
    if draw(st.integers(0, 60)) == 0:
        return draw(junk)
    if isinstance(kind, type) and issubclass(kind, checked.Part):
        fields, kinds = checked.fields(kind), checked.kinds(kind)
        names = draw(st.sets(st.sampled_from(sorted(fields)), max_size=4))
        names |= {name for name, info in fields.items() if info.required}
        return {info.key: plausible(kinds[name], draw) for name, info in fields.items() if name in names}
    origin, arguments = get_origin(kind), [k for k in get_args(kind) if k not in (type(None), ...)]
    if origin is Annotated or origin in (Union, UnionType):
        return plausible(draw(st.sampled_from(arguments[:1] if origin is Annotated else arguments)), draw)
    if origin is tuple:
        return [plausible(arguments[0], draw) for _ in range(draw(st.integers(0, 2)))]
    if origin is dict:
        return draw(st.dictionaries(texts, texts, max_size=2))
    if origin is Literal:
        return draw(st.sampled_from(arguments))
    return draw({str: texts, bool: st.booleans(), int: st.integers(-1, 70000)}[kind])


@st.composite
def specs(draw: st.DrawFn) -> Any:
    return plausible(draw(st.sampled_from([Spec, OldSpec])), draw)


def outcome(source: str | bytes, strict: bool) -> str:
    """Load and plan; what is wrong, or "". Anything but a PxeServerError comes through."""
    try:
        loaded = loader.load([loader.SpecSource("f", source)], strict=strict)
        images = {use.ref: ImageDefaults() for use in plan.uses(loaded)}
        made = plan.plan(loaded, images, lambda _: False)
    except PxeServerError as error:
        assert error.where is not None and str(error.where)
        assert not error.message.endswith(".")
        return error.slug
    assert all(isinstance(w, str) for w in made.warnings)
    return ""


@given(specs() | junk, st.booleans())
def test_any_document_is_a_plan_or_a_fault(data: Any, strict: bool) -> None:
    outcome(yaml.safe_dump(data), strict)


@given(st.binary(max_size=80) | st.text(max_size=80), st.booleans())
def test_any_text_is_a_plan_or_a_fault(text: str | bytes, strict: bool) -> None:
    outcome(text, strict)


@given(specs())
def test_what_linuxkit_accepts_is_never_refused(data: Any) -> None:
    """Strict is LinuxKit; everything else may only accept more."""
    text = yaml.safe_dump(data)
    if outcome(text, strict=True) == "":
        assert outcome(text, strict=False) == ""
