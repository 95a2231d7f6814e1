"""Builds and pulls that end in the middle: killed, out of disk, two at once. What is left is whole, and goes on."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from imagelab import KERNEL, Bases, file, folder
from registrylab import Registry

from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.images.verify import verify

SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "console=ttyS0"}
init: ["l/init:1", "l/more:1"]
services: [{name: s, image: "l/more:1"}]
files: [{path: x, contents: "TURN"}]
"""


def bases(folder_: Path, mib: int = 3) -> Bases:
    made, rand = Bases(folder_), random.Random(5)
    made.image("l/kernel:1", KERNEL)
    many = [file(f"d/{n}", rand.randbytes(1 << 20)) for n in range(mib)]
    made.image("l/init:1", [folder("d"), *many])
    made.image("l/more:1", [file(f"m{n}", rand.randbytes(100_000)) for n in range(10)])
    return made


class Data:
    """A data folder, and builds into it in processes of their own."""

    def __init__(self, top: Path, source: str, *flags: str) -> None:
        self.path = top / "data"
        self._spec, self._source, self._flags = top / "web.yml", source, flags

    def start(self, turn: str = "one") -> subprocess.Popen[str]:
        spec = self._spec.with_name(f"{turn}.yml")
        spec.write_text(SPEC.replace("TURN", turn))
        command = [sys.executable, "-m", "pxeserver", "--data", str(self.path), "build", "-q", "--source", self._source]
        return subprocess.Popen(
            [*command, *self._flags, str(spec)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def build(self, turn: str = "one") -> tuple[int, str, str]:
        with self.start(turn) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out.strip(), err

    def check(self) -> None:
        """Every blob is what its name says, everything that is named is there, every image is whole."""
        store = Store(self.path / "store")
        if not store.index_file.exists():
            return
        blobs = self.path / "store" / "blobs" / "sha256"
        damaged = [p.name for p in blobs.iterdir() if not _is(p)]
        assert damaged == []
        assert all(store.has(d) for d in store.references(store.list()))
        catalogue = Catalogue(store)
        assert [fault for image in catalogue.list() for fault in verify(catalogue, image, _nobody)] == []

    def left(self) -> list[Path]:
        """Temporary files, after a build that came through."""
        return [p for p in self.path.rglob("*") if p.name.startswith("new-")]


def _nobody(count: int) -> None:
    pass


def _is(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def kill_at_random(data: Data, turns: int, longest: float) -> int:
    """How many builds were killed before their end."""
    rand, killed = random.Random(11), 0
    for turn in range(turns):
        with data.start(f"turn{turn}") as process:
            time.sleep(rand.uniform(0.1, longest))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        killed += process.returncode == -signal.SIGKILL
        data.check()
    return killed


@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_of_a_build(tmp_path: Path) -> None:
    layout = bases(tmp_path / "bases").root
    clean = Data(tmp_path / "clean", f"oci:{layout}")
    (tmp_path / "clean").mkdir()
    began = time.monotonic()
    code, want, err = clean.build()
    took = time.monotonic() - began
    assert code == 0, err
    data = Data(tmp_path, f"oci:{layout}")
    assert kill_at_random(data, 5, took) > 0, "some were killed"
    assert data.build() == (0, want, ""), "the rebuild is the build that nobody killed"
    data.check()
    assert data.left() == []


@pytest.mark.server
@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_of_a_pull(tmp_path: Path) -> None:
    """A pull goes on with what has come, and brings the same in the end."""
    layout = bases(tmp_path / "bases")
    (tmp_path / "clean").mkdir()
    with Registry(tmp_path / "r") as registry:
        for name in ("kernel", "init", "more"):
            registry.push(layout, f"docker.io/l/{name}:1", f"l/{name}", "1")
        flags = ("--mirror", registry.url)
        began = time.monotonic()
        code, want, err = Data(tmp_path / "clean", "registry", *flags).build()
        took = time.monotonic() - began
        assert code == 0, err
        data = Data(tmp_path, "", *flags)
        assert kill_at_random(data, 5, took) > 0, "some were killed"
        assert data.build() == (0, want, "")
    data.check()
    assert data.left() == [] and not list((data.path / "store" / "partial").glob("*"))
    assert data.build() == (0, want, ""), "everything is here now: the registry is gone"


def test_two_builds_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    layout = bases(tmp_path / "bases").root
    (tmp_path / "clean").mkdir()
    alone = {turn: Data(tmp_path / "clean", f"oci:{layout}").build(turn) for turn in ("one", "two")}
    data = Data(tmp_path, f"oci:{layout}")
    running = {turn: data.start(turn) for turn in ("one", "two")}
    running["again"] = data.start("one")
    for turn, process in running.items():
        with process:
            out, err = process.communicate(timeout=100)
        assert (process.returncode, out.strip(), err) == alone["one" if turn == "again" else turn]
    data.check()
    assert data.left() == []
    assert len(Catalogue(Store(data.path / "store")).list()) == 2


@contextmanager
def small_disk(folder_: Path, mib: int) -> Iterator[None]:
    """A file system of its own on `folder_`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "pxeserver-test", str(folder_)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder_)], check=True)


@pytest.mark.server
def test_a_full_disk_is_one_clear_error_and_no_half_image(tmp_path: Path) -> None:
    """The disk is full a little later each time, until the build fits."""
    layout = bases(tmp_path / "bases", 4).root
    data = Data(tmp_path, f"oci:{layout}")
    data.path.mkdir()
    refused = 0
    for mib in range(1, 60, 2):
        with small_disk(data.path, mib):
            code, out, err = data.build()
            data.check()
            if code == 0:
                break
            refused += 1
            assert out == "" and err.startswith("error[build-io]: ") and "No space left on device" in err, err
            assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
            assert Catalogue(Store(data.path / "store")).list() == () and data.left() == []
    assert code == 0 and refused >= 3


def test_a_damaged_blob_is_found_and_named(tmp_path: Path) -> None:
    """A bit that flipped in a base image's layer, and one in a built image."""
    layout = bases(tmp_path / "bases")
    layer = layout.blobs_of(layout.named("docker.io/l/init:1")[0])[1].digest
    path = layout.blob_path(layer)
    whole = path.read_bytes()
    data = Data(tmp_path, f"oci:{layout.root}")
    for at in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        code, out, err = data.build()
        assert (code, out) != (0, "") and layer in err and "docker.io/l/init:1" in err and "init[0]" in err, err
    path.write_bytes(whole)
    assert data.build()[0] == 0
    catalogue = Catalogue(Store(data.path / "store"))
    (image,) = catalogue.list()
    initrd = catalogue.store.blob_path(image.initrd.digest)
    content = bytearray(initrd.read_bytes())
    content[len(content) // 2] ^= 1
    initrd.write_bytes(content)
    (fault,) = verify(catalogue, image, _nobody)
    assert image.initrd.digest in fault
