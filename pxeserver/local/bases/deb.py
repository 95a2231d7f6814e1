"""Unpacking .deb files into a work folder, without root and without installing anything."""

from __future__ import annotations

import fnmatch
import posixpath
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import SYMLINK, Entry, from_disk, symlink

_DOCUMENTS = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/")


class Unpacked:
    """The files and symlinks of some packages by path; /bin, /lib and /sbin are the same as those under /usr."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.entries: dict[str, Entry] = {}
        self.disk: dict[str, Path] = {}  # where the content of a file is

    def add(self, deb: Path) -> None:
        """Unpack one package. Documents, manuals and translations are left out."""
        argv = ["dpkg-deb", "--fsys-tarfile", str(deb)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    for member in archive:
                        self._add(archive, member)
            except tarfile.TarError as error:
                raise PxeServerError("package-broken", f"{deb.name}: {error}") from None
            _, errors = process.communicate()
        if process.returncode:
            raise PxeServerError("package-broken", f"{deb.name}: {errors.decode(errors='replace').strip()}")

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        original = posixpath.normpath("/" + member.name).lstrip("/")
        path = merged(original)
        if path.startswith(_DOCUMENTS):
            return
        if member.issym():
            self.entries[path] = symlink(path, _moved(member.linkname, original))
        elif member.islnk():
            target = merged(posixpath.normpath("/" + member.linkname).lstrip("/"))
            if target in self.entries:
                self.entries[path] = self.entries[target]._replace(name=path)
                self.disk[path] = self.disk[target]
        elif member.isreg():
            self._count += 1
            spool = self._folder / f"{self._count}"
            content = archive.extractfile(member)
            assert content is not None, "a regular file has content"
            with spool.open("wb") as out:
                while chunk := content.read(1 << 20):
                    out.write(chunk)
            self.disk[path] = spool
            self.entries[path] = from_disk(path, spool, member.mode & 0o7777)

    def find(self, pattern: str) -> tuple[str, ...]:
        """Paths of files and symlinks that match a glob (`*` crosses no slash, `**` does), sorted."""
        pattern = merged(pattern)
        if not any(c in pattern for c in "*?["):
            return (pattern,) if pattern in self.entries else ()
        depth = None if "**" in pattern else pattern.count("/")
        return tuple(
            sorted(
                p for p in self.entries if (depth is None or p.count("/") == depth) and fnmatch.fnmatchcase(p, pattern)
            )
        )

    def resolve(self, path: str) -> str:
        """Follow symlinks to a file's path; "" when they lead to nothing here."""
        path = merged(path)
        for _ in range(16):
            entry = self.entries.get(path)
            if entry is None:
                return ""
            if entry.kind != SYMLINK:
                return path
            path = merged(posixpath.normpath(posixpath.join("/", posixpath.dirname(path), entry.link)).lstrip("/"))
        return ""


def merged(path: str) -> str:
    """The path below /usr for what merged-/usr systems keep there: lib/x -> usr/lib/x."""
    top = path.partition("/")[0]
    return "usr/" + path if top in ("bin", "sbin", "lib", "lib64") else path


def _moved(link: str, original: str) -> str:
    """A relative link's text when both it and what it leads to are kept below /usr."""
    if link.startswith("/"):
        return link
    target = merged(posixpath.normpath(posixpath.join("/", posixpath.dirname(original), link)).lstrip("/"))
    return posixpath.relpath("/" + target, "/" + posixpath.dirname(merged(original)))


def unpack(debs: Iterable[Path], folder: Path) -> Unpacked:
    unpacked = Unpacked(folder)
    for deb in debs:
        unpacked.add(deb)
    return unpacked
