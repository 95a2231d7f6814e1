"""Which packages: out of apt's words, from the distribution's own suites alone, recorded exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import NotFound, UsageError
from pxeserver.local.bases import lock, sources
from pxeserver.local.bases.apt import Record, closure, parse_records, parse_uris
from pxeserver.local.bases.lock import Lock, Package

SHOWN = """\
Package: jq
Version: 1.6-2.1+deb12u3
Installed-Size: 108
Architecture: amd64
Depends: libjq1 (= 1.6-2.1+deb12u3), libc6 (>= 2.34) | libc6.1, debconf (>= 0.5) | debconf-2.0, libc6:any
Pre-Depends: libonig5
Description: lightweight JSON processor
 with a second line: not a field
Section: utils
Filename: pool/main/j/jq/jq_1.6-2.1+deb12u3_amd64.deb
Size: 64432
SHA256: aa11

Package: libjq1
Version: 1.6-2.1+deb12u3
Section: non-free/libs
Size: 136460
SHA256: bb22

Package: installed-by-hand
Version: 1
Section: libs

"""


def record(name: str, section: str = "libs", *depends: str) -> Record:
    return Record(name, "1", section, depends, "0" * 64, 1)


def test_records_are_read_out_of_what_apt_cache_shows() -> None:
    jq, libjq = parse_records(SHOWN)
    assert jq == Record("jq", "1.6-2.1+deb12u3", "utils", ("libonig5", "libjq1", "libc6", "debconf"), "aa11", 64432)
    assert (libjq.name, libjq.depends) == ("libjq1", ())


def test_addresses_are_read_out_of_what_apt_get_prints() -> None:
    shown = (
        "'http://m.example/debian/pool/main/k/kmod/kmod_30%2b2022_amd64.deb' kmod_30+2022_amd64.deb 95180 SHA256:e2\n"
        "'http://m.example/debian/busybox-static_1.35.deb' busybox-static_1%3a1.35_amd64.deb 928188 MD5Sum:00\n"
    )
    assert parse_uris(shown) == {
        "kmod": "http://m.example/debian/pool/main/k/kmod/kmod_30%2b2022_amd64.deb",
        "busybox-static": "http://m.example/debian/busybox-static_1.35.deb",
    }


def test_libraries_and_kernels_come_along_and_nothing_else() -> None:
    known = {
        r.name: r
        for r in (
            record("tool", "admin", "libone", "init-system-helpers", "perl"),
            record("libone", "libs", "libtwo"),
            record("libtwo", "oldlibs", "libone"),
            record("perl", "perl", "libperl"),
            record("libperl"),
            record("init-system-helpers", "admin"),
            record("linux-image-cloud-amd64", "kernel", "linux-image-6.1.0-56-cloud-amd64"),
            record("linux-image-6.1.0-56-cloud-amd64", "kernel", "kmod", "initramfs-tools"),
        )
    }
    assert [r.name for r in closure(["tool"], known)] == ["libone", "libtwo", "tool"]
    assert [r.name for r in closure(["linux-image-cloud-amd64"], known)] == [
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-cloud-amd64",
    ]


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound) as caught:
        closure(["intel-microcode"], {})
    assert caught.value.slug == "package-not-found" and '"intel-microcode"' in caught.value.message


NAMES = st.sampled_from([f"p{n}" for n in range(6)])


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(["libs", "admin"]), st.lists(NAMES, max_size=4)), min_size=1))
def test_the_closure_ends_and_holds_what_was_asked_and_libraries(graph: dict[str, tuple[str, list[str]]]) -> None:
    known = {name: record(name, section, *depends) for name, (section, depends) in graph.items()}
    first = sorted(known)[0]
    found = closure([first], known)
    assert [r.name for r in found] == sorted({r.name for r in found})
    assert first in {r.name for r in found}
    assert all(r.section == "libs" for r in found if r.name != first)
    for r in found:  # nothing that a library of it needs is left out
        assert {d for d in r.depends if d in known and known[d].section == "libs"} <= {x.name for x in found}


def etc(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    os_release = folder / "os-release"
    os_release.write_text('PRETTY_NAME="Debian GNU/Linux 12"\nVERSION_CODENAME=bookworm\n')
    return folder, os_release


def test_the_releases_own_suites_are_taken_from_deb822_files(tmp_path: Path) -> None:
    text = """\
Types: deb deb-src
# the mirror of the site
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://other.example
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""
    found = sources.own(
        *etc(tmp_path, {"sources.list.d/debian.sources": text}), components=["non-free-firmware", "main"]
    )
    assert found == {
        "own.sources": """\
Types: deb
Uris: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By:{}
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
""".format(" ")  # an editor would take a space at the end of a line away
    }


def test_the_releases_own_suites_are_taken_from_one_line_files(tmp_path: Path) -> None:
    text = """\
# deb http://commented.example/debian bookworm main
deb [ signed-by=/k.gpg arch=amd64 ] http://mirror.example/debian bookworm main contrib # here
deb-src http://mirror.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb https://download.docker.example/linux/debian bookworm stable
deb http://mirror.example/debian trixie main
"""
    found = sources.own(*etc(tmp_path, {"sources.list": text}))
    assert found == {
        "own.list": "deb [ signed-by=/k.gpg arch=amd64 ] http://mirror.example/debian bookworm main contrib\n"
        "deb http://security.example/debian-security bookworm-security main\n"
    }


def test_without_the_own_release_every_source_with_main_is_taken(tmp_path: Path) -> None:
    found = sources.own(*etc(tmp_path, {"sources.list": "deb http://m.example/debian stable main\n"}))
    assert found == {"own.list": "deb http://m.example/debian stable main\n"}


def test_no_source_at_all_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        sources.own(*etc(tmp_path, {"sources.list": "deb http://m.example/x stable extra\n"}))
    assert caught.value.slug == "mirror-unknown"


def package(name: str, version: str = "1") -> Package:
    return Package(name, version, "amd64", "ab" * 32, 10, f"http://m.example/{name}_{version}.deb")


def test_the_record_reads_as_it_was_written(tmp_path: Path) -> None:
    before = Lock("amd64").with_image("init", [package("jq"), package("busybox")])
    record = before.with_image("old", [package("jq", "0.9")])
    file = tmp_path / "bases.lock.json"
    file.write_text(record.text())
    assert lock.read(file) == record
    assert lock.read(file).text() == record.text()
    assert [p.key for p in record.images["init"]] == ["busybox=1", "jq=1"]


def test_tools_of_this_host_keep_apart_from_packages_of_the_same_name(tmp_path: Path) -> None:
    tool = package("xz-utils")
    record = Lock("arm64").with_image("kernel", [replace(tool, arch="arm64", sha256="cd" * 32), tool])
    file = tmp_path / "bases.lock.arm64.json"
    file.write_text(record.text())
    assert lock.read(file) == record


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1, "arch": "amd64", "packages": [], "images": {"a": ["x=1"]}}'],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bases.lock.json"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        lock.read(file)
    assert caught.value.slug == "lock-value"


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        lock.read(tmp_path / "none.json")
    assert caught.value.slug == "lock-not-found"
