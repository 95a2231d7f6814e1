"""Layers laid over one another: LinuxKit's accidents in strict, the image specification otherwise."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from imagelab import Bases, device, file, folder, hardlink, symlink

from pxeserver.errors import PxeServerError
from pxeserver.images import flatten
from pxeserver.images.entry import FILE, FIXED_TIME, Entry
from pxeserver.images.flatten import Use
from pxeserver.images.layers import BaseImage

MUST = ["dev", "dev/pts", "dev/shm", "etc", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys"]


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path)


def names(base: BaseImage, *, strict: bool = False) -> list[str]:
    return [e.name for e in flatten.files(base, strict=strict)]


def contents(entries: list[Entry]) -> dict[str, bytes]:
    return {e.name: e.open().read(e.size) for e in entries if e.kind == FILE and e.open}


@pytest.mark.parametrize("strict", [True, False])
def test_top_layer_first_and_what_it_has_hides_the_lower(bases: Bases, strict: bool) -> None:
    base = bases.image(
        "l/a:1",
        [folder("./d"), file("./d/low"), file("./d/both", b"old"), file("./x/y")],
        [folder("d", 0o700), file("d/both", b"new"), file("x", b"now a file")],
    )
    got = [(e.name, e.mode) for e in flatten.files(base, strict=strict)]
    assert got == [("d", 0o700), ("d/both", 0o644), ("x", 0o644), ("d/low", 0o644)]


@pytest.mark.parametrize("strict", [True, False])
def test_a_whiteout_hides_a_path_and_its_children(bases: Bases, strict: bool) -> None:
    base = bases.image("l/a:1", [folder("d"), file("d/x"), file("keep"), file("f")], [file(".wh.d"), file(".wh.f")])
    assert names(base, strict=strict) == ["keep"]


def test_opaque_folders_are_honoured_but_not_by_linuxkit(bases: Bases) -> None:
    base = bases.image(
        "l/a:1",
        [folder("d"), file("d/old"), folder("d/s"), file("d/s/old"), file("e")],
        [folder("d"), file("d/new"), file("d/.wh..wh..opq")],
    )
    assert names(base) == ["d", "d/new", "e"]
    assert names(base, strict=True) == ["d", "d/new", "d/old", "d/s", "d/s/old", "e"]


def test_an_opaque_root_hides_all_below(bases: Bases) -> None:
    base = bases.image("l/a:1", [file("old"), file("d/old")], [file(".wh..wh..opq"), file("new")])
    assert names(base) == ["new"]


def test_a_path_removed_and_added_again_in_one_layer_stays(bases: Bases) -> None:
    base = bases.image(
        "l/a:1",
        [file("f", b"old"), folder("d"), file("d/old")],
        [file(".wh.f"), file("f", b"new"), file(".wh.d"), folder("d"), file("d/new")],
    )
    assert names(base) == ["f", "d", "d/new"]
    assert names(base, strict=True) == []


def test_the_last_of_duplicates_counts_and_the_first_for_linuxkit(bases: Bases) -> None:
    base = bases.image("l/a:1", [file("f", b"one"), file("f", b"two")])
    fixed = [e.open().read(9) for e in flatten.files(base) if e.open]
    strict = [e.open().read(9) for e in flatten.files(base, strict=True) if e.open]
    assert (fixed[-1], strict) == (b"two", [b"one"])


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_is_below_a_link_of_the_same_layer(bases: Bases, strict: bool) -> None:
    """The kernel would follow the link, out of the container's folder too."""
    layer = [symlink("a", "/etc"), file("a/x"), file("a/b/c"), folder("a/b"), file("a/b/d"), file("f"), file("f/x")]
    base = bases.image("l/a:1", [folder("a"), file("a/low")], layer)
    assert names(base, strict=strict) == ["a", "f"]
    folder_again = [symlink("a", "/etc"), folder("a"), file("a/x")]
    assert names(bases.image("l/b:1", folder_again)) == ["a", "a", "a/x"]


def test_bookkeeping_of_aufs_is_no_file(bases: Bases) -> None:
    assert names(bases.image("l/a:1", [folder(".wh..wh.plnk"), file(".wh..wh.aufs"), file("f")])) == ["f"]


@pytest.mark.parametrize("path", ["../evil", "a/../../evil"])
def test_a_path_that_leads_out_of_the_image_is_refused(bases: Bases, path: str) -> None:
    with pytest.raises(PxeServerError, match="leads out of it"):
        names(bases.image("l/a:1", [file(path)]))


def test_absolute_names_are_inside(bases: Bases) -> None:
    assert names(bases.image("l/a:1", [folder("./"), file("/etc/x"), file("./b/")])) == [".", "etc/x", "b"]


def test_parents_of_the_prefix_then_the_files_then_what_must_exist(bases: Bases) -> None:
    base = bases.image("l/a:1", [folder("bin"), file("bin/x")])
    got = [e.name for e in flatten.root(base, Use.CONTAINER, "a/b/rootfs/", strict=True)]
    assert got == ["a", "a/b", "a/b/rootfs", "a/b/rootfs/bin", "a/b/rootfs/bin/x", *(f"a/b/rootfs/{m}" for m in MUST)]


def test_hard_links_point_below_the_prefix_as_they_were_spelled(bases: Bases) -> None:
    base = bases.image("l/a:1", [file("./a", b"x"), hardlink("./b", "./a")])
    links = {e.name: e.link for e in flatten.root(base, Use.CONTAINER, "p/", strict=True) if e.kind == "h"}
    assert links == {"p/b": "p/./a"}


