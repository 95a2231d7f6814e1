"""The files section as tree entries: each item after the parent folders that the section has not made yet.

A parent's mode is the item's with x added for every class that has any bit, its owner is the item's: `path: etc/x`
alone makes /etc 0700. That is LinuxKit's tree, so it stays, but a person is warned.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from pxeserver.linuxkit.context import Context
from pxeserver.linuxkit.entries import TreeEntry
from pxeserver.linuxkit.limits import octal
from pxeserver.linuxkit.spec import FileSpec

# Folders that every system reads in; a file's mode there is hardly meant for the folder
_SHARED = re.compile("bin|boot|dev|etc|home|lib|lib64|mnt|opt|proc|run|sbin|srv|sys|tmp|usr|var")
_AT_RUN_TIME = ("run", "tmp", "var")  # mounted over by a tmpfs

Folder = Callable[[int], Path | None]  # index of an item -> the folder its source is relative to


def entries(
    items: tuple[FileSpec, ...],
    ctx: Context,
    *,
    folder: Folder,
    render: Callable[[str], bytes],
    present: Callable[[Path], bool],
) -> tuple[TreeEntry, ...]:
    """The entries of all items in order; `render` makes the content for "yaml" or "json" metadata.

    `ctx.place` is of the section: place(3, "mode"). UsageError "bad-file", "bad-mode", "unknown-id".
    """
    found: list[TreeEntry] = []
    made: set[str] = set()
    for i, item in enumerate(items):
        path = item.path.removeprefix("/")
        if not path:
            raise ctx.fault("bad-file", "a file needs a path", i, "path")
        mode = _mode(item, i, ctx)
        source = _source(item, i, ctx, folder)
        if source is not None and item.optional and not present(source):
            continue
        uid, gid = ctx.numeric(item.uid, i, "uid"), ctx.numeric(item.gid, i, "gid")
        at, location = ctx.place(i), f"files[{i}]"
        for parent in _parents(path):
            if parent not in made:
                made.add(parent)
                _warn_parent(parent, _folder_mode(mode), path, i, ctx)
                found.append(TreeEntry(parent, "dir", _folder_mode(mode), uid, gid, location, where=at))
        made.add(path)
        if item.directory:
            found.append(TreeEntry(path, "dir", mode, uid, gid, location, where=at))
        elif item.symlink:
            found.append(TreeEntry(path, "symlink", mode, uid, gid, location, target=item.symlink, where=at))
        else:
            content = _content(item, render)
            found.append(TreeEntry(path, "file", mode, uid, gid, location, content, source, where=at))
        _warn(item, path, i, ctx)
    return tuple(found)


def _mode(item: FileSpec, index: int, ctx: Context) -> int:
    if not item.mode:
        return 0o700 if item.directory else 0o600
    mode = octal(item.mode)
    if mode is None:
        raise ctx.fault("bad-mode", f'"{item.mode}" is no octal mode', index, "mode", hint='for example mode: "0644"')
    return mode & 0o7777


def _folder_mode(mode: int) -> int:
    """x where there is any bit."""
    return mode | sum(bit for bit in (0o100, 0o010, 0o001) if mode & bit * 7)


def _parents(path: str) -> list[str]:
    parts = [p for p in posixpath.dirname(posixpath.normpath(path)).split("/") if p not in ("", ".")]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _source(item: FileSpec, index: int, ctx: Context, folder: Folder) -> Path | None:
    """The file to read, None when the content is in the spec; checks that there is exactly one of them."""

    def refuse(text: str, key: str) -> None:
        raise ctx.fault("bad-file", f'{text} for file "{item.path}"', index, key)

    if item.directory and item.contents is not None:
        refuse("a directory cannot have contents", "contents")
    given = "directory" if item.directory else "symlink" if item.symlink else ""
    given = "contents" if item.contents is not None and not given else given
    if given:
        for key in ("metadata", "source"):
            if getattr(item, key):
                refuse(f"{given} and {key} are both given", key)
        return None
    if item.source and item.metadata:
        refuse("source and metadata are both given", "metadata")
    if item.metadata and item.metadata not in ("yaml", "json"):
        refuse(f'metadata is yaml or json, not "{item.metadata}",', "metadata")
    if not item.source:
        if not item.metadata:
            refuse("no contents, source, symlink or directory is given", "path")
        return None
    source = Path(os.path.expanduser(item.source)) if item.source.startswith("~/") else Path(item.source)  # noqa: PTH111
    base = folder(index)
    return source if base is None else base / source


def _content(item: FileSpec, render: Callable[[str], bytes]) -> bytes | None:
    if item.metadata:
        return render(item.metadata)
    return None if item.contents is None else item.contents.encode("utf-8", "surrogateescape")


def closes(folder: str, mode: int) -> bool:
    """Whether `mode` keeps others out of a folder that every system reads in."""
    return _SHARED.fullmatch(folder.partition("/")[0]) is not None and mode & 0o055 != 0o055


def _warn_parent(parent: str, mode: int, path: str, index: int, ctx: Context) -> None:
    if closes(parent, mode):
        text = f'"{path}" makes the folder /{parent} {mode:04o}: other users cannot look inside'
        ctx.warn(f'{text}; give the file mode: "0644", or the folder its own item before it', index)


def _warn(item: FileSpec, path: str, index: int, ctx: Context) -> None:
    if item.symlink and item.contents is not None:
        ctx.warn(f'"{path}" is a symlink: its contents are not used', index, "contents")
    if item.optional and not item.source:
        ctx.warn(f'"{path}" has no source: optional does nothing', index, "optional")
    top = posixpath.normpath(path).partition("/")[0]
    if top in _AT_RUN_TIME and not item.directory:
        ctx.warn(f'"{path}" is hidden at run time by the tmpfs on /{top}', index, "path")
    if ".." in path.split("/") and posixpath.normpath(path).startswith(".."):
        ctx.warn(f'"{path}" leaves the tree', index, "path")
