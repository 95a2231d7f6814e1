"""Where the standard loaders come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pxeserver.images import uki
from pxeserver.local import loaders_fetch
from pxeserver.local.bases import sources
from pxeserver.local.loaders import STANDARD, LoaderSet

NBP = bytes.fromhex("ea0500c007669c66600fa80fa0061e66") * 8
OS_RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
ONE_LINE = """\
deb [signed-by=/k.gpg] http://m.example/debian bookworm main contrib
deb http://m.example/debian bookworm-updates main
deb http://m.example/debian-security bookworm-security main
deb http://third.example/x stable main
"""
DEB822 = """\
Types: deb
URIs: http://m.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://m.example/debian-security
Suites: bookworm-security
Components: main
"""


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "a.list",
            ONE_LINE,
            {"own.list": "deb [signed-by=/k.gpg] http://m.example/debian trixie main contrib\n"},
        ),
        (
            "a.sources",
            DEB822,
            {
                "own.sources": "Types: deb\nUris: http://m.example/debian\nSuites: trixie\n"
                "Components: main\nSigned-By: /k.gpg\n"
            },
        ),
    ],
)
def test_another_suite_comes_from_the_same_mirror_and_nowhere_else(
    tmp_path: Path, file: str, text: str, expected: dict[str, str]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / file).write_text(text)
    (tmp_path / "os-release").write_text(OS_RELEASE)
    assert sources.own(tmp_path, tmp_path / "os-release", suite="trixie") == expected


def test_an_installed_package_is_copied_and_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "usr/lib/ipxe"
    installed.mkdir(parents=True)
    for name in STANDARD:
        (installed / name).write_bytes(NBP + name.encode())
    monkeypatch.setattr(loaders_fetch, "_ROOT", tmp_path)
    monkeypatch.setattr(loaders_fetch, "run", lambda argv: "1.2-3")
    mine = LoaderSet(tmp_path / "data/loaders").add(NBP, "ipxe.efi", origin="mine")
    brought = loaders_fetch.ensure(tmp_path / "data")
    assert [x.name for x in brought] == [name for name in STANDARD if name != "ipxe.efi"]
    assert {(x.version, x.origin) for x in brought} == {("1.2-3", "package ipxe, installed")}
    assert LoaderSet(tmp_path / "data/loaders").get("ipxe.efi") == mine
    assert loaders_fetch.ensure(tmp_path / "data") == ()
    assert len(loaders_fetch.fetch(tmp_path / "data")) == len(STANDARD)
    assert LoaderSet(tmp_path / "data/loaders").get("ipxe.efi").version == "1.2-3"


@pytest.mark.server
def test_without_the_installed_package_it_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the distribution's mirror; nothing is installed."""
    monkeypatch.setattr(loaders_fetch, "_ROOT", tmp_path / "nowhere")
    brought = loaders_fetch.fetch(tmp_path)
    assert [(x.name, x.kind, x.state) for x in brought] == [
        ("undionly.kpxe", "bios", "whole"),
        ("ipxe.pxe", "bios", "whole"),
        ("snponly.efi", "efi", "whole"),
        ("ipxe.efi", "efi", "whole"),
    ]
    assert all(x.version and x.origin.startswith("package ipxe of ") for x in brought)


@pytest.mark.server
def test_the_signed_loaders_are_two_programs_that_carry_signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders_fetch, "_ROOT", tmp_path / "nowhere")
    brought = loaders_fetch.fetch_signed(tmp_path)
    assert [(x.name, x.kind, x.arch) for x in brought] == [
        ("shimx64.efi", "efi", "amd64"),
        ("grubx64.efi", "efi", "amd64"),
    ]
    for loader in brought:
        with (tmp_path / "loaders" / loader.name).open("rb") as file:
            assert uki.is_signed(file)
