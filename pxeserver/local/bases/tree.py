"""The files of one image, and the one way to write them: sorted, owned by root, with a fixed time."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pxeserver.errors import PxeServerError
from pxeserver.images import elf
from pxeserver.images.entry import SYMLINK, Entry, folder, parents, symlink, text
from pxeserver.images.tarwrite import TarWriter
from pxeserver.images.writers import Sink
from pxeserver.local.bases.deb import Unpacked, merged
from pxeserver.local.bases.recipe import Recipe

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


class Tree:
    """Entries by path; putting one twice keeps the last. `disk` says where a file from a package is unpacked."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.disk: dict[str, Path] = {}

    def put(self, entry: Entry, disk: Path | None = None) -> None:
        self.entries[entry.name] = entry
        self.disk.pop(entry.name, None)
        if disk is not None:
            self.disk[entry.name] = disk

    def ordered(self, first: Sequence[str] = ()) -> tuple[Entry, ...]:
        """Every entry after its parent folders: those matching `first` in that order, then the rest by name."""
        rank = {name: _rank(name, first) for name in self.entries}
        done: dict[str, Entry] = {}
        for name in sorted(self.entries, key=lambda n: (rank[n], n)):
            for parent in parents(posixpath.dirname(name)):
                done.setdefault(parent.name, self.entries.get(parent.name, parent))
            done.setdefault(name, self.entries[name])
        return tuple(done.values())


def _rank(name: str, first: Sequence[str]) -> int:
    return next((n for n, pattern in enumerate(first) if fnmatch.fnmatchcase(name, pattern)), len(first))


def write(entries: Iterable[Entry], sink: Sink) -> None:
    """An uncompressed tar archive that depends on nothing but names, modes and contents."""
    writer = TarWriter(sink)
    for entry in entries:
        writer.add(entry)
    writer.finish()


def lay_out(recipe: Recipe, unpacked: Unpacked, arch: str, applets: Callable[[], Sequence[str]]) -> Tree:
    """What the recipe takes from the packages, its own files, and the libraries that all of it needs."""
    tree = Tree()
    for path in recipe.folders:
        tree.put(folder(path))
    if recipe.applets:
        for path in applets():
            tree.put(symlink(path, "/bin/busybox"))
    for to, patterns in recipe.take.items():
        for pattern in patterns:
            if not _take(tree, unpacked, to, merged(pattern)) and not recipe.optional:
                raise PxeServerError("package-changed", f'{recipe.name}: no file "{pattern}" in its packages')
    for to, pattern in recipe.concat.items():
        paths = [p for p in unpacked.find(pattern) if p in unpacked.disk]
        tree.put(text(to, b"".join(unpacked.disk[p].read_bytes() for p in paths)))
    for to, target in recipe.links.items():
        tree.put(symlink(to, target))
    for to, file in recipe.own_files:
        data = file.read_bytes()
        tree.put(text(to, data, 0o755 if data.startswith(b"#!") else 0o644))
    add_libraries(tree, unpacked, arch)
    return tree


def _take(tree: Tree, unpacked: Unpacked, to: str, pattern: str) -> bool:
    """Copy what matches; with `**` the folders below the pattern's fixed part are kept. False when nothing did.

    A relative symlink whose target comes along as well stays one; another one becomes the file it leads to.
    """
    found = unpacked.find(pattern)
    top = pattern[: pattern.index("**")].rpartition("/")[0] if "**" in pattern else ""
    for path in found:
        below = path.removeprefix(top).lstrip("/") if top else posixpath.basename(path)
        name = to + below if to.endswith("/") else to
        entry, target = unpacked.entries[path], unpacked.resolve(path)
        if entry.kind == SYMLINK and target in found and not entry.link.startswith("/"):
            tree.put(symlink(name, entry.link))
        elif target:
            tree.put(unpacked.entries[target]._replace(name=name), unpacked.disk[target])
    return bool(found)


def add_libraries(tree: Tree, unpacked: Unpacked, arch: str) -> None:
    """Put in every library and loader that the programs in the tree name, and those that these name.

    PxeServerError "library-missing" when no package brings one.
    """
    home = f"usr/lib/{TRIPLETS[arch]}"
    todo = list(tree.disk)
    while todo:
        user = todo.pop()
        needs = elf.needs(tree.disk[user])
        if needs is None:
            continue
        wanted = [f"{home}/{soname}" for soname in needs.libraries]
        for name in (*wanted, *([needs.interpreter.lstrip("/")] if needs.interpreter else [])):
            if name in tree.entries or needs.interpreter.endswith("/" + posixpath.basename(name)) and name in wanted:
                continue
            soname = posixpath.basename(name)
            hits = (unpacked.resolve(p) for p in (name, *unpacked.find(f"usr/lib/**{soname}")))
            found = next((p for p in hits if p), "")
            if not found:
                raise PxeServerError("library-missing", f"no package brings {soname}, which {user} needs")
            tree.put(unpacked.entries[found]._replace(name=name, mode=0o755), unpacked.disk[found])
            todo.append(name)
