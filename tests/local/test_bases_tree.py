"""Packages unpacked and laid out: real .deb files, real programs, the same bytes whoever writes them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import PxeServerError
from pxeserver.images import elf
from pxeserver.images.entry import symlink, text
from pxeserver.local.bases import make, tree
from pxeserver.local.bases.apt import host_arch
from pxeserver.local.bases.deb import Unpacked, merged, unpack
from pxeserver.local.bases.recipe import Recipe
from pxeserver.local.bases.tools import Tools
from pxeserver.local.bases.tree import Tree

PROGRAM = Path("/usr/bin/env")  # a dynamic program that every host has


def make_deb(folder: Path) -> Path:
    """A package with what packages have: programs, links, documents, set-id bits, a library."""
    root = folder / "root"
    for name in ("DEBIAN", "bin", "usr/sbin", "usr/share/doc/x", "etc/x.d", "usr/share/certs"):
        (root / name).mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (root / "usr/sbin/tool").write_bytes(PROGRAM.read_bytes())
    (root / "usr/sbin/tool").chmod(0o4755)
    (root / "bin/tool").symlink_to("../usr/sbin/tool")
    (root / "usr/sbin/absolute").symlink_to("/usr/sbin/tool")
    (root / "etc/x.d/b.conf").write_text("b")
    (root / "etc/x.d/a.conf").write_text("a")
    (root / "etc/x.d/b.conf").chmod(0o640)
    (root / "etc/x.d/link.conf").symlink_to("a.conf")
    (root / "usr/share/doc/x/copyright").write_text("mine")
    for name in ("one.crt", "two.crt"):
        (root / "usr/share/certs" / name).write_text(f"-{name}-")
    needs = elf.needs(PROGRAM)
    assert needs is not None
    for soname in needs.libraries:
        put_library(root / f"usr/lib/{tree.TRIPLETS[host_arch()]}/{soname}")
    if needs.interpreter:
        put_library(root / needs.interpreter.lstrip("/"))
    deb = folder / "x.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(root), str(deb)], check=True, capture_output=True)
    return deb


def put_library(to: Path) -> None:
    found = [Path("/lib64") / to.name, *Path("/lib").glob(f"*/{to.name}"), *Path("/usr/lib").glob(f"*/{to.name}")]
    real = next(p for p in found if p.exists())
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(real.read_bytes())
    to.chmod(0o755)


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_deb(tmp_path_factory.mktemp("deb"))


RECIPE = Recipe(
    name="x",
    summary="x",
    take={"usr/bin/tool": ("bin/tool",), "etc/": ("etc/**",), "conf/": ("etc/x.d/*.conf",)},
    concat={"certs.pem": "usr/share/certs/*.crt"},
    links={"bin/sh": "tool"},
    folders=("proc",),
)


def written(deb: Path, folder: Path) -> bytes:
    folder.mkdir()
    out = io.BytesIO()
    tree.write(tree.lay_out(RECIPE, unpack([deb], folder), host_arch(), list).ordered(("usr/bin/*",)), out)
    return out.getvalue()


def test_a_layer_holds_what_the_recipe_says(deb: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(deb, tmp_path / "a"))) as archive:
        members = {m.name: m for m in archive}
        certs = archive.extractfile("certs.pem")
        assert certs is not None and certs.read() == b"-one.crt--two.crt-"
    assert list(members)[:3] == ["usr", "usr/bin", "usr/bin/tool"]  # what is to come first, with its folders
    assert members["usr/bin/tool"].mode == 0o4755
    assert members["etc/x.d/b.conf"].mode == 0o640
    assert members["etc/x.d/link.conf"].linkname == members["conf/link.conf"].linkname == "a.conf"
    assert members["bin/sh"].linkname == "tool"
    assert members["proc"].isdir()
    needs = elf.needs(PROGRAM)
    assert needs is not None
    for soname in needs.libraries:
        assert f"usr/lib/{tree.TRIPLETS[host_arch()]}/{soname}" in members
    assert needs.interpreter.lstrip("/") in members
    assert not [name for name in members if "doc" in name]
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 1492533000)}


def test_a_layer_is_the_same_in_another_folder_umask_and_time_zone(
    deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(deb, tmp_path / "a")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.chdir("/")
    time.tzset()
    before = os.umask(0o077)
    try:
        second = written(deb, tmp_path / "quite another")
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    assert hashlib.sha256(second).hexdigest() == hashlib.sha256(first).hexdigest()


def test_a_file_that_no_package_has_any_more_is_told(deb: Path, tmp_path: Path) -> None:
    recipe = Recipe(name="x", summary="x", take={"bin/": ("usr/bin/gone",)})
    with pytest.raises(PxeServerError) as caught:
        tree.lay_out(recipe, unpack([deb], tmp_path), host_arch(), list)
    assert caught.value.slug == "package-changed" and "usr/bin/gone" in caught.value.message


def test_a_library_that_no_package_brings_is_told(deb: Path, tmp_path: Path) -> None:
    unpacked = unpack([deb], tmp_path)
    for path in [p for p in unpacked.entries if "/lib" in p]:
        del unpacked.entries[path]
    with pytest.raises(PxeServerError) as caught:
        tree.lay_out(RECIPE, unpacked, host_arch(), list)
    assert caught.value.slug == "library-missing" and "usr/bin/tool" in caught.value.message


def test_a_damaged_package_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "x.deb"
    broken.write_bytes(b"!<arch>\nnot really")
    with pytest.raises(PxeServerError) as caught:
        Unpacked(tmp_path).add(broken)
    assert caught.value.slug == "package-broken"


def test_programs_of_packages_run_with_their_own_libraries(deb: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    tools = Tools(unpack([deb], tmp_path / "files"), tmp_path / "tools", host_arch())
    assert tools.run("usr/sbin/absolute", "-i", "A=1") == "A=1\n"
    with pytest.raises(PxeServerError) as caught:
        tools.run("usr/sbin/tool", "--no-such-option")
    assert caught.value.slug == "tool-failed" and "no-such-option" in caught.value.message


def test_merged_folders_are_one() -> None:
    assert [merged(p) for p in ("bin/sh", "lib64/ld.so", "usr/bin/sh", "etc/x", "library/x")] == [
        "usr/bin/sh", "usr/lib64/ld.so", "usr/bin/sh", "etc/x", "library/x",
    ]  # fmt: skip


def test_putting_twice_keeps_the_last() -> None:
    one = Tree()
    one.put(text("a/b", b"1"), Path("/from/a/package"))
    one.put(text("a/b", b"2", 0o600))
    assert [(e.name, e.mode) for e in one.ordered()] == [("a", 0o755), ("a/b", 0o600)]
    assert one.disk == {}


def test_elf_facts_agree_with_the_dynamic_loader() -> None:
    needs = elf.needs(PROGRAM)
    assert needs is not None
    shown = subprocess.run(["ldd", str(PROGRAM)], capture_output=True, text=True, check=True).stdout
    assert needs.interpreter in shown
    assert needs.libraries and all(f"{soname} => " in shown for soname in needs.libraries)


def test_a_script_is_no_elf_file(tmp_path: Path) -> None:
    script = tmp_path / "x"
    script.write_text("#!/bin/sh\n")
    assert elf.needs(script) is None


@given(st.data())
def test_damaged_elf_files_raise_nothing_but_value_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = PROGRAM.read_bytes()
    at = data.draw(st.integers(6, min(len(whole), 2000)))
    damaged = whole[:at] + data.draw(st.binary(max_size=64)) + whole[at + 64 :] * data.draw(st.booleans())
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(damaged)
    try:
        elf.needs(file)
    except ValueError:
        pass


def test_the_way_of_writing_is_what_the_layout_number_says() -> None:
    """Base images made before would not be made anew: whoever changes these bytes raises make.LAYOUT as well."""
    one = Tree()
    one.put(text("a" * 90 + "/" + "b" * 30, b"long name", 0o755))
    one.put(symlink("bin/sh", "busybox"))
    out = io.BytesIO()
    tree.write(one.ordered(), out)
    assert (make.LAYOUT, hashlib.sha256(out.getvalue()).hexdigest()[:16]) == (1, "5cafbf865f954f4b")
