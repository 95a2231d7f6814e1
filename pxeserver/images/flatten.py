"""From the layers of a base image to the entries of one root file system below a prefix.

Top layer first, as LinuxKit does it: what an upper layer has seen, a lower one cannot bring back. `strict` repeats
LinuxKit's accidents; otherwise opaque folders are honoured, a path removed and added again in one layer stays, the last
of several entries for one path in a layer wins, folders that an image has keep their modes, a file comes after a
folder for it, and a symlinked etc/hosts or etc/resolv.conf is replaced like a plain one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from enum import StrEnum

from pxeserver.errors import PxeServerError, Refused
from pxeserver.images.entry import FILE, FIXED_TIME, FOLDER, HARDLINK, SYMLINK, Entry, folder, parents, symlink, text
from pxeserver.images.layers import BaseImage, layer_entries


class Use(StrEnum):
    """What a root file system is for; it decides about etc/resolv.conf."""

    INIT = "init"
    VOLUME = "volume"
    CONTAINER = "container"


HOSTS = (
    b"127.0.0.1       localhost\n::1     localhost ip6-localhost ip6-loopback\nfe00::0 ip6-localnet\n"
    b"ff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
)
NO_RESOLVER = b"\n# no resolv.conf configured\n"
RESOLVER_LINK = "/run/resolvconf/resolv.conf"

_DROPPED = frozenset((".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"))
_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."


def root(base: BaseImage, use: Use, prefix: str = "", *, strict: bool = False) -> Iterator[Entry]:
    """The entries of the image's root file system; `prefix` is "" or ends with a slash ("a/b/rootfs/")."""
    yield from parents(prefix)
    for entry in _completed(_filtered(files(base, strict=strict), base, use, strict), use, strict):
        link = prefix + entry.link if entry.kind == HARDLINK else entry.link
        yield entry._replace(name=prefix + entry.name, link=link) if prefix else entry


def files(base: BaseImage, *, strict: bool = False) -> Iterator[Entry]:
    """What the image holds once its layers are laid over one another; contents can be read until the next entry."""
    seen = _Strict() if strict else _Fixed()
    for layer in reversed(base.layers):
        with layer_entries(base, layer) as entries:
            for entry in entries:
                name = _clean(entry.name, base)
                if seen.take(name, entry.kind == FOLDER):
                    yield entry._replace(name=name)
        seen.end_of_layer()


class _Strict:
    """LinuxKit's rule: per path whether it hides its children; the first to come wins, within a layer too."""

    def __init__(self) -> None:
        self._hides: dict[str, bool] = {}

    def take(self, name: str, is_folder: bool) -> bool:
        top, base = posixpath.split(name)
        gone = base.startswith(_WHITEOUT)
        path = posixpath.join(top, base.removeprefix(_WHITEOUT)) if gone and not is_folder else name
        if path in self._hides or any(self._hides.get(p) for p in _above(path)):
            return False
        self._hides[path] = gone or not is_folder
        return not gone

    def end_of_layer(self) -> None:
        pass


class _Fixed:
    """The image specification's rule: whiteouts and opaque folders act on lower layers only."""

    def __init__(self) -> None:
        self._hides: dict[str, bool] = {}  # by the layers above: path -> hides its children too
        self._opaque: set[str] = set()
        self._here: dict[str, bool] = {}
        self._gone: set[str] = set()
        self._emptied: set[str] = set()

    def take(self, name: str, is_folder: bool) -> bool:
        top, _, base = name.rpartition("/")
        if base.startswith(_WHITEOUT):
            if base == _OPAQUE:
                self._emptied.add(top)
            elif not base.startswith(_WHITEOUT * 2):  # .wh..wh.* other than opaque is bookkeeping of aufs
                self._gone.add(posixpath.join(top, base.removeprefix(_WHITEOUT)))
            return False
        if (self._hides or self._opaque) and (
            name in self._hides or "" in self._opaque or any(self._covered(p) for p in _above(name))
        ):
            return False
        if top and self._below_a_file(top):
            return False
        self._here[name] = not is_folder
        return True

    def _below_a_file(self, top: str) -> bool:
        """Nothing is below what this layer has as a file or link: unpacked, it would be where the link leads to."""
        here = self._here.get(top)
        return here or here is None and any(self._here.get(p, False) for p in _above(top))

    def _covered(self, path: str) -> bool:
        return self._hides.get(path, False) or path in self._opaque

    def end_of_layer(self) -> None:
        for path in self._gone:
            if self._here.get(path) is False:
                self._opaque.add(path)  # a folder removed and made again: nothing of the old one shows through
            elif path not in self._here:
                self._here[path] = True
        self._hides.update(self._here)
        self._opaque |= self._emptied
        self._here, self._gone, self._emptied = {}, set(), set()


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _clean(name: str, base: BaseImage) -> str:
    if name and name[0] not in "./" and "/." not in name and "//" not in name:
        return name.rstrip("/")  # by far the most; normpath costs more than all else that is done to a name
    path = posixpath.normpath(name.lstrip("/") or ".")
    if path == ".." or path.startswith("../"):
        raise PxeServerError("layer-damaged", f"{base.ref} has a path that leads out of it: {name!r}")
    return path


