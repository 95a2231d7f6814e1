"""specs lint, specs lock and build --locked as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clilab import InnerShell, Ran, Shell
from imagelab import KERNEL, Bases, file
from signlab import Signer

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "quiet"}\ninit:\n  - l/init:1\n'


class Bench:
    """A folder with web.yml and base images; runs commands in it."""

    def __init__(self, folder: Path, shell: Shell) -> None:
        self.run = InnerShell(shell)
        self.bases = Bases(folder / "bases")
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/init:1", [file("init", b"init")])
        self.source = f"--source=oci:{self.bases.root}"
        self.spec, self.lock = folder / "web.yml", folder / "web.yml.lock"
        self.spec.write_text(SPEC)

    def build(self, *args: str) -> Ran:
        return self.run("build", "-q", "--no-sbom", self.source, "web.yml", *args)

    def lint(self, text: str, *args: str) -> Ran:
        self.spec.write_text(text)
        return self.run("specs", "lint", "web.yml", *args)


@pytest.fixture
def bench(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Bench(folder, shell)


def test_warnings_alone_are_no_failure(bench: Bench) -> None:
    done = bench.lint("init: [a/x:1]\n")
    assert (done.code, done.err) == (0, "")
    first, fix = done.out.splitlines()
    assert first.startswith("web.yml:1:8: init[0]: warning[image-unpinned]: docker.io/a/x:1 is not pinned: ")
    assert fix.startswith("  fix: pxeserver specs lock web.yml, or ")


def test_an_error_fails_and_is_counted(bench: Bench) -> None:
    done = bench.lint("init: [a/x:1]\nfiles: [{path: run/x, contents: x}]\n")
    assert (done.code, "error[lint-errors]: 1 error, 1 warning" in done.err) == (1, True)
    assert "web.yml:2:16: files[0].path: error[file-shadowed]: /run/x is never seen" in done.out


def test_findings_as_values(bench: Bench) -> None:
    done = bench.lint("files: [{path: run/x, contents: x}]\n", "-o", "json")
    (found,) = json.loads(done.out)
    assert (done.code, found["rule"], found["level"]) == (1, "file-shadowed", "error")
    assert found["where"] == {"file": "web.yml", "line": 1, "column": 16, "field": "files[0].path"}


def test_nothing_found(bench: Bench) -> None:
    done = bench.lint("init: [a/x:1]\n", "--ignore", "image-unpinned")
    assert (done.code, done.out, done.err) == (0, "", "nothing to complain about\n")
    assert json.loads(bench.lint("{}", "-o", "json").out) == []


def test_a_spec_that_cannot_be_built_is_a_finding_among_others(bench: Bench) -> None:
    (bench.spec.parent / "other.yml").write_text("inot: []\n")
    done = bench.lint("init: [a/x:1]\n", "other.yml")
    assert done.code == 1
    assert 'other.yml:1:1: inot: error[spec-unknown-key]: unknown key "inot" - did you mean "init"' in done.out
    assert "warning[image-unpinned]" in done.out
    assert bench.run("specs", "lint", "absent.yml").code == 3
    assert bench.run("specs", "lint", "--ignore", "nonsense", "web.yml").code == 2


def test_base_images_that_are_here_are_looked_into(bench: Bench) -> None:
    text = "services: [{name: s, image: 'l/init:1', readonly: true, binds: ['/a:/b'], capabilities: [], net: new}]\n"
    assert "mount-point-unsure" in bench.lint(text).out
    found = bench.lint(text, bench.source)
    assert (found.code, "l/init:1 has no /b" in found.out) == (1, True)
    bench.build()  # not the store's: an OCI layout brings nothing into it
    assert "mount-point-unsure" in bench.lint(text).out


def test_the_known_specs_are_linted_when_none_is_named(bench: Bench) -> None:
    done = bench.run("specs", "lint", "-o", "json", PXESERVER_IMAGES_SPECS="[]")
    assert {Path(f["where"]["file"]).name for f in done.json} == {"linuxkit.yml"}


def test_a_lock_is_written_beside_the_spec_and_holds(bench: Bench) -> None:
    done = bench.run("specs", "lock", bench.source, "web.yml")
    assert (done.code, done.out) == (0, f"{bench.lock}: 2 images locked\n")
    assert done.err == "new: docker.io/l/init:1\nnew: docker.io/l/kernel:1\n"
    digests = {e.ref: e.digest for e in bench.bases.index()}
    assert bench.lock.read_text() == (
        "# The base images of web.yml, each pinned to its digest. It belongs beside the spec, under version control.\n"
        "#   pxeserver specs lock web.yml        writes it anew\n"
        "#   pxeserver build --locked web.yml    refuses any other image\n"
        "version: 1\nimages:\n"
        f"  docker.io/l/init:1: {digests['docker.io/l/init:1']}\n"
        f"  docker.io/l/kernel:1: {digests['docker.io/l/kernel:1']}\n"
    )
    assert bench.build("--locked").code == 0
    stamp = bench.lock.stat().st_mtime_ns
    again = bench.run("specs", "lock", bench.source, "web.yml")
    assert (again.err, bench.lock.stat().st_mtime_ns) == ("", stamp)


def test_a_locked_reference_is_pinned_for_lint(bench: Bench) -> None:
    bench.run("specs", "lock", bench.source, "web.yml")
    assert "image-unpinned" not in bench.lint(SPEC).out


def test_drift_is_refused_with_its_place(bench: Bench) -> None:
    bench.run("specs", "lock", bench.source, "web.yml")
    old = {e.ref: e.digest for e in bench.bases.index()}["docker.io/l/init:1"]
    new = bench.bases.image("l/init:1", [file("init", b"other")]).digest
    done = bench.build("--locked")
    assert done.code == 4
    assert "error[base-lock-differs]: web.yml:3:5: init[0]: docker.io/l/init:1 is locked to " + old in done.err
    assert new in done.err
    assert bench.build().code == 0, "without --locked nobody looks"
    changed = bench.run("specs", "lock", bench.source, "web.yml")
    assert changed.err == "changed: docker.io/l/init:1\n"
    assert bench.build("--locked").code == 0


def test_a_reference_without_a_lock_is_refused(bench: Bench) -> None:
    bench.run("specs", "lock", bench.source, "web.yml")
    bench.spec.write_text(SPEC + "  - l/more:1\n")
    bench.bases.image("l/more:1", [file("more")])
    done = bench.build("--locked")
    assert done.code == 4
    assert "error[base-not-locked]: web.yml:4:5: init[1]: docker.io/l/more:1 is not locked" in done.err
    bench.spec.write_text('kernel: {image: "l/kernel:1"}\n')
    assert bench.build("--locked").code == 0, "locked and not used is no drift"
    assert "no longer used: docker.io/l/init:1" in bench.run("specs", "lock", bench.source, "web.yml").err


def test_a_build_that_must_be_locked_needs_the_file(bench: Bench) -> None:
    done = bench.build("--locked")
    assert (done.code, "error[spec-lock-not-found]: web.yml has no web.yml.lock" in done.err) == (3, True)
    bench.lock.write_text("version: 1\nimages: {x: sha256:12}\n")
    broken = bench.build("--locked")
    assert (broken.code, ':2:13: images.x: "sha256:12" is no digest' in broken.err) == (2, True)
    conflict = bench.build("--locked", "--input-tar", "x.tar")
    assert (conflict.code, "error[output-conflict]" in conflict.err) == (2, True)


def test_what_cannot_be_locked(bench: Bench) -> None:
    bench.spec.write_text("init: [l/absent:1]\n")
    done = bench.run("specs", "lock", bench.source, "web.yml")
    assert (done.code, "error[base-not-found]: web.yml:1:8: init[0]:" in done.err) == (3, True)
    assert not bench.lock.exists()


def test_trust_is_kept_by_build_and_lock(bench: Bench, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "keys")
    bench.spec.write_text(SPEC + "trust:\n  org: [l]\n")
    base = bench.bases.named("docker.io/l/init:1")[0]
    kernel = bench.bases.named("docker.io/l/kernel:1")[0]
    done = bench.build()
    assert (done.code, done.err.startswith("error[trust-no-key]: web.yml:")) == (4, True)
    keys = {"PXESERVER_IMAGES_TRUST_KEYS": f"['{signer.public}']"}
    signer.into_layout(bench.bases, "docker.io/l/kernel", kernel.digest)
    done = bench.run("build", "-q", bench.source, "web.yml", **keys)
    assert (
        done.code,
        "error[trust-unsigned]: web.yml:3:5: init[0]: docker.io/l/init:1 must be signed" in done.err,
    ) == (
        4,
        True,
    )
    assert f"or pin it: docker.io/l/init@{base.digest}" in done.err
    assert bench.run("specs", "lock", bench.source, "web.yml", **keys).code == 4
    signer.into_layout(bench.bases, "docker.io/l/init", base.digest)
    assert bench.run("build", "-q", bench.source, "web.yml", **keys).code == 0
    assert bench.run("specs", "lock", bench.source, "web.yml", **keys).code == 0
    assert bench.build("--locked").code == 0, "what is locked is pinned"
    assert bench.build("--strict", "--dir", str(tmp_path)).code == 0, "LinuxKit looks at no trust"


def test_a_lock_as_values(bench: Bench) -> None:
    (done,) = bench.run("specs", "lock", bench.source, "web.yml", "-o", "json").json
    assert sorted(done) == ["added", "changed", "file", "images", "removed"]
    assert list(done["images"]) == ["docker.io/l/init:1", "docker.io/l/kernel:1"]
