"""The order of the tree, folders, ids, shared images, volumes, and the 2017 form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit import plan
from pxeserver.linuxkit.entries import (
    ContainerEntry,
    InitEntry,
    KernelEntry,
    Plan,
    TreeEntry,
    VolumeEntry,
)

Planned = Callable[..., Plan]


def containers(made: Plan) -> list[ContainerEntry]:
    return [e for e in made.entries if isinstance(e, ContainerEntry)]


def test_order_locations_and_folders(planned: Planned, load: Any) -> None:
    text = (
        "files: [{path: f, contents: ''}]\nservices: [{name: s, image: c}]\nonshutdown: [{name: d, image: b}]\n"
        "onboot: [{name: o, image: a}, {name: o, image: lab/a}]\nvolumes: [{name: v, image: vol}, {name: w}]\n"
        "init: [i, 'lab/j:1']\nkernel: {image: k, cmdline: quiet}\n"
    )
    made = planned(text)
    assert [(type(e), e.location) for e in made.entries] == [
        (KernelEntry, "kernel"),
        (InitEntry, "init[0]"),
        (InitEntry, "init[1]"),
        (VolumeEntry, "volume[0]"),
        (VolumeEntry, "volume[1]"),
        (ContainerEntry, "onboot[0]"),
        (ContainerEntry, "onboot[1]"),
        (ContainerEntry, "onshutdown[0]"),
        (ContainerEntry, "services[0]"),
        (TreeEntry, "files[0]"),
    ]
    assert made.cmdline == "quiet"
    assert [c.folder for c in containers(made)] == [
        "containers/onboot/000-o",
        "containers/onboot/001-o",
        "containers/onshutdown/000-d",
        "containers/services/s",
    ]
    used = [(u.ref.removeprefix("docker.io/"), u.location, u.where.line) for u in plan.uses(load(text))]
    assert used == [
        ("library/k", "kernel", 7),
        ("library/i", "init[0]", 6),
        ("lab/j:1", "init[1]", 6),
        ("library/vol", "volume[0]", 5),
        ("library/a", "onboot[0]", 4),
        ("lab/a", "onboot[1]", 4),
        ("library/b", "onshutdown[0]", 3),
        ("library/c", "services[0]", 2),
    ]


@pytest.mark.parametrize(
    ("kernel", "strict", "binaries", "tar", "ucode"),
    [
        ("{image: k}", True, ("kernel",), "kernel.tar", ""),
        ("{image: k}", False, ("kernel", "bzImage"), "kernel.tar", ""),
        ("{image: k, binary: x/y, tar: none, ucode: u}", False, ("x/y",), "", "u"),
        ("{image: k, tar: ''}", True, ("kernel",), "", ""),
        ("{image: k, tar: t, ucode: ''}", True, ("kernel",), "t", ""),
    ],
)
def test_kernel(planned: Planned, kernel: str, strict: bool, binaries: tuple[str, ...], tar: str, ucode: str) -> None:
    (entry,) = planned(f"kernel: {kernel}", strict=strict).entries
    assert isinstance(entry, KernelEntry)
    assert (entry.binaries, entry.tar, entry.ucode) == (binaries, tar, ucode)


def test_without_a_kernel_image_there_is_no_kernel_and_no_command_line(planned: Planned) -> None:
    assert planned("kernel: {cmdline: x}") == Plan((), "")


def test_ids_count_through_all_sections_and_a_repeated_name_keeps_its_last(planned: Planned) -> None:
    made = planned(
        "onboot: [{name: a, image: x, uid: a}, {name: b, image: x}]\nonshutdown: [{name: c, image: x, uid: b}]\n"
        "services: [{name: a, image: x, uid: c}]\n"
    )
    users = [json.loads(c.config_json)["process"]["user"]["uid"] for c in containers(made)]
    assert users == [103, 0, 101, 102]


def test_an_image_is_extracted_once_and_referred_to_by_its_full_name(planned: Planned) -> None:
    made = planned(
        "onboot:\n  - {name: a, image: x}\n  - {name: b, image: x, readonly: true}\n"
        "  - {name: c, image: 'x:1', readonly: true}\n  - {name: d, image: 'library/x:1'}\n"
        "services: [{name: e, image: docker.io/library/x}]\n"
    )
    assert [c.extract_to for c in containers(made)] == [
        "containers/onboot/000-a/lower", "", "containers/onboot/002-c/rootfs", "", "",
    ]  # fmt: skip
    roots = [json.loads(c.runtime_json)["mounts"][-1] for c in containers(made)]
    assert [r.get("source") if r["options"] == ["bind"] else r["options"][0] for r in roots] == [
        "lowerdir=/containers/onboot/000-a/lower",
        "/containers/onboot/000-a/lower",
        "/containers/onboot/002-c/rootfs",
        "lowerdir=/containers/onboot/002-c/rootfs",
        "lowerdir=/containers/onboot/000-a/lower",
    ]
    assert [[f.rpartition("/")[2] for f in c.folders] for c in containers(made)] == [
        ["tmp", "rootfs"], ["rootfs"], [], ["tmp", "rootfs"], ["tmp", "rootfs"],
    ]  # fmt: skip


def test_readonly_may_come_from_the_label(planned: Planned) -> None:
    (entry,) = containers(planned("services: [{name: s, image: x}]", labels={"x": {"readonly": True}}))
    assert entry.readonly and entry.extract_to == "containers/services/s/rootfs"


def test_volumes(planned: Planned) -> None:
    made = planned(
        "volumes: [{name: a}, {name: b, image: i}, {name: c, image: i, format: oci, platforms: [linux/arm64]}]"
    )
    found = [(e.name, e.ref, e.format, e.platforms, e.folder) for e in made.entries if isinstance(e, VolumeEntry)]
    assert found == [
        ("a", "", "filesystem", (), "containers/volumes/a"),
        ("b", "docker.io/library/i", "filesystem", (), "containers/volumes/b"),
        ("c", "docker.io/library/i", "oci", ("linux/arm64",), "containers/volumes/c"),
    ]


VOLUMES = "volumes: [{name: v}, {name: r, readonly: true}]\n"


@pytest.mark.parametrize(
    ("fields", "strict", "fixed"),
    [
        ("binds: ['v:/d']", "/containers/volumes/v/merged", "/containers/volumes/v/merged"),
        ("binds.add: ['v:/d:rw']", "/containers/volumes/v/merged", "/containers/volumes/v/merged"),
        ("binds: ['r:/d:ro']", "/containers/volumes/r/merged", "/containers/volumes/r/merged"),
        ("binds: ['r:/d:ro,rshared']", "volume-readonly", "/containers/volumes/r/merged"),
        ("binds: ['r:/d']", "volume-readonly", "volume-readonly"),
        ("binds: ['r:/d:rw']", "volume-readonly", "volume-readonly"),
        ("binds: ['w:/d']", "unknown-volume", "unknown-volume"),
        ("binds: ['./v:/d']", "unknown-volume", "unknown-volume"),
        ("mounts: [{type: bind, source: v, destination: /d}]", "v", "/containers/volumes/v/merged"),
        ("mounts: [{type: bind, source: r, destination: /d}]", "volume-readonly", "volume-readonly"),
        ("mounts: [{type: bind, source: r, destination: /d, options: [ro]}]", "r", "/containers/volumes/r/merged"),
        ("mounts: [{type: bind, source: r, destination: /d, options: [rw, ro]}]", "volume-readonly", "volume-readonly"),
        ("mounts: [{type: bind, source: w, destination: /d}]", "unknown-volume", "unknown-volume"),
        ("mounts: [{type: tmpfs, source: w, destination: /d}]", "w", "w"),
    ],
)
def test_a_source_without_a_slash_is_a_volume(planned: Planned, fields: str, strict: str, fixed: str) -> None:
    for wanted, mode in ((strict, True), (fixed, False)):
        text = f"{VOLUMES}services: [{{name: s, image: x, {fields}}}]"
        try:
            (entry,) = containers(planned(text, strict=mode))
        except UsageError as error:
            assert error.slug == wanted
            assert f"services[0].{fields.partition(':')[0]}[0]" in str(error)
            continue
        mount = next(m for m in json.loads(entry.config_json)["mounts"] if m["destination"] == "/d")
        assert mount["source"] == wanted


def test_label_binds_never_name_volumes(planned: Planned) -> None:
    (entry,) = containers(planned("services: [{name: s, image: x}]", labels={"x": {"binds": ["v:/d"]}}))
    assert '"source": "v"' in entry.config_json.decode()


@pytest.mark.parametrize("name", ["", "a/b", ".", ".."])
def test_a_name_that_is_never_looked_at_is_a_warning(planned: Planned, name: str) -> None:
    text = f"services: [{{name: '{name}', image: x}}]"
    (warning,) = planned(text).warnings
    assert "services[0].name" in warning and "never started" in warning
    assert planned(text, strict=True).warnings == ()


OLD = """
kernel: {image: k}
init: lab/init:1
system:
  - {name: sysctl, image: x, network_mode: host, read_only: true, oom_score_adj: -100, disableOOMKiller: true}
