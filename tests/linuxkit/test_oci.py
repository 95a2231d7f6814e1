"""config.json and runtime.json, as whole files and member by member."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit import gojson
from pxeserver.linuxkit.capabilities import ALL
from pxeserver.linuxkit.entries import ContainerEntry, ImageDefaults, Plan

ConfigOf = Callable[..., dict[str, Any]]
EVERYTHING = (Path(__file__).parent / "specs" / "everything.yml").read_text()


@pytest.mark.parametrize("strict", [False, True])
def test_every_field_as_a_whole_file(planned: Callable[..., Plan], golden: Any, strict: bool) -> None:
    made = planned(EVERYTHING, strict=strict)
    entry = next(e for e in made.entries if isinstance(e, ContainerEntry))
    form = "strict" if strict else "fixed"
    golden(f"everything.{form}.config.json", entry.config_json)
    golden(f"everything.{form}.runtime.json", entry.runtime_json)


def test_a_silent_container_as_a_whole_file(planned: Callable[..., Plan], golden: Any) -> None:
    for strict in (False, True):
        (entry,) = planned("services: [{name: s, image: x}]", strict=strict).entries
        assert isinstance(entry, ContainerEntry)
        golden("silent.config.json", entry.config_json)
        golden("silent.runtime.json", entry.runtime_json)


def test_go_writes_json_like_this() -> None:
    value = {"t": '<&> \u2028\u2029 é 😀 \x7f \x01 \b\f\n\t"\\ \udcff', "e": [], "m": {}, "n": None, "l": [1, True]}
    assert gojson.dumps(value).decode() == (
        "{\n"
        '    "t": "\\u003c\\u0026\\u003e \\u2028\\u2029 é 😀 \x7f \\u0001 \\b\\f\\n\\t\\"\\\\ \\ufffd",\n'
        '    "e": [],\n    "m": {},\n    "n": null,\n    "l": [\n        1,\n        true\n    ]\n}'
    )


def test_defaults_come_from_the_image_config() -> None:
    config = {"config": {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1"], "WorkingDir": "/w", "Labels": {"l": "v"}}}
    assert ImageDefaults.of(config) == ImageDefaults(("/e",), ("c",), ("A=1",), "/w", {"l": "v"})
    empty = {"config": {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None}}
    assert ImageDefaults.of({}) == ImageDefaults.of({"config": None}) == ImageDefaults.of(empty) == ImageDefaults()


def test_process_members(config_of: ConfigOf) -> None:
    process = config_of()["process"]
    assert process == {"user": {"uid": 0, "gid": 0}, "args": ["/run"], "cwd": "/", "capabilities": {}}
    assert "args" not in config_of("command: []")["process"]
    process = config_of("command: [a], env: [B=2], cwd: /c, oomScoreAdj: 0, noNewPrivileges: false")["process"]
    assert (process["args"], process["env"], process["cwd"], process["oomScoreAdj"]) == (["a"], ["B=2"], "/c", 0)
    assert "noNewPrivileges" not in process


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("uid: 5, gid: s", {"uid": 5, "gid": 100}),
        ("uid: root, gid: ''", {"uid": 0, "gid": 0}),
        ("uid: -1", {"uid": 4294967295, "gid": 0}),
        ("additionalGids: [s, 7, root]", {"uid": 0, "gid": 0, "additionalGids": [100, 7, 0]}),
        ("additionalGids: []", {"uid": 0, "gid": 0}),
    ],
)
def test_users(config_of: ConfigOf, fields: str, wanted: dict[str, Any]) -> None:
    assert config_of(fields)["process"]["user"] == wanted


def test_all_and_none_capabilities(config_of: ConfigOf) -> None:
    sets = config_of("capabilities: [All]")["process"]["capabilities"]
    assert tuple(sets["effective"]) == ALL and len(ALL) == 41 and "ambient" not in sets
    assert sets["bounding"] == sets["permitted"] == sets["inheritable"] == sorted(ALL)
    assert config_of("capabilities: [NONE], ambient: [none]")["process"]["capabilities"] == {}


def test_capability_sets_keep_their_order_and_repeats(config_of: ConfigOf) -> None:
    sets = config_of("capabilities: [CAP_NET_ADMIN, CAP_CHOWN, CAP_NET_ADMIN], ambient: [CAP_KILL]")
    assert sets["process"]["capabilities"] == {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"],
        "effective": ["CAP_NET_ADMIN", "CAP_CHOWN", "CAP_NET_ADMIN"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"],
        "ambient": ["CAP_KILL"],
    }


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("", "pid mount"),
        ("net: host, ipc: root, uts: '', userns: host, pid: root", "mount"),
        ("net: new, ipc: new, uts: new, userns: new, pid: new", "network ipc uts pid user mount"),
        ("net: none, pid: host", "network mount"),
        ("net: /run/netns/x, pid: /p", "network=/run/netns/x pid=/p mount"),
        ("ipc: none, pid: host", "ipc=none mount"),
    ],
)
def test_namespaces(config_of: ConfigOf, fields: str, wanted: str) -> None:
    found = config_of(fields)["linux"]["namespaces"]
    assert " ".join(n["type"] + (f"={n['path']}" if "path" in n else "") for n in found) == wanted


def test_a_namespace_that_looks_like_a_slip_is_a_warning(planned: Callable[..., Plan]) -> None:
    text = "services: [{name: s, image: x, net: hots}]"
    (warning,) = planned(text).warnings
    assert "1.yml:1:37: services[0].net" in warning and "hots" in warning
    assert planned(text, strict=True).warnings == ()


def mount(config: dict[str, Any], destination: str) -> Any:
    return next((m for m in config["mounts"] if m["destination"] == destination), None)


def test_default_mounts_are_read_only_when_the_root_is(config_of: ConfigOf) -> None:
    config = config_of("readonly: true")
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert [m["destination"] for m in config["mounts"]] == ["/dev", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup"]
    assert [m["options"][-1] == "ro" for m in config["mounts"]] == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("fields", "destination", "kind", "source", "options"),
    [
        ("tmpfs: ['/t']", "/t", "tmpfs", "tmpfs", None),
        ("tmpfs: ['/t:size=1m,ro']", "/t", "tmpfs", "tmpfs", ["size=1m", "ro"]),
        ("tmpfs: ['/t:']", "/t", "tmpfs", "tmpfs", [""]),
        ("binds: ['/a:/b']", "/b", "bind", "/a", ["rw", "rbind", "rshared"]),
        ("binds: ['/a:/b:ro,rbind']", "/b", "bind", "/a", ["ro", "rbind", "rbind"]),
        ("binds: ['/a:/b:']", "/b", "bind", "/a", ["", "rbind"]),
        ("binds: ['/a:/proc']", "/proc", "bind", "/a", ["rw", "rbind", "rshared"]),
        ("tmpfs: ['/b'], binds: ['/a:/b']", "/b", "bind", "/a", ["rw", "rbind", "rshared"]),
        ("binds: ['/a:/b'], mounts: [{type: tmpfs, destination: /b}]", "/b", "tmpfs", "tmpfs", None),
        ("mounts: [{type: proc, options: [ro]}]", "/proc", "proc", "proc", ["ro"]),
        ("mounts: [{source: mqueue}]", "/dev/mqueue", "mqueue", "mqueue", None),
        ("mounts: [{destination: /dev, options: [a]}]", "/dev", "tmpfs", "tmpfs", ["a"]),
        ("mounts: [{type: devpts}]", "/dev/pts", "devpts", "devpts", None),
        ("mounts: [{type: bind, source: /s, destination: /d}]", "/d", "bind", "/s", None),
    ],
)
def test_mounts(config_of: ConfigOf, fields: str, destination: str, kind: str, source: str, options: Any) -> None:
    got = mount(config_of(fields), destination)
    assert (got["type"], got["source"], got.get("options")) == (kind, source, options)


def test_mounts_are_sorted_by_bytes(config_of: ConfigOf) -> None:
    found = [m["destination"] for m in config_of("tmpfs: [/é, /z, /Z, /dev-x, '/\U0001f600', '/\ufffd']")["mounts"]]
    assert found == sorted(found, key=str.encode)


def test_devices_bring_their_own_rules(config_of: ConfigOf) -> None:
    fields = "devices: [{path: all, type: b}, {path: /dev/null, type: c, major: 1, minor: 3, mode: '0666'}]"
    linux = config_of(fields + ", resources: {devices: [{access: rwm}]}")["linux"]
    assert linux["devices"] == [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nofile,1,2", ("RLIMIT_NOFILE", 1, 2)),
        (" RLIMIT_core , 0 , Unlimited", ("RLIMIT_CORE", 0, (1 << 64) - 1)),
        ("as,18446744073709551615,0", ("RLIMIT_AS", (1 << 64) - 1, 0)),
    ],
)
def test_rlimits(config_of: ConfigOf, text: str, wanted: tuple[str, int, int]) -> None:
    (limit,) = config_of(f"rlimits: ['{text}']")["process"]["rlimits"]
    assert list(limit) == ["type", "hard", "soft"]
    assert (limit["type"], limit["soft"], limit["hard"]) == wanted


def test_parts_of_resources_that_say_nothing(config_of: ConfigOf) -> None:
    fields = "resources: {memory: {}, cpu: {}, pids: {}, blockio: {}, network: {}, devices: [], hugepageLimits: []}"
    empty: dict[str, Any] = {"memory": {}, "cpu": {}, "pids": {"limit": 0}, "blockIO": {}, "network": {}}
    assert config_of(fields)["linux"]["resources"] == config_of(fields, strict=True)["linux"]["resources"] == empty


def test_page_sizes_are_named_as_the_kernel_names_them(config_of: ConfigOf) -> None:
    sizes = [2048, 65536, 2097152, 1073741824, 3000, 0]
    limits = ", ".join(f"{{pageSize: {s}, limit: 1}}" for s in sizes)
    found = config_of(f"resources: {{hugepageLimits: [{limits}]}}")["linux"]["resources"]["hugepageLimits"]
    assert [h["pageSize"] for h in found] == ["2KB", "64KB", "2MB", "1GB", "3000B", "0B"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("fields", "slug", "place", "words"),
    [
        ("capabilities: [cap_chown]", "unknown-capability", "capabilities[0]", 'did you mean "CAP_CHOWN"'),
        ("capabilities: [NET_ADMIN]", "unknown-capability", "capabilities[0]", 'did you mean "CAP_NET_ADMIN"'),
        ("ambient: [CAP_KILL, CAP_KIL]", "unknown-capability", "ambient[1]", 'did you mean "CAP_KILL"'),
        ("ambient: [all, CAP_KILL]", "unknown-capability", "ambient[0]", "stand alone"),
        ("binds: [/x]", "bad-bind", "binds[0]", "no colon"),
        ("binds: ['/a:/b', '/a:/b:c:d']", "bad-bind", "binds[1]", "more than two colons"),
        ("tmpfs: ['/x:a:b']", "bad-tmpfs", "tmpfs[0]", "more than one colon"),
        ("mounts: [{type: tmpfs}]", "bad-mount", "mounts[0].destination", '"tmpfs" has no destination'),
        ("mounts: [{destination: /x}]", "bad-mount", "mounts[0].type", '"/x" has no type'),
        ("devices: [{path: /dev/x, type: c}]", "bad-mode", "devices[0].mode", '"/dev/x"'),
        ("devices: [{path: /dev/x, mode: '0899'}]", "bad-mode", "devices[0].mode", '"0899"'),
        ("rlimits: ['nofile,1']", "bad-rlimit", "rlimits[0]", "nofile,1"),
        ("rlimits: ['nofile,x,2']", "bad-rlimit", "rlimits[0]", '"x"'),
        ("rlimits: ['nofile,-1,2']", "bad-rlimit", "rlimits[0]", '"-1"'),
        ("rlimits: ['nofiles,1,2']", "bad-rlimit", "rlimits[0]", 'did you mean "NOFILE"'),
        ("uid: nobody", "unknown-id", "uid", '"nobody"'),
        ("gid: '1000'", "unknown-id", "gid", "without quotes"),
        ("additionalGids: [0, who]", "unknown-id", "additionalGids[1]", '"who"'),
    ],
)
def test_what_cannot_be_run_is_refused(
    config_of: ConfigOf, fields: str, slug: str, place: str, words: str, strict: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        config_of(fields, strict=strict)
    assert caught.value.slug == slug
    assert f"services[0].{place}" in str(caught.value) and words in caught.value.render()
    assert caught.value.where is not None and caught.value.where.line == 1


def test_what_linuxkit_loses_is_kept_with_a_warning_but_lost_when_strict(planned: Callable[..., Plan]) -> None:
    text = "services: [{name: s, image: x, resources: {memory: {limit: 1, kernelTCP: 2}}, uidMappings: [{hostID: 1}]}]"

    def linux(made: Plan) -> Any:
        (entry,) = made.entries
        assert isinstance(entry, ContainerEntry)
        return json.loads(entry.config_json)["linux"]

    kept = planned(text)
    assert linux(kept)["resources"]["memory"] == {"limit": 1, "kernelTCP": 2}
    assert linux(kept)["uidMappings"] == [{"containerID": 0, "hostID": 1, "size": 0}]
    (warning,) = kept.warnings
    assert "services[0]" in warning and "resources.memory.kernelTCP, uidMappings" in warning
    strict = planned(text, strict=True)
    assert linux(strict)["resources"]["memory"] == {"limit": 1}
    assert linux(strict)["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 0}]
    assert strict.warnings == ()


def test_a_label_loses_the_same_fields_when_strict(config_of: ConfigOf) -> None:
    given = {"resources": {"cpu": {"shares": 1, "realtimePeriod": 2}}}
    assert config_of(label=given, strict=True)["linux"]["resources"] == {"cpu": {"shares": 1}}
    assert config_of(label=given)["linux"]["resources"] == {"cpu": {"shares": 1, "realtimePeriod": 2}}
