"""Running a program out of the unpacked packages, with their libraries: nothing on this host decides the result."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pxeserver.errors import PxeServerError
from pxeserver.images import elf
from pxeserver.images.entry import from_disk
from pxeserver.local.bases.deb import Unpacked
from pxeserver.local.bases.tree import Tree, add_libraries


class Tools:
    """`folder` is scratch space for the libraries under their names."""

    def __init__(self, unpacked: Unpacked, folder: Path, arch: str) -> None:
        self._unpacked = unpacked
        self._folder = folder
        self._arch = arch

    def command(self, path: str) -> list[str]:
        """The words that begin a command line of the program at this path (a link to it counts, by its name)."""
        found = self._unpacked.resolve(path)
        if not found:
            raise PxeServerError("package-changed", f"no program {path} in the packages")
        tree = Tree()
        tree.put(from_disk("program", self._unpacked.disk[found], 0o755), self._unpacked.disk[found])
        add_libraries(tree, self._unpacked, self._arch)
        needs = elf.needs(self._unpacked.disk[found])
        self._folder.mkdir(exist_ok=True)
        for name, disk in tree.disk.items():
            link = self._folder / Path(name).name
            if not link.is_symlink():
                disk.chmod(0o755)
                link.symlink_to(disk)
        program = str(self._unpacked.disk[found])
        if needs is None or not needs.interpreter:
            link = self._folder / Path(path).name  # a program may go by its own name
            link.unlink(missing_ok=True)
            link.symlink_to(program)
            return [str(link)]
        loader = str(self._folder / Path(needs.interpreter).name)
        return [loader, "--library-path", str(self._folder), "--argv0", Path(path).name, program]

    def run(self, path: str, *words: str) -> str:
        return finish(self.start(path, *words), path)

    def start(self, path: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command(path), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"LC_ALL": "C", "PATH": "/nonexistent"},
        )


def finish(process: subprocess.Popen[str], what: str) -> str:
    """Its output; PxeServerError "tool-failed" with what it said."""
    output, errors = process.communicate()
    if process.returncode:
        raise PxeServerError("tool-failed", f"{what} failed: {errors.strip() or process.returncode}")
    return output


def applets(tools: Tools) -> Sequence[str]:
    """Where busybox says that its applets' links belong: bin/sh, sbin/init, usr/bin/awk."""
    paths = tools.run("usr/bin/busybox", "--list-full").split()
    return [p for p in paths if p not in ("bin/busybox", "linuxrc", "init")]