def _filtered(entries: Iterable[Entry], base: BaseImage, use: Use, strict: bool) -> Iterator[Entry]:
    """Without what belongs to a container engine; the files that LinuxKit writes itself replaced in their places."""
    for entry in entries:
        if entry.name in _DROPPED:
            continue
        if entry.name == "etc/mtab":
            yield entry._replace(mtime=FIXED_TIME, pax=_without_time(entry))
        elif entry.name == "etc/resolv.conf" and use is not Use.CONTAINER:
            link = symlink(entry.name, RESOLVER_LINK, entry.mode, uid=entry.uid, gid=entry.gid)
            yield link._replace(pax=_without_time(entry))
        elif entry.name in ("etc/hosts", "etc/resolv.conf"):
            yield _replaced(entry, base, strict)
        else:
            yield entry


def _replaced(entry: Entry, base: BaseImage, strict: bool) -> Entry:
    if strict and entry.kind in (SYMLINK, HARDLINK):
        raise Refused(
            "image-linked-file",
            f"{entry.name} of {base.ref} is a link, which LinuxKit cannot replace",
            hint="build without --strict",
        )
    data = HOSTS if entry.name == "etc/hosts" else NO_RESOLVER
    mode = entry.mode if entry.kind == FILE else 0o644
    return text(entry.name, data, mode, uid=entry.uid, gid=entry.gid)._replace(pax=_without_time(entry))


def _without_time(entry: Entry) -> dict[str, str]:
    return {k: v for k, v in entry.pax.items() if k != "mtime"}


def must_exist(use: Use) -> list[Entry]:
    """What every root file system has, in LinuxKit's order."""
    if use is Use.CONTAINER:
        resolver = text("etc/resolv.conf", NO_RESOLVER)
    else:
        resolver = symlink("etc/resolv.conf", RESOLVER_LINK, 0o644)
    return [
        *(folder(name) for name in ("dev", "dev/pts", "dev/shm", "etc")),
        text("etc/hosts", HOSTS),
        symlink("etc/mtab", "/proc/mounts", 0o755),
        resolver,
        folder("proc"),
        folder("sys"),
    ]


def replaced(base: BaseImage) -> set[str]:
    """Which of the folders that must exist the image has as something else; they are made again after it."""
    folders = {e.name for e in must_exist(Use.INIT) if e.kind == FOLDER}
    return {e.name for e in files(base, strict=True) if e.name in folders and e.kind != FOLDER}


def _completed(entries: Iterable[Entry], use: Use, strict: bool) -> Iterator[Entry]:
    """The entries, then what must exist and was not among them.

    Strict: LinuxKit notices none of them but etc/mtab, and repeats the rest. Otherwise also folders that come after
    their children are made beforehand: the kernel drops a file whose folder is not there.
    """
    found: set[str] = set()
    folders = {""}
    wanted = {e.name for e in must_exist(use)}
    for entry in entries:
        if entry.name in wanted and (not strict or entry.name == "etc/mtab"):
            found.add(entry.name)
        if not strict:
            if entry.name.rpartition("/")[0] not in folders:  # a folder that is there has all above it
                for above in reversed(list(_above(entry.name))):
                    if above not in folders:
                        folders.add(above)
                        yield folder(above)
            if entry.kind != FILE:
                folders.add(entry.name.rstrip("/"))
        yield entry
    yield from (e for e in must_exist(use) if e.name not in found)