ETC = [
    folder("etc", 0o700, uid=7),
    file("etc/hosts", b"mine", 0o600),
    file("etc/resolv.conf", b"mine", 0o640),
    file("etc/hostname", b"mine"),
    symlink("etc/mtab", "/x"),
    folder("proc", 0o555),
    folder("dev"),
    device("dev/console"),
    device("dev/null"),
    folder("dev/pts", 0o700),
    file("sub/Dockerfile"),
    file("Dockerfile"),
    file(".dockerenv"),
]


def test_strict_repeats_all_that_must_exist_but_mtab(bases: Bases) -> None:
    got = list(flatten.root(bases.image("l/a:1", ETC), Use.CONTAINER, strict=True))
    listed = [e.name for e in got]
    assert listed[: len(listed) - 8] == (
        ["etc", "etc/hosts", "etc/resolv.conf", "etc/mtab", "proc", "dev", "dev/null", "sub/Dockerfile"]
    )
    assert listed[-8:] == [m for m in MUST if m != "etc/mtab"]
    assert [e.mode for e in got if e.name == "etc"] == [0o700, 0o755]


def test_otherwise_what_an_image_has_keeps_its_mode_and_place(bases: Bases) -> None:
    got = list(flatten.root(bases.image("l/a:1", ETC), Use.CONTAINER))
    found = {e.name: e for e in got}
    assert len(found) == len(got)
    assert (found["etc"].mode, found["etc"].uid, found["proc"].mode) == (0o700, 7, 0o555)
    assert [n for n in found if n in MUST and n not in ("etc", "etc/hosts", "etc/resolv.conf", "etc/mtab", "proc")] == [
        "dev",
        "dev/pts",
        "dev/shm",
        "sys",
    ]
    assert (found["etc/hosts"].mode, found["etc/hosts"].mtime) == (0o600, FIXED_TIME)
    assert not {"etc/hostname", "Dockerfile", ".dockerenv", "dev/console"} & found.keys()


@pytest.mark.parametrize("strict", [True, False])
def test_hosts_and_resolv_conf_are_linuxkits(bases: Bases, strict: bool) -> None:
    base = bases.image("l/a:1", ETC)
    container = contents(list(flatten.root(base, Use.CONTAINER, strict=strict)))
    assert len(container["etc/hosts"]) == 160
    assert hashlib.sha256(container["etc/resolv.conf"]).hexdigest().startswith("e4e2bb72")
    for use in (Use.INIT, Use.VOLUME):
        entries = [e for e in flatten.root(base, use, strict=strict) if e.name == "etc/resolv.conf"]
        assert {(e.kind, e.link) for e in entries} == {("l", "/run/resolvconf/resolv.conf")}
        assert entries[0].mode == 0o640


@pytest.mark.parametrize(("name", "use"), [("etc/hosts", Use.INIT), ("etc/resolv.conf", Use.CONTAINER)])
def test_a_symlink_in_their_place_is_replaced_and_stops_linuxkit(bases: Bases, name: str, use: Use) -> None:
    base = bases.image("l/a:1", [folder("etc"), symlink(name, "../run/x")])
    (entry,) = [e for e in flatten.root(base, use) if e.name == name]
    assert (entry.kind, entry.mode) == ("f", 0o644)
    with pytest.raises(PxeServerError) as caught:
        list(flatten.root(base, use, strict=True))
    assert caught.value.slug == "image-linked-file"


def test_a_symlinked_resolv_conf_of_an_init_image_is_replaced_by_linuxkit_too(bases: Bases) -> None:
    base = bases.image("l/a:1", [folder("etc"), symlink("etc/resolv.conf", "x")])
    assert [e.link for e in flatten.root(base, Use.INIT, strict=True) if e.name == "etc/resolv.conf"] == [
        flatten.RESOLVER_LINK
    ] * 2


def test_folders_come_before_their_files_though_a_lower_layer_has_them(bases: Bases) -> None:
    base = bases.image("l/a:1", [folder("a", 0o700), folder("a/b", 0o711)], [file("a/b/f")])
    got = [(e.name, e.mode) for e in flatten.root(base, Use.INIT)][:5]
    assert got == [("a", 0o755), ("a/b", 0o755), ("a/b/f", 0o644), ("a", 0o700), ("a/b", 0o711)]


@pytest.mark.parametrize("packed", ["gzip", "zstd", "none"])
def test_layers_of_any_compression(bases: Bases, packed: str) -> None:
    base = bases.image("l/a:1", [file("a", b"x" * 100_000)], packed=packed)
    seen: list[int] = []
    (entry,) = list(flatten.files(replace(base, on_read=seen.append)))
    assert (entry.name, sum(seen)) == ("a", base.size)


@pytest.mark.parametrize("packed", ["gzip", "none"])
def test_a_damaged_layer_is_named_whatever_the_damage(bases: Bases, packed: str) -> None:
    base = bases.image("l/a:1", [file("a", bytes(range(256)) * 400)], packed=packed)
    path = bases.blob_path(base.layers[0].digest)
    good = path.read_bytes()
    for at in (600, len(good) // 2, len(good) - 9, len(good) - 1):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(PxeServerError, match=r"layer sha256:\w+ of docker.io/l/a:1 is damaged") as caught:
            names(base)
        assert caught.value.slug == "layer-damaged"
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(PxeServerError, match="damaged"):
        names(base)
