"""Forms whose root file system is read from a disk or CD and never unpacked into memory: squashfs, EROFS, ISO 9660.

BASE-kernel and BASE-cmdline come with them, and BASE-early-initrd.img where the kernel needs one (see `early`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pxeserver.images import early, programs
from pxeserver.images.bootfiles import ident
from pxeserver.images.entry import FIXED_TIME
from pxeserver.images.initrd import Assembled
from pxeserver.images.rootfs import RootTree
from pxeserver.images.store import Store
from pxeserver.images.target import Target, copied, whole_file, whole_path, write_cmdline
from pxeserver.tools import need_tools

EARLY = "-early-initrd.img"


def need_squashfs(arch: str) -> None:
    need_tools({"mksquashfs": "squashfs-tools", **_UNPACK})


def need_erofs(arch: str) -> None:
    need_tools({"mkfs.erofs": "erofs-utils", **_UNPACK})


def need_iso(arch: str) -> None:
    need_tools({"xorriso": "xorriso", **_UNPACK})


_UNPACK = {"tar": "tar"} if os.geteuid() == 0 else {"tar": "tar", "fakeroot": "fakeroot"}


def squashfs(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    tree = RootTree(made, store)
    yield from _boot_files(made, tree, store, target)
    with whole_path(target.path("-squashfs.img")) as out, unpacked(tree, target) as folder:
        words = ("-noappend", "-no-progress", "-quiet", "-no-xattrs", "-mkfs-time", str(FIXED_TIME))
        limits = ("-mem", "128M", "-comp", "gzip", "-b", "128K")
        # mksquashfs refuses the variable beside the option, and would move times of files with it
        folder.run(["mksquashfs", folder.path, out, *words, *limits], env={"SOURCE_DATE_EPOCH": ""})
    yield target.path("-squashfs.img")


def erofs(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    tree = RootTree(made, store)
    yield from _boot_files(made, tree, store, target)
    with whole_path(target.path("-erofs.img")) as out, unpacked(tree, target) as folder:
        uuid = ident(made, "erofs")
        folder.run(["mkfs.erofs", "--quiet", "-zlz4hc", f"-T{FIXED_TIME}", f"-U{uuid}", "-x-1", out, folder.path])
    yield target.path("-erofs.img")


def iso(made: Assembled, store: Store, target: Target) -> Iterator[Path]:
    tree = RootTree(made, store)
    yield from _boot_files(made, tree, store, target)
    with whole_path(target.path(".iso")) as out, unpacked(tree, target) as folder:
        make_iso(folder, out, target.name)
    yield target.path(".iso")


def _boot_files(made: Assembled, tree: RootTree, store: Store, target: Target) -> Iterator[Path]:
    if made.kernel is not None:
        yield copied(store.blob_path(made.kernel.digest), target.path("-kernel"))
    if made.cmdline:
        yield write_cmdline(made.cmdline, target)
    if early.needed(tree) or made.ucode is not None:
        path = target.path(EARLY)
        with whole_file(path) as out:
            early.write(out, made, tree, store)
        yield path


class Unpacked:
    """A tree on disk, with the owners and devices that it has; a program sees them when it is run by `run`.

    Only root may make them so. For others fakeroot remembers them, and tells whoever it runs.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "root"
        self.path.mkdir()
        self._state = home / "owners"

    def run(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        programs.run([*self._as_root("-i"), *argv], env=env)

    def unpack(self, tree: RootTree) -> None:
        tar = ("tar", "-x", "-p", "--same-owner", "--numeric-owner", "--delay-directory-restore", "-f", "-")
        programs.run([*self._as_root("-s"), *tar, "-C", self.path], tree.write_tar)

    def _as_root(self, way: str) -> list[str | Path]:
        return [] if os.geteuid() == 0 else ["fakeroot", way, self._state, "--"]


@contextmanager
def unpacked(tree: RootTree, target: Target) -> Iterator[Unpacked]:
    """The tree on the disk that the output goes to, until the block ends."""
    home = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.folder))
    try:
        folder = Unpacked(home)
        folder.unpack(tree)
        os.utime(folder.path, (FIXED_TIME, FIXED_TIME))
        folder.path.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make_iso(folder: Unpacked, out: Path, name: str, boot: Sequence[str | Path] = ()) -> None:
    """ISO 9660 with Rock Ridge: owners, modes, symlinks, long names; files of 4 GiB and more."""
    label = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.upper())[:32]
    words = ("-iso-level", "3", "-full-iso9660-filenames", "-disable-deep-relocation", "-R", "-V", label)
    folder.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", out, *words, *boot, folder.path])
