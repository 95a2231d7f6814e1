"""The builder beside `tar | pigz -1` and `tar | gzip -1` over the same files: CPU, wall time and memory (root).

The base image is made of this host's own files: one layer, a plain tar as `pxeserver bases build` and docker save make
them. `cold` has an empty data folder and reads it from an OCI layout; `warm` is a rebuild with one changed file of the
spec. The pipelines read the same files unpacked on disk, the page cache warm for all. `cold_packed` reads the layer
gzipped, as registries have it, beside `gzip -dc | pigz -1` over that very layer. `cold_four` has the base image in four
places, which makes four segments; `cold_four_alone` makes them on one CPU.
"""

from __future__ import annotations

import compileall
import hashlib
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

import pxeserver
from bench.cgroup import Group
from bench.lab import WORK, package, version
from bench.targets import Measured, Target, median_ratio
from pxeserver.images import oci
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store

if TYPE_CHECKING:
    from bench.__main__ import Options

TARGETS = (
    Target("cold.cpu_s", "<=", 4.0),
    Target("cold.cpu_of_tar_pigz", "<=", 0.5),
    Target("warm.cpu_s", "<=", 0.6),
    Target("peak.250MiB", "<=", 128.0),
    Target("peak.1GiB", "<=", 128.0),
)
ROUNDS = 5


def measure(options: Options) -> Measured:
    small, large = (int(n * options.scale) << 20 for n in (250, 1024))
    # as an installed package has it; of a checkout, an environment that keeps no bytecode would compile it in each run
    compileall.compile_dir(str(Path(pxeserver.__file__).parent), quiet=2)
    rounds = options.rounds or ROUNDS
    measured = Measured(rounds=rounds, versions=_versions())
    folder = (WORK / "build").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _rounds(_Case(folder / "small", small), rounds, measured)
        big = _Case(folder / "large", large)
        peaks = [big.cold()["peak_mib"] for _ in range(2)]
        measured.values["peak.1GiB"] = statistics.median(peaks)
        measured.details["large"] = {"unpacked_mib": big.unpacked >> 20, "peaks_mib": [round(x, 1) for x in peaks]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return measured


def _rounds(case: _Case, rounds: int, measured: Measured) -> None:
    """Everything in turn, so that a busier minute hits all of them alike."""
    names = ("cold", "warm", "tar_pigz", "tar_gzip", "cold_packed", "unpack_pigz", "cold_four", "cold_four_alone")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    case.cold()  # the page cache
    case.tar("pigz -1")
    for _ in range(rounds):
        runs["cold"].append(case.cold())
        runs["tar_pigz"].append(case.tar("pigz -1"))
        runs["warm"].append(case.warm())
        runs["tar_gzip"].append(case.tar("gzip -1"))
        runs["cold_packed"].append(case.cold(packed=True))
        runs["unpack_pigz"].append(case.unpack())
        runs["cold_four"].append(case.cold(four=True))
        runs["cold_four_alone"].append(case.cold(four=True, before=("taskset", "-c", "0")))
    cpu = {name: [run["cpu_s"] for run in found] for name, found in runs.items()}
    measured.values |= {
        "cold.cpu_s": statistics.median(cpu["cold"]),
        "cold.cpu_of_tar_pigz": median_ratio(cpu["cold"], cpu["tar_pigz"]),
        "warm.cpu_s": statistics.median(cpu["warm"]),
        "peak.250MiB": max(run["peak_mib"] for run in runs["cold"]),
    }
    measured.details["small"] = {
        "unpacked_mib": case.unpacked >> 20,
        **{name: {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}
           for name, found in runs.items()},
        "cold_packed.cpu_of_unpack_pigz": round(median_ratio(cpu["cold_packed"], cpu["unpack_pigz"]), 3),
    }  # fmt: skip


def _versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "pigz": package("pigz"),
        "gzip": package("gzip"),
        "tar": version("tar", "--version"),
    }  # noqa: E501


