"""The label org.mobyproject.config under what a spec writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pxeserver import checked
from pxeserver.errors import UsageError, Where
from pxeserver.linuxkit import label
from pxeserver.linuxkit.spec import ContainerSpec

FULL: dict[str, Any] = {
    "capabilities": ["CAP_KILL"],
    "binds": ["/run:/run"],
    "mounts": [{"type": "cgroup", "options": ["rw"]}],
    "tmpfs": ["/tmp"],
    "command": ["/label"],
    "env": ["LABEL=1"],
    "cwd": "/label",
    "net": "new",
    "pid": "host",
    "hostname": "label",
    "readonly": True,
    "uid": 11,
    "additionalGids": [13],
    "noNewPrivileges": True,
    "oomScoreAdj": -800,
    "rootfsPropagation": "shared",
    "cgroupsPath": "/label",
    "sysctl": {"a": "1"},
    "annotations": {"a": "label"},
    "resources": {"memory": {"limit": 1}},
    "runtime": {"mkdir": ["/l"], "cgroups": ["l"], "bindNS": {"net": "/l", "ipc": "/l"}, "namespace": "l"},
}


def merged(own: dict[str, Any], text: Any, **kw: Any) -> dict[str, Any]:
    faults: list[checked.Fault] = []
    spec: ContainerSpec = checked.check(ContainerSpec, {"name": "s", "image": "x", **own}, faults)
    assert not faults
    given = text if isinstance(text, str) else json.dumps(text)
    made: dict[str, Any] = checked.plain(label.merge(spec, given, **kw).spec, keys=True, none=False, defaults=False)
    made["runtime"] = {k: v for k, v in made["runtime"].items() if v}
    return {k: v for k, v in made.items() if k not in ("name", "image") and (k, v) != ("runtime", {})}


@pytest.mark.parametrize("strict", [False, True])
def test_a_silent_spec_gets_the_whole_label(strict: bool) -> None:
    assert merged({}, FULL, strict=strict) == FULL
    assert merged({}, "", strict=strict) == merged({}, "{}", strict=strict) == {}


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_written_wins_even_when_it_is_empty(strict: bool) -> None:
    empty: dict[str, Any] = {
        "capabilities": [], "binds": [], "mounts": [], "tmpfs": [], "command": [], "env": [], "readonly": False,
        "uid": 0, "additionalGids": [], "noNewPrivileges": False, "oomScoreAdj": 0, "rootfsPropagation": "",
        "cgroupsPath": "", "sysctl": {}, "annotations": {}, "resources": {},
    }  # fmt: skip
    got = merged(empty, FULL, strict=strict)
    assert {k: got[k] for k in empty} == empty
    assert set(got) - set(empty) == {"cwd", "net", "pid", "hostname", "runtime"}


def test_an_empty_plain_text_is_not_written() -> None:
    got = merged({"cwd": "", "net": "", "pid": "", "hostname": ""}, FULL)
    assert (got["cwd"], got["net"], got["pid"], got["hostname"]) == ("/label", "new", "host", "label")
    assert merged({"net": "host"}, FULL)["net"] == "host"


def test_runtime_merges_member_by_member() -> None:
    own = {"runtime": {"mkdir": ["/s"], "bindNS": {"ipc": "", "net": "/s"}}}
    runtime = merged(own, FULL)["runtime"]
    assert runtime == {
        "mkdir": ["/s"], "cgroups": ["l"], "namespace": "l", "bindNS": {"net": "/s", "ipc": ""},
    }  # fmt: skip


ADD = {"capabilities.add": ["CAP_A"], "binds.add": ["/a:/a"]}
LISTS = {"capabilities": ["CAP_L"], "binds": ["/l:/l"]}
BOTH = {**LISTS, "capabilities.add": ["CAP_LA"], "binds.add": ["/la:/la"]}


@pytest.mark.parametrize(
    ("own", "text", "strict", "fixed"),
    [
        (ADD, LISTS, ["CAP_L", "CAP_A"], ["CAP_L", "CAP_A"]),
        (ADD, {}, ["CAP_A"], ["CAP_A"]),
        ({}, BOTH, ["CAP_L"], ["CAP_L", "CAP_LA"]),
        (ADD, BOTH, ["CAP_L", "CAP_A"], ["CAP_L", "CAP_LA", "CAP_A"]),
        ({**ADD, "capabilities": ["CAP_S"], "binds": ["/s:/s"]}, BOTH, ["CAP_S"], ["CAP_S", "CAP_A"]),
        ({"capabilities": ["CAP_S"], "binds": ["/s:/s"]}, BOTH, ["CAP_S"], ["CAP_S"]),
        ({"capabilities.add": ["CAP_A", "CAP_L"]}, LISTS, ["CAP_L", "CAP_A", "CAP_L"], ["CAP_L", "CAP_A", "CAP_L"]),
        ({"capabilities.add": ["CAP_A"]}, {"capabilities": ["all"]}, ["all", "CAP_A"], ["all"]),
        ({"capabilities.add": ["CAP_A"]}, {"capabilities": ["None"]}, ["None", "CAP_A"], ["CAP_A"]),
        ({}, {"capabilities": ["none"]}, ["none"], ["none"]),
    ],
)
def test_additions(own: dict[str, Any], text: dict[str, Any], strict: list[str], fixed: list[str]) -> None:
    assert list(merged(own, text, strict=True)["capabilities"]) == strict
    assert list(merged(own, text)["capabilities"]) == fixed


def test_binds_are_added_in_the_same_way() -> None:
    assert merged(ADD, BOTH, strict=True)["binds"] == ["/l:/l", "/a:/a"]
    assert merged(ADD, BOTH)["binds"] == ["/l:/l", "/la:/la", "/a:/a"]


def test_a_label_may_be_yaml() -> None:
    got = merged({}, "net: host\nreadonly: true\n")
    assert (got["net"], got["readonly"]) == ("host", True)


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ('{"nosuch": 1}', "label-unknown-key", "nosuch"),
        ('{"net": 1}', "label-type", "net"),
        ('{"binds": [1]}', "label-type", "binds[0]"),
        ('{"name": "x"}', "label-value", "name cannot be set"),
        ('{"image": "x"}', "label-value", "image cannot be set"),
        ("[1]", "label-type", "must be a map"),
        (" ", "label-type", "must be a map"),
        ("{", "yaml-syntax", "not YAML"),
    ],
)
def test_a_bad_label_is_named(text: str, slug: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        merged({}, text)
    assert caught.value.slug == slug
    assert words in str(caught.value) and "label org.mobyproject.config of x" in str(caught.value)


LABEL = "label org.mobyproject.config of x"


@pytest.mark.parametrize(
    ("fields", "text", "place"),
    [
        ("capabilities.add: [CAP_KILL, CAP_BAD]", {"capabilities": ["CAP_CHOWN"]}, "1.yml:1:61: {}capabilities.add[1]"),
        ("capabilities.add: [CAP_KILL]", {"capabilities": ["CAP_L"]}, f"{LABEL}:1:19: capabilities[0]"),
        ("binds.add: [x]", {"binds": ["/a:/a"]}, "1.yml:1:44: {}binds.add[0]"),
        ("", {"binds": ["/a"]}, f"1.yml:1:29: services[0].image: {LABEL}:1:12: binds[0]"),
        ("", {"rlimits": ["x"]}, f"{LABEL}:1:14: rlimits[0]"),
        ("rlimits: [x]", {"rlimits": []}, "1.yml:1:42: {}rlimits[0]"),
        ("", {"uid": "who"}, f"{LABEL}:1:9: uid"),
    ],
)
def test_a_later_fault_leads_to_the_label_or_to_the_spec(
    config_of: Callable[..., Any], fields: str, text: Any, place: str
) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(fields, text)
    assert place.replace("{}", "services[0].") in str(caught.value)


def test_place_of_what_nobody_wrote_is_the_container() -> None:
    spec = ContainerSpec(name="s", image="x")
    made = label.merge(spec, "", place=lambda *path: Where("f", 1, 1, str(path)))
    assert made.place("uid") == Where("f", 1, 1, "('uid',)")
