"""build, images and specs as a person types them."""

from __future__ import annotations

import http.server
import io
import json
import os
import pty
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from clilab import InnerShell, Ran, Server, Shell
from imagelab import KERNEL, Bases, file

SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "quiet"}
init: ["l/init:1"]
"""


class Bench:
    """A folder with web.yml and base images; runs commands in it."""

    def __init__(self, folder: Path, shell: Shell) -> None:
        self.folder, self.shell, self._inner = folder, shell, InnerShell(shell)
        self.bases = Bases(folder / "bases")
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/init:1", [file("init", b"init")])
        (folder / "web.yml").write_text(SPEC)
        (shell.data / "specs").mkdir(parents=True, exist_ok=True)

    def __call__(self, *args: str, **environ: str) -> Ran:
        return self._inner(*args, **environ)

    def build(self, *args: str, **environ: str) -> Ran:
        """Over the made base images, without progress, without SBOM."""
        return self("build", "-q", "--no-sbom", f"--source=oci:{self.bases.root}", *args, **environ)

    def files(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if p.is_file() and p.name != "web.yml")


@pytest.fixture
def bench(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Bench(folder, shell)


def test_a_build_prints_name_and_digest_and_writes_no_file(bench: Bench) -> None:
    done = bench.build("web.yml")
    assert (done.code, done.err, bench.files()) == (0, "", [])
    name, _, digest = done.out.strip().partition("@")
    assert (name, len(digest)) == ("web", 71)
    (image,) = [i for i in bench("images", "ls", "-o", "json").json if i["spec"] == "web"]
    assert (image["digest"], image["tags"], image["cmdline"]) == (digest, ["web:latest"], "quiet")


def test_talk_goes_to_stderr_line_by_line_in_a_pipe(bench: Bench) -> None:
    done = bench.shell("build", f"--source=oci:{bench.bases.root}", str(bench.folder / "web.yml"))
    assert done.out.startswith("web@sha256:")
    *segments, last = [line.split(":")[0] for line in done.err.splitlines()]
    assert sorted(segments) == ["init[0] docker.io/l/init", "kernel docker.io/l/kernel"]  # made at once
    assert last == "initrd"


def test_bars_on_a_terminal(bench: Bench) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "pxeserver", "--data", str(bench.shell.data), "build"]
    command += [f"--source=oci:{bench.bases.root}", "web.yml"]
    environ = {**bench.shell.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=environ, stdin=slave, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"web@sha256:")
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[" in shown
    assert b"init[0] docker.io/l/init:1: " in shown


@pytest.mark.parametrize(
    ("args", "files"),
    [
        (["--strict"], ["web-cmdline", "web-initrd.img", "web-kernel"]),
        (["--name", "other"], ["other-cmdline", "other-initrd.img", "other-kernel"]),
        (["-f", "kernel+initrd,tar-kernel-initrd"], ["web-cmdline", "web-initrd.img", "web-initrd.tar", "web-kernel"]),
        (["-f", "tar"], ["web.tar"]),
        (["--format", "docker"], ["web.docker"]),
        (["--o", "x.out"], ["x.out"]),
    ],
)
def test_files_as_linuxkit_writes_them(bench: Bench, args: list[str], files: list[str]) -> None:
    done = bench.build(*args, "web.yml")
    assert done.code == 0, done.err
    assert bench.files() == files
    assert {f"wrote {f}" for f in files} == set(done.err.splitlines())


def test_a_folder_for_the_files_must_exist(bench: Bench) -> None:
    done = bench.build("--dir", "out", "web.yml")
    assert (done.code, "error[folder-not-found]: no folder out\n  hint: mkdir out" in done.err) == (3, True)
    (bench.folder / "out").mkdir()
    assert bench.build("--dir", "out", "web.yml").code == 0
    assert sorted(p.name for p in (bench.folder / "out").iterdir()) == ["web-cmdline", "web-initrd.img", "web-kernel"]


def test_a_stream_to_standard_output_is_alone_there(bench: Bench) -> None:
    command = [sys.executable, "-m", "pxeserver", "--data", str(bench.shell.data), "build", "-q", "--o", "-"]
    command += [f"--source=oci:{bench.bases.root}", "web.yml"]
    done = subprocess.run(command, env=bench.shell.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "boot/kernel" in archive.getnames()


@pytest.mark.parametrize(
    ("args", "slug"),
    [
        (["--o", "x", "--name", "y"], "output-conflict"),
        (["--o", "x", "--dir", "."], "output-conflict"),
        (["--o", "x", "-f", "kernel+initrd"], "output-conflict"),
        (["--input-tar", "a", "--pull"], "output-conflict"),
        (["--input-tar", "a", "--o", "a"], "output-conflict"),
        (["-f", "tar,kernel+initrd"], "format-alone"),
        (["-f", "tar", "-f", "tar"], "format-alone"),
        (["-f", "docker", "-f", "kernel+initrd"], "format-alone"),
        (["-f", ",tar"], "format-unknown"),
        (["-f", "kernel"], "format-unknown"),
        (["--size", "big"], "bad-size"),
        (["--tag", "a b"], "image-bad-tag"),
        (["--name", "a b"], "image-bad-tag"),
    ],
)
def test_flags_that_do_not_go_together(bench: Bench, args: list[str], slug: str) -> None:
    done = bench.build(*args, "web.yml")
    assert (done.code, f"error[{slug}]" in done.err, bench.files()) == (2, True, [])


def test_a_stream_may_have_a_name_that_no_image_could_have(bench: Bench) -> None:
    (bench.folder / "out").mkdir()
    assert bench.build("-f", "tar", "--name", "out/a b", "web.yml").code == 0
    assert (bench.folder / "out" / "a b.tar").is_file()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (".", "error[output-not-written]: cannot write .: it is a folder"),
        ("no/x", "error[output-not-written]: cannot write no/x: No such file"),
        ("/dev/full", "error[build-io]: /dev/full: No space left"),
    ],
)
def test_a_stream_that_cannot_be_written_names_its_place(bench: Bench, where: str, message: str) -> None:
    done = bench.build("--o", where, "web.yml")
    assert (done.code, done.err[: len(message)], bench.files()) == (1, message, [])


def test_no_spec_is_a_usage_error(bench: Bench) -> None:
    done = bench("build")
    assert (done.code, "Missing argument 'SPEC...'" in done.err) == (2, True)


def test_specs_from_everywhere(bench: Bench) -> None:
    class Serve(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serve) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        by_url = bench.build(f"{url}/web.yml")
        missing = bench.build(f"{url}/none.yml")
        server.shutdown()
    by_file = bench.build("web.yml")
    assert by_url.out == by_file.out
    assert (missing.code, "error[spec-url]" in missing.err, "404" in missing.err, missing.err.count("\n")) == (
        5,
        True,
        True,
        1,
    )
    (bench.shell.data / "specs" / "known.yml").write_text(SPEC)
    assert bench.build("known").out.startswith("known@sha256:")
    (bench.folder / "more.yml").write_text('kernel: {cmdline: "loud"}\nfiles: [{path: x, contents: y}]\n')
    assert bench.build("web.yml", "more.yml").out.startswith("more@sha256:")
    assert bench("images", "show", "more", "-o", "json").json["image"]["cmdline"] == "loud"
    command = [sys.executable, "-m", "pxeserver", "--data", str(bench.shell.data), "build", "-q", "-"]
    command += [f"--source=oci:{bench.bases.root}"]
    done = subprocess.run(command, env=bench.shell.environ, input=SPEC.encode(), capture_output=True, check=True)
    assert done.stdout.startswith(b"moby@sha256:")


def test_faults_have_place_nearest_name_and_exit_code(bench: Bench) -> None:
    for text, code, words in (
        (SPEC.replace("l/init", "l/innit"), 3, 'web.yml:2:8: init[0]: no base image "docker.io/l/innit:1"'),
        (SPEC.replace("init:", "inot:", 1), 2, 'web.yml:2:1: inot: unknown key "inot" - did you mean "init"?'),
        ("", 2, "the spec is empty"),
    ):
        (bench.folder / "web.yml").write_text(text)
        done = bench.build("web.yml")
        assert (done.code, words in done.err) == (code, True), done.err
    (bench.shell.data / "specs" / "known.yml").write_text(SPEC)
    done = bench.build("knwon")
    assert (done.code, 'did you mean "known"' in done.err) == (3, True)


def test_a_dry_run_prints_the_merged_spec_and_builds_nothing(bench: Bench) -> None:
    (bench.folder / "more.yml").write_text('init: ["l/more:1"]\n')
    before = bench("images", "ls", "-o", "json").json
    done = bench.build("--dry-run", "web.yml", "more.yml")
    assert "init:\n    - l/init:1\n    - l/more:1\n" in done.out
    assert bench("images", "ls", "-o", "json").json == before


def test_a_strict_dry_run_leaves_the_empty_file_that_linuxkit_leaves(bench: Bench) -> None:
    assert bench.build("--dry-run", "-f", "tar", "web.yml").code == 0 and bench.files() == []
    assert bench.build("--strict", "--dry-run", "-f", "tar", "web.yml").code == 0
    assert (bench.folder / "web.tar").read_bytes() == b""


def test_a_strict_build_does_not_read_the_tar_that_it_writes(bench: Bench) -> None:
    (bench.folder / "web.yml").write_text(SPEC + "files: [{path: s, metadata: yaml}]\n")
    assert bench.build("-f", "tar", "web.yml").code == 0
    done = bench.build("--strict", "-f", "tar", "--input-tar", "web.tar", "web.yml")
    assert (done.code, "error[output-conflict]" in done.err) == (2, True)
    assert bench.build("-f", "tar", "--input-tar", "web.tar", "web.yml").code == 0


def test_an_sbom_needs_a_path(bench: Bench) -> None:
    done = bench("build", f"--source=oci:{bench.bases.root}", "--sbom-output=", "web.yml")
    assert (done.code, "error[output-conflict]" in done.err) == (2, True)


def test_a_cache_of_linuxkit_holds_the_bases(bench: Bench) -> None:
    flag = bench("build", "-q", "--cache", str(bench.bases.root), "web.yml")
    variable = bench("build", "-q", "web.yml", LINUXKIT_CACHE=str(bench.bases.root))
    assert flag.out == variable.out
    assert flag.code == 0, flag.err


def test_mirrors_come_from_flag_or_environment(bench: Bench) -> None:
    done = bench("build", "-q", "web.yml", LINUXKIT_MIRROR="nonsense")
    assert (done.code, "error[mirror-bad]" in done.err) == (2, True)
    done = bench("build", "-q", "--mirror", "other=nonsense", "web.yml", LINUXKIT_MIRROR="http://127.0.0.1:1")
    assert '"other=nonsense" is no mirror' in done.err


def test_a_data_folder_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = bench.build("web.yml", PXESERVER_SERVER_DATA=str(tmp_path / "x"))
    assert done.code == 0, "--data wins over the environment"
    inner = InnerShell(bench.shell)
    done = inner(
        "build", "-q", f"--source=oci:{bench.bases.root}", "web.yml",
        data=False, PXESERVER_SERVER_DATA=str(tmp_path / "file" / "x"),
    )  # fmt: skip
    assert (done.code, "error[data-not-writable]" in done.err, "--data DIR" in done.err) == (2, True, True)


def test_the_life_of_an_image(bench: Bench) -> None:
    first = bench.build("--tag", "v1", "web.yml").out.strip()
    (bench.folder / "web.yml").write_text(SPEC.replace("quiet", "loud"))
    second = bench.build("web.yml").out.strip()
    shown = bench("images", "show", "web:v1")
    assert f"digest          {first.partition('@')[2]}" in shown.out
    assert "memory          48 MiB (BIOS), 112 MiB (UEFI)" in shown.out and "5 of 2040 bytes" in shown.out
    takes = bench("images", "show", "web:v1", "-o", "json").json["preflight"]
    assert takes["peak"] > takes["unpacked"] > 0 and takes["cmdline_limit"] == 2040
    assert bench("images", "show", "web:v1", "--spec").out == SPEC
    assert bench("images", "tag", "web:v1", "stable").out == f"web:stable is now {first.replace('sha256:', '')[:16]}\n"
    moved = bench("images", "tag", "web", "stable", "-o", "json").json
    assert (moved["tag"], moved["image"].partition("@")[2]) == ("web:stable", second.partition("sha256:")[2][:12])
    assert moved["before"].partition("@")[2] == first.partition("sha256:")[2][:12]
    assert all(not r["faults"] for r in bench("images", "verify", "web", "web:v1", "-o", "json").json)
    exported = bench("images", "export", "web", "--name", "out").out.split()
    assert exported == ["out-kernel", "out-initrd.img", "out-cmdline"]
    assert (bench.folder / "out-cmdline").read_text() == "loud"
    assert bench("images", "export", "web", "-f", "tar").code == 4
    assert bench("images", "rm", "web:stable").out.startswith("removed the tag web:stable of web@")
    assert bench("images", "rm", first).out.startswith("removed web@")
    gone = bench("images", "show", first)
    assert (gone.code, "error[image-not-found]" in gone.err) == (3, True)


def test_a_damaged_image_is_reported(bench: Bench) -> None:
    bench.build("web.yml")
    initrd = bench("images", "show", "web", "-o", "json").json["image"]["initrd"]["digest"]
    path = bench.shell.data / "store" / "blobs" / "sha256" / initrd.removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = bench("images", "verify", "web")
    assert (done.code, "error[image-damaged]" in done.err, "is damaged" in done.out) == (1, True, True)


def test_an_image_in_use_stays(bench: Bench, server: Server) -> None:
    bench.build("web.yml")
    assert bench("assign", "aa:bb:cc:dd:ee:01", "web").code == 0
    refused = bench("images", "rm", "web")
    assert (refused.code, "error[image-in-use]" in refused.err, "aa:bb:cc:dd:ee:01" in refused.err) == (4, True, True)
    assert bench("images", "rm", "--force", "web").code == 0


def test_specs_are_listed_shown_and_checked(bench: Bench) -> None:
    specs = bench.shell.data / "specs"
    (specs / "good.yml").write_text(SPEC)
    (specs / "bad.yml").write_text("inot: []\n")
    bench.build("good")
    listed = {s["name"]: s for s in bench("specs", "ls", "-o", "json").json}
    assert listed["good"]["newest"].startswith("good@")
    assert listed["bad"]["newest"] == ""
    assert bench("specs", "show", "good").out == SPEC
    assert bench("specs", "check", "good").out == "good: ok\n"
    one = bench("specs", "check", "bad")
    assert (one.code, "bad.yml:1:1: inot" in one.err) == (2, True)
    both = bench("specs", "check", "good", "bad")
    assert (both.code, both.out, "error[specs-faulty]: 1 of 2" in both.err) == (6, "good: ok\n", True)
    found = bench("specs", "check", "good", "bad", "-o", "json")
    assert [bool(c["error"]) for c in json.loads(found.out)] == [False, True]
    assert bench("specs", "show", "goood").code == 3


def test_the_shipped_specs_are_sound(bench: Bench) -> None:
    done = bench("specs", "check", "-o", "json", PXESERVER_IMAGES_SPECS="[]")
    assert done.json, "some are shipped"
    assert [c for c in done.json if c["error"]] == []