class _Case:
    """A base image of about `size` bytes of this host's files, and a spec around it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        folder.mkdir()
        names, self.unpacked = _files(size)
        self.names = folder / "names"
        self.names.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
        raw = folder / "layer.tar"
        subprocess.run(f"tar {self._tar_flags} > {raw}; pigz -6 -n < {raw} > {raw}.gz", shell=True, check=True)
        kernel = folder / "kernel"
        kernel.write_bytes(b"MZ" + os.urandom(8 << 20))
        subprocess.run(["tar", "-C", str(folder), "-cf", str(folder / "kernel.tar"), "kernel"], check=True)
        self.layouts = {}
        for packed in (False, True):
            layout = Store(folder / ("packed" if packed else "layout"))
            layout.prepare()
            _image(layout, "docker.io/bench/root:1", raw, packed)
            _image(layout, "docker.io/bench/kernel:1", folder / "kernel.tar", False)
            self.layouts[packed] = layout.root
        self.packed = folder / "layer.tar.gz"
        raw.unlink()
        self._changes = itertools.count()

    @property
    def _tar_flags(self) -> str:
        return f"-C / --null --no-recursion --files-from={self.names} -cf -"

    def _spec(self, four: bool = False) -> Path:
        spec = self.folder / "spec.yml"
        more = "services: [{name: a, image: 'bench/root:1'}, {name: b, image: 'bench/root:1'}]\n" if four else ""
        more += "onboot: [{name: c, image: 'bench/root:1'}]\n" if four else ""
        spec.write_text(
            "kernel: {image: 'bench/kernel:1', cmdline: console=ttyS0, tar: none}\ninit: ['bench/root:1']\n"
            f"files: [{{path: etc/changed, contents: 'change {next(self._changes)}', mode: '0644'}}]\n" + more
        )
        return spec

    def _build(self, packed: bool = False, four: bool = False, before: Sequence[str] = ()) -> dict[str, float]:
        argv = [*before, sys.executable, "-m", "pxeserver", "--data", str(self.folder / "data"), "build", "-q"]
        return _run([*argv, "--arch", "amd64", "--source", f"oci:{self.layouts[packed]}", str(self._spec(four))])

    def cold(self, packed: bool = False, four: bool = False, before: Sequence[str] = ()) -> dict[str, float]:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        return self._build(packed, four, before)

    def warm(self) -> dict[str, float]:
        """Needs a build before; the spec's one file is another each time."""
        return self._build()

    def tar(self, compressor: str) -> dict[str, float]:
        return _run(["sh", "-c", f"tar {self._tar_flags} | {compressor} > {self.folder}/out"])

    def unpack(self) -> dict[str, float]:
        return _run(["sh", "-c", f"gzip -dc {self.packed} | pigz -1 > {self.folder}/out"])


def _image(layout: Store, ref: str, tar: Path, packed: bool) -> None:
    """An image of one layer, a tar file; `packed`, its .gz beside it."""
    with tar.open("rb") as stream:
        diff_id = hashlib.file_digest(stream, "sha256").hexdigest()
    with Path(f"{tar}.gz" if packed else tar).open("rb") as stream:
        blob = layout.add_blob(stream)
    layer = Descriptor(oci.LAYER_GZIP if packed else oci.LAYER, blob.digest, blob.size)
    layout.write_base(ref, {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}}, [layer], "amd64")


def _files(size: int) -> tuple[list[str], int]:
    """Regular files of this host, some of every folder, `size` bytes in all: programs, libraries, text."""
    every = list(_walk())
    step = max(1, sum(length for _, length in every) // size)
    names: list[str] = []
    total = 0
    for first in range(step):  # every `step`th file; should the host have few, the ones between them as well
        for name, length in every[first::step]:
            if total >= size:
                return sorted(names), total
            names.append(name)
            total += length
    return sorted(names), total


def _walk() -> Iterator[tuple[str, int]]:
    for folder, folders, files in os.walk("/usr"):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            if S_ISREG(stat.st_mode) and stat.st_size < 64 << 20:
                yield path.lstrip("/"), stat.st_size


def _run(argv: list[str]) -> dict[str, float]:
    """CPU of all descendants, wall time, peak memory less page cache."""
    group = Group()
    began = time.monotonic()
    try:
        with group.watching():
            done = subprocess.run(group.argv(argv), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-2000:]}")
        wall = time.monotonic() - began
        return {"cpu_s": group.cpu_seconds(), "wall_s": wall, "peak_mib": group.peak / (1 << 20)}
    finally:
        group.close()
