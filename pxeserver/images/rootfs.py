"""The root file system of an assembled image: what the kernel makes of its initrd, path by path, for other outputs.

An initrd may hold a path several times, and paths through symlinks. Here each path stands once, as the kernel would
have left it (init/initramfs.c): the later entry wins, a folder that is not empty stays one, nothing is made in a folder
that is not there. What an initrd cannot hold (hard links, extended attributes) is not here either.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from pxeserver.images import compress, cpioread
from pxeserver.images.entry import FILE, FOLDER, SYMLINK, Entry
from pxeserver.images.initrd import Assembled
from pxeserver.images.store import Store
from pxeserver.images.tarwrite import TarWriter
from pxeserver.images.writers import Sink, content

_INDEX = re.compile(r"(^|/)lib/modules/[^/]+/modules\.(dep|alias)$")
_LINKS_FOLLOWED = 40  # as many as Linux does


@dataclass
class _Place:
    """What stands at a path: entry number `at` of the initrd."""

    at: int
    entry: Entry
    children: set[str] = field(default_factory=set)


class RootTree:
    """`places` by path; contents are read anew from the store each time, in the order of the initrd."""

    def __init__(self, made: Assembled, store: Store) -> None:
        self._store, self._made = store, made
        self.places: dict[str, _Place] = {"": _Place(-1, Entry("", FOLDER))}
        self.indexes: dict[str, bytes] = {}  # of kernel modules, by path: what depmod wrote
        with self._opened() as entries:
            for at, entry in enumerate(entries):
                if _INDEX.search(entry.name) and entry.kind == FILE:
                    self.indexes[entry.name] = content(entry)
                self._put(at, entry._replace(open=None))

    @contextmanager
    def _opened(self) -> Iterator[Iterator[Entry]]:
        with cast(io.BufferedReader, self._store.open_blob(self._made.initrd.digest)) as file:
            if self._made.ucode is not None:
                file.seek(self._made.ucode.size)
            yield cpioread.entries(compress.opened(file))

    def _put(self, at: int, entry: Entry) -> None:
        if not (words := [w for w in entry.name.split("/") if w not in ("", ".")]):
            return
        above = self._resolved("/".join(words[:-1]))
        if above is None or self.places[above].entry.kind != FOLDER or words[-1] == "..":
            return
        path = posixpath.join(above, words[-1])
        before = self.places.get(path)
        if before is not None and before.entry.kind == FOLDER and (before.children or entry.kind == FOLDER):
            if entry.kind == FOLDER:
                before.at, before.entry = at, entry
            return
        self.places[path] = _Place(at, entry)
        self.places[above].children.add(words[-1])

    def _resolved(self, path: str) -> str | None:
        """The path without any symlink in it; None when it does not exist."""
        todo, done, followed = [w for w in path.split("/") if w not in ("", ".")], "", 0
        while todo:
            word = todo.pop(0)
            if word == "..":
                done = posixpath.dirname(done)
                continue
            step = posixpath.join(done, word)
            place = self.places.get(step)
            if place is None:
                return None
            if place.entry.kind == SYMLINK:
                followed += 1
                if followed > _LINKS_FOLLOWED:
                    return None
                link = place.entry.link
                done = "" if link.startswith("/") else done
                todo = [w for w in link.split("/") if w not in ("", ".")] + todo
            else:
                done = step
        return done

    def find(self, path: str) -> str | None:
        """The path of the file that `path` leads to; None when there is none."""
        found = self._resolved(path)
        return found if found is not None and self.places[found].entry.kind == FILE else None

    def entries(self) -> Iterator[Entry]:
        """Folders first, sorted; then the rest in the initrd's order, each with its content to be read at once."""
        by_number = {place.at: path for path, place in self.places.items()}
        for path in sorted(self.places):
            if path and self.places[path].entry.kind == FOLDER:
                yield self.places[path].entry._replace(name=path)
        with self._opened() as entries:
            for at, entry in enumerate(entries):
                if entry.kind != FOLDER and at in by_number:
                    mode = 0o777 if entry.kind == SYMLINK else entry.mode  # Linux knows no other
                    yield entry._replace(name=by_number[at], mode=mode)

    def read(self, paths: Collection[str]) -> dict[str, bytes]:
        """The contents of these files, which are small."""
        found = {}
        wanted = {self.places[path].at: path for path in paths}
        with self._opened() as entries:
            for at, entry in enumerate(entries):
                if at in wanted:
                    found[wanted[at]] = content(entry)
                    if len(found) == len(wanted):
                        break
        return found

    def write_tar(self, sink: Sink) -> None:
        tar = TarWriter(sink)
        for entry in self.entries():
            tar.add(entry)
        tar.finish()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(place.entry.size for place in self.places.values())
