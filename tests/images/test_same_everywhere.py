"""The same spec and bases give the same digest whatever surrounds the build; memory stays flat whatever the size."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from imagelab import KERNEL, Bases, file, folder, symlink

from pxeserver.images import oci
from pxeserver.images.oci import Descriptor

SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "console=ttyS0"}
init: ["l/init:1"]
services: [{name: caf\u00e9, image: "l/tool:1", env: ["A=b"], sysctl: {b: "1", a: "2"}}]
files:
  - {path: etc/x, source: data.txt, mode: "0644"}
  - {path: etc/spec, metadata: yaml, mode: "0644"}
"""


def bases(folder_: Path) -> Bases:
    made = Bases(folder_)
    made.image("l/kernel:1", KERNEL)
    rand = random.Random(2)
    many = [file(f"d/{n}", rand.randbytes(rand.randrange(40_000)), uid=n) for n in range(100)]
    made.image("l/init:1", [folder("d"), *many], [folder("e"), symlink("e/l", "x"), file("d/.wh.7")])
    made.image("l/tool:1", [file("t\u00e9", b"t")], config={"Env": ["X=1"], "Labels": {"z": "1", "a": "2"}})
    return made


def build(top: Path, layout: Path, *, cpus: str = "", umask: int = 0o022, cwd: Path | None = None, **env: str) -> str:
    """The digest that the command prints, in a process with these surroundings."""
    command = [
        sys.executable,
        "-m",
        "pxeserver",
        "build",
        "-q",
        f"--source=oci:{layout}",
        str(top / "spec" / "web.yml"),
    ]
    if cpus:
        command = ["taskset", "-c", cpus, *command]
    full = {**os.environ, "PXESERVER_SERVER_DATA": str(top / "data"), **env}
    done = subprocess.run(command, cwd=cwd or top, env=full, capture_output=True, text=True, umask=umask)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def spec(top: Path, mtime: int) -> None:
    (top / "spec").mkdir(parents=True)
    for name, text in (("web.yml", SPEC), ("data.txt", "data")):
        (top / "spec" / name).write_text(text)
        os.utime(top / "spec" / name, (mtime, mtime))


def test_one_digest_in_every_surrounding(tmp_path: Path) -> None:
    layout = bases(tmp_path / "bases").root
    one, two = tmp_path / "one", tmp_path / "two"
    spec(one, 1_000_000_000)
    spec(two, 1_700_000_000)
    first = build(one, layout, TZ="UTC", LC_ALL="C", PYTHONHASHSEED="0", cpus="0")
    assert first.startswith("web@sha256:")
    assert (
        build(one, layout, TZ="Asia/Tokyo", LC_ALL="C.UTF-8", PYTHONHASHSEED="99", umask=0o077, cwd=Path("/")) == first
    )
    second = build(two, layout, TZ="America/New_York", LC_ALL="POSIX", PYTHONHASHSEED="7", umask=0, cpus="0,1")
    assert second == first
    stores = [{p.name for p in (top / "data/store/blobs/sha256").iterdir()} for top in (one, two)]
    assert stores[0] == stores[1], "compressed bytes, manifests and all"
    for blob in (one / "data/store/blobs/sha256").iterdir():
        assert blob.stat().st_mode & 0o777 == 0o644


def big_image(made: Bases, ref: str, mib: int) -> None:
    """An image of one uncompressed layer: files of 1 to 8 MiB whose content hardly compresses."""
    path = made.root / "layer"
    rand = random.Random(mib)
    block = rand.randbytes(1 << 20)
    with tarfile.open(path, "w") as archive:
        left, n = mib, 0
        while left > 0:
            size = min(left, rand.randrange(1, 9))
            info = tarfile.TarInfo(f"f{n}")
            info.size = size << 20
            archive.addfile(info, _Repeated(block, info.size))
            left, n = left - size, n + 1
    with path.open("rb") as stream:
        blob = made.add_blob(stream)
    path.unlink()
    made.write_base(f"docker.io/{ref}", {}, [Descriptor(oci.LAYER, blob.digest, blob.size)], "amd64")


class _Repeated(io.RawIOBase):
    def __init__(self, block: bytes, size: int) -> None:
        self._block, self._left = block, size

    def read(self, size: int = -1, /) -> bytes:
        data = self._block[: min(size, self._left, len(self._block))]
        self._left -= len(data)
        return data


def peak_mib(command: list[str], env: dict[str, str]) -> float:
    """The most memory that the process held, and each of its descendants: the sum of their peaks."""
    peaks: dict[int, float] = {}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in _tree(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), _peak(pid))
            time.sleep(0.005)
    assert process.returncode == 0
    return sum(peaks.values())


def _tree(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += map(int, task.read_text().split())
    return found


def _peak(pid: int) -> float:
    """MiB, since the process began the program that it runs."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((x for x in status.splitlines() if x.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize(("mib", "compression"), [(250, "gzip"), (250, "zstd"), (700, "gzip")])
def test_memory_is_flat(tmp_path: Path, mib: int, compression: str) -> None:
    made = bases(tmp_path / "bases")
    big_image(made, "l/init:1", mib)
    (tmp_path / "web.yml").write_text('kernel: {image: "l/kernel:1"}\ninit: ["l/init:1"]\n')
    command = [sys.executable, "-m", "pxeserver", "build", f"--source=oci:{made.root}", f"--compress={compression}"]
    env = {**os.environ, "PXESERVER_SERVER_DATA": str(tmp_path / "data")}
    cold = peak_mib([*command, str(tmp_path / "web.yml")], env)
    warm = peak_mib([*command, str(tmp_path / "web.yml")], env)
    assert 20 < warm <= cold < 110, (cold, warm)


def test_a_build_loads_neither_the_web_nor_the_database(tmp_path: Path) -> None:
    layout = bases(tmp_path / "bases").root
    spec(tmp_path, 0)
    code = (
        "import sys\nfrom pxeserver.__main__ import main\n"
        f"sys.argv = ['pxeserver', '--data', {str(tmp_path / 'd')!r}, 'build', '-q', '--source', 'oci:{layout}',"
        f" {str(tmp_path / 'spec' / 'web.yml')!r}]\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'flask', 'sqlalchemy', 'docker', 'httpx', 'rich', 'cryptography', 'jinja2', 'requests'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
