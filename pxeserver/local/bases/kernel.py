"""The kernel's image: /kernel, /kernel.tar with its modules, and /ucode.cpio where the distribution has microcode."""

from __future__ import annotations

import lzma
import os
import posixpath
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pxeserver.errors import PxeServerError
from pxeserver.images.cpio import CpioWriter
from pxeserver.images.entry import Entry, folder, from_disk, text
from pxeserver.local.bases.deb import Unpacked
from pxeserver.local.bases.recipe import Kernel
from pxeserver.local.bases.tools import Tools, finish
from pxeserver.local.bases.tree import Tree, write

# depmod's files that a machine reads; symbols, dependencies' sources and build records stay behind
_INDEXES = re.compile(r"modules\.((alias|dep|builtin|builtin\.alias)(\.bin)?|softdep|devname|order)")
_BATCH = 64
# file of the cpio -> folder of /usr/lib/firmware it is joined from (Documentation/arch/x86/microcode.rst)
_MICROCODE = {"AuthenticAMD.bin": "amd-ucode/microcode_amd*", "GenuineIntel.bin": "intel-ucode/*"}


def lay_out(kernel: Kernel, unpacked: Unpacked, tools: Tools, work: Path) -> Tree:
    """Pick modules, compress them, run depmod. `work` is an empty folder for all of this.

    Modules are compressed one by one (xz, as later releases ship them): in the machine's memory they stay so, which
    saves three quarters of it.
    """
    images = unpacked.find("boot/vmlinu*")
    found = {p.split("/")[3] for p in unpacked.find("usr/lib/modules/**/kernel/**")}
    if len(images) != 1 or len(found) != 1:
        raise PxeServerError("package-changed", f"the packages of {kernel.package} hold no kernel, or several")
    version = found.pop()
    top = work / "root/lib/modules" / version
    _place_modules(kernel, unpacked, f"usr/lib/modules/{version}", top)
    _compress(tools, sorted(top.rglob("*.ko")))
    tools.run("usr/sbin/depmod", "-b", str(work / "root"), version)
    for path in top.iterdir():
        if path.is_file() and not _INDEXES.fullmatch(path.name):
            path.unlink()
    archive = work / "kernel.tar"
    with archive.open("wb") as out:
        write(_walk(work / "root"), out)
    tree = Tree()
    tree.put(unpacked.entries[images[0]]._replace(name="kernel", mode=0o644))
    tree.put(from_disk("kernel.tar", archive, 0o644))
    early = microcode(unpacked, work / "ucode.cpio")
    if early:
        tree.put(from_disk("ucode.cpio", early, 0o644))
    return tree


def chosen(kernel: Kernel, modules: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The modules to take, by path below kernel/, from path -> names of those it depends on.

    Whatever a taken module depends on comes along, even out of a dropped folder.
    """
    by_name = {module_name(path): path for path in modules}
    todo = [p for p in modules if not p.startswith(kernel.drop) or p.startswith(kernel.keep)]
    taken: set[str] = set()
    while todo:
        path = todo.pop()
        if path not in taken:
            taken.add(path)
            todo += [by_name[d] for d in map(_plain, modules[path]) if d in by_name]
    return tuple(sorted(taken))


def module_name(path: str) -> str:
    """net/virtio_net.ko.xz -> virtio_net; the kernel takes - and _ for the same."""
    return _plain(posixpath.basename(path).partition(".ko")[0])


def _plain(name: str) -> str:
    return name.replace("-", "_")


def depends(module: bytes) -> tuple[str, ...]:
    """What a module says in .modinfo that it needs: `depends=a,b`."""
    found = re.search(rb"\0depends=([\w,-]+)\0", module)
    return tuple(found[1].decode().split(",")) if found else ()


def _place_modules(kernel: Kernel, unpacked: Unpacked, base: str, top: Path) -> None:
    modules = {}
    for path in unpacked.find(f"{base}/kernel/**"):
        if ".ko" in path and path in unpacked.disk:
            data = unpacked.disk[path].read_bytes()
            modules[path.removeprefix(f"{base}/kernel/")] = depends(
                lzma.decompress(data) if path.endswith(".xz") else data
            )
    for path in chosen(kernel, modules):
        target = top / "kernel" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        unpacked.disk[f"{base}/kernel/{path}"].rename(target)
    for path in unpacked.find(f"{base}/modules.*"):
        shutil.copyfile(unpacked.disk[path], top / posixpath.basename(path))


def _compress(tools: Tools, modules: Sequence[Path]) -> None:
    """xz each file in place, on all CPUs; the bytes do not depend on how many there are."""
    words = ("--check=crc32", "--lzma2=preset=1,dict=1MiB", "--threads=1", "--no-warn")
    batches = [modules[n : n + _BATCH] for n in range(0, len(modules), _BATCH)]
    running: list[subprocess.Popen[str]] = []
    while batches or running:
        while batches and len(running) < len(os.sched_getaffinity(0)):
            running.append(tools.start("usr/bin/xz", *words, *map(str, batches.pop())))
        finish(running.pop(0), "xz")


def _walk(root: Path) -> list[Entry]:
    """Everything below, sorted by path, with the modes that a system has."""
    entries = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        entries.append(folder(name) if stat.S_ISDIR(path.lstat().st_mode) else from_disk(name, path, 0o644))
    return entries


def microcode(unpacked: Unpacked, to: Path) -> Path | None:
    """What stands before an initrd so that the kernel loads it first; None where the packages have none."""
    found = {name: unpacked.find(f"usr/lib/firmware/{glob}") for name, glob in _MICROCODE.items()}
    if not any(found.values()):
        return None
    with to.open("wb") as out:
        writer = CpioWriter(out)
        for name in ("kernel", "kernel/x86", "kernel/x86/microcode"):
            writer.add(folder(name))
        for name, paths in found.items():
            data = b"".join(unpacked.disk[p].read_bytes() for p in paths if p.endswith(".bin") or "intel" in p)
            if data:
                writer.add(text(f"kernel/x86/microcode/{name}", data))
        writer.finish()
        out.write(bytes(-out.tell() % 512))  # what follows in an initrd begins on a boundary
    return to
