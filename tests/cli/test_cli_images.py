"""push, pull, import, export, diff, sbom and gc as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import InnerShell, Ran, Server, Shell
from imagelab import KERNEL, Bases, file
from registrylab import Registry

from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "%s"}\ninit: ["l/init:1"]\nfiles: [%s]\n'
MAC = "52:54:00:00:00:01"


class Bench:
    def __init__(self, folder: Path, shell: Shell) -> None:
        self.run, self.folder, self.shell = InnerShell(shell), folder, shell
        self.bases = Bases(folder / "bases")
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/init:1", [file("init", b"init")])
        self.store = Store(shell.data / "store")

    def build(self, cmdline: str = "quiet", *args: str, files: str = "") -> str:
        """Returns its name as people see it."""
        (self.folder / "web.yml").write_text(SPEC % (cmdline, files))
        done = self.run("build", "-q", f"--source=oci:{self.bases.root}", "web.yml", *args)
        assert done.code == 0, done.err
        name, _, digest = done.out.strip().partition("@sha256:")
        return f"{name}@{digest[:12]}"

    def age(self) -> None:
        """Everything in the store was made two hours ago."""
        then = time.time() - 7200
        for path in (self.store.root / "blobs" / "sha256").iterdir():
            os.utime(path, (then, then))
        body = json.loads(self.store.index_file.read_text())
        for entry in body["manifests"]:
            entry["annotations"]["io.pxeserver.created"] = f"{then:.3f}"
        self.store.index_file.write_text(json.dumps(body))

    def here(self) -> list[str]:
        return sorted(i.short for i in Catalogue(self.store).list())


@pytest.fixture
def bench(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Bench(folder, shell)


@pytest.fixture
def other(tmp_path: Path, shell: Shell) -> Iterator[InnerShell]:
    """The same program with another data folder."""
    yield InnerShell(Shell(tmp_path / "other", tmp_path / "other.sock"))


@pytest.mark.server
def test_to_a_registry_and_to_another_host(bench: Bench, other: InnerShell, tmp_path: Path) -> None:
    name = bench.build()
    with Registry(tmp_path / "registry") as registry:
        ref = f"{registry.host}/site/web:v1"
        done = bench.run("images", "push", "web", ref)
        assert done.code == 0, done.err
        assert done.out.startswith(f"{ref}@sha256:")
        assert "push kernel " in done.err and "push initrd " in done.err and done.err.endswith("0 B were there\n")
        again = bench.run("images", "push", "web", ref, "-o", "json")
        assert (again.json["sent"], again.json["image"], again.err) == (0, name, "")
        came = other("images", "pull", ref, "--tag", "site")
        assert (came.code, came.out.startswith("web@sha256:")) == (0, True)
        assert came.err.splitlines()[-1] == f"{name}: web:site"
        assert other("images", "pull", ref, "-o", "json").json["tags"] == ["web:site", "web:v1"]
        absent = other("images", "pull", f"{registry.host}/site/nothing")
        assert (absent.code, "error[image-not-found]" in absent.err) == (3, True)
    assert bench.run("images", "push", "web", "web:v1").code == 2


def test_to_a_file_and_to_another_host(bench: Bench, other: InnerShell) -> None:
    name = bench.build("quiet", "-t", "v1")
    done = bench.run("images", "export", "web", "-f", "oci")
    assert (done.code, done.out) == (0, "web.oci.tar\n")
    came = other("images", "import", "web.oci.tar")
    assert (came.code, came.out.startswith("web@sha256:")) == (0, True)
    assert came.err.splitlines()[-1] == f"{name}: web:latest, web:v1"
    assert other("images", "import", "web.oci.tar", "-t", "x", "-o", "json").json[0]["tags"] == [
        "web:latest",
        "web:v1",
        "web:x",
    ]
    missing = other("images", "import", "absent.tar")
    assert (missing.code, "error[archive-not-found]" in missing.err) == (3, True)
    assert other("images", "import", "web.yml").code == 2
    assert bench.run("images", "export", "web", "-f", "oci", "--dir", "absent").code == 3


def test_from_standard_input(bench: Bench, tmp_path: Path) -> None:
    name = bench.build()
    bench.run("images", "export", "web", "-f", "oci", "--name", "x")
    command = [sys.executable, "-m", "pxeserver", "--data", str(tmp_path / "third"), "images", "import", "-"]
    with (bench.folder / "x.oci.tar").open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == f"{name}: web:latest"


def test_two_images_compared(bench: Bench) -> None:
    bench.build("quiet", "--no-sbom", "-t", "old")
    bench.build("debug", "--no-sbom", files="{path: etc/motd, contents: hello, mode: '0644'}")
    done = bench.run("images", "diff", "web:old", "web")
    assert (done.code, done.out) == (
        0,
        "cmdline:\n    - quiet\n    + debug\nfiles: 1 added\n  + /etc/motd  file 0644 0:0 5 bytes\n",
    )
    back = bench.run("images", "diff", "web", "web:old")
    assert "files: 1 removed\n  - /etc/motd  file 0644 0:0 5 bytes\n" in back.out
    found = bench.run("images", "diff", "web:old", "web", "-o", "json").json
    assert found["settings"] == [{"name": "cmdline", "before": "quiet", "after": "debug", "what": []}]
    same = bench.run("images", "diff", "web", "web")
    assert (same.code, same.out, "are the same" in same.err) == (0, "", True)


def test_base_images_of_two_images_compared(bench: Bench) -> None:
    bench.build("quiet", "--no-sbom", "-t", "old")
    bench.bases.image("l/init:1", [file("init", b"newer")])
    bench.build("quiet", "--no-sbom")
    lines = bench.run("images", "diff", "web:old", "web").out.splitlines()
    assert lines[:2] == ["base images:", "  init[0]:"]
    assert lines[2].startswith("    - docker.io/l/init:1 sha256:")
    assert lines[-2:] == ["files: 1 changed", "  ~ /init  content, 4 -> 5 bytes"]


def test_the_bill_of_materials(bench: Bench) -> None:
    bench.build()
    bill = bench.run("images", "sbom", "web").json
    assert bill["spdxVersion"] == "SPDX-2.3"
    bench.build("debug", "--no-sbom")
    done = bench.run("images", "sbom", "web")
    assert (done.code, "error[image-no-sbom]" in done.err) == (3, True)


def test_gc_says_what_it_does(bench: Bench) -> None:
    old = bench.build("old")
    new = bench.build("new")
    young = bench.run("images", "gc")
    assert (young.code, young.out) == (0, "0 files, 0 B freed\n")
    bench.age()
    dry = bench.run("images", "gc", "--dry-run")
    assert dry.out.splitlines()[0] == f"{old} would be removed"
    assert dry.out.splitlines()[1].endswith(" would be freed")
    assert bench.here() == sorted([old, new])
    done = bench.run("images", "gc", "-o", "json")
    assert (done.json["images"], done.json["dry_run"]) == ([old], False)
    assert bench.here() == [new]
    assert bench.run("images", "verify").out.splitlines()[1].endswith("ok")


@pytest.mark.parametrize("with_server", [False, True])
def test_gc_keeps_what_machines_need(bench: Bench, request: pytest.FixtureRequest, with_server: bool) -> None:
    if with_server:
        server: Server = request.getfixturevalue("server")
        assert server.url
    assigned, replaced, unused = (bench.build(name) for name in ("one", "two", "three"))
    latest = bench.build("four")
    for image in (replaced, assigned):
        done = bench.run("assign", MAC, image)
        assert done.code == 0, done.err
    bench.age()
    done = bench.run("images", "gc", "--min-age", "0")
    assert done.out.splitlines()[0] == f"{unused} removed"
    assert bench.here() == sorted([assigned, replaced, latest])


def test_ages(bench: Bench) -> None:
    old = bench.build("old")
    bench.build("new")
    bench.age()
    for age in ("3h", "1d", "200m", "7300s"):
        assert bench.run("images", "gc", "--dry-run", "-o", "json", "--min-age", age).json["images"] == []
    for age in ("1h", "7000", "90m"):
        assert bench.run("images", "gc", "--dry-run", "-o", "json", "--min-age", age).json["images"] == [old]
    wrong: Ran = bench.run("images", "gc", "--min-age", "soon")
    assert (wrong.code, "error[bad-age]" in wrong.err) == (2, True)