daemon:
  - {name: web, image: x, net: new, binds: [bad]}
outputs: [{format: kernel+initrd}, {format: qcow2}, {format: gcp-img}, {format: gcp}]
"""


def test_the_form_of_2017_is_todays_spec_with_a_warning(load: Any, planned: Planned) -> None:
    good = OLD.replace("bad", "/a:/b")
    loaded = load(good)
    assert loaded.legacy and loaded.formats == ("kernel+initrd", "qcow2-bios", "gcp")
    (warning,) = loaded.warnings
    assert all(word in warning for word in ("outputs", "system", "daemon", "init", "network_mode", "read_only"))
    made = planned(good)
    assert [c.folder for c in containers(made)] == ["containers/onboot/000-sysctl", "containers/services/web"]
    sysctl = json.loads(containers(made)[0].config_json)
    assert sysctl["root"]["readonly"] is True and sysctl["process"]["oomScoreAdj"] == -100
    assert sysctl["linux"]["namespaces"] == [{"type": "pid"}, {"type": "mount"}]
    assert sysctl["linux"]["resources"] == {"memory": {"disableOOMKiller": True}}
    assert str(loaded.place("onboot", 0, "readonly")) == "1.yml:5:5: system[0].readonly"
    assert not load("services: [{name: s, image: x, net: host}]\ntrust: {org: [a]}").legacy


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (OLD, "1.yml:7:45: daemon[0].binds[0]", "bad"),
        ("system: [{name: a, image: x, nett: x}]", "system[0].nett", '"net"'),
        ("system: [{name: a, image: x}]\nonboot: [{name: b, image: x}]", "1.yml:1:1: system", "onboot"),
        ("system: [{name: a, image: x, network_mode: host, net: new}]", "system[0].network_mode", '"net"'),
        ("system: [{name: a, image: x, oom_score_adj: 1, oomScoreAdj: 1}]", "system[0].oom_score_adj", "oomScoreAdj"),
        ("system: [{name: a, image: Bad}]", "1.yml:1:27: system[0].image", "small letters"),
        ("daemon: [{name: a, image: x}, {name: a, image: x}]", "1.yml:1:38: daemon[1].name", "duplicate"),
        ("outputs: [{format: 1}]", "outputs[0].format", "text"),
        ("outputs: [{format: a, bucket: b}]", "outputs[0].bucket", "unknown key"),
    ],
)
def test_a_fault_in_the_form_of_2017_is_named_by_its_own_words(
    planned: Planned, text: str, place: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(text)
    assert place in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "init: lab/init:1",
        "outputs: []",
        "system: []",
        "daemon: []",
        *(
            f"services: [{{name: a, image: x, {k}}}]"
            for k in ("network_mode: a", "read_only: true", "oom_score_adj: 1")
        ),
        "services: [{name: a, image: x, disableOOMKiller: true}]",
    ],
)
def test_strict_refuses_the_form_of_2017_and_says_so(load: Any, text: str) -> None:
    assert load(text).legacy
    with pytest.raises(UsageError) as caught:
        load(text, strict=True)
    assert "2017" in caught.value.hint


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("", "services"), (".", "services"), ("a//b/", "services/a/b"), ("a/../b", "services/b")]
)
def test_a_containers_folder_is_spelled_as_gos_path_join_does(
    planned: Planned, name: str, folder: str, strict: bool
) -> None:
    (entry,) = containers(planned(f'services: [{{name: "{name}", image: x}}]', strict=strict))
    assert entry.folder == f"containers/{folder}" and entry.extract_to == f"containers/{folder}/lower"
    assert f'"/containers/{folder}/tmp"'.encode() in entry.runtime_json
