"""What is different between two built images: command line, kernel, base images, and the files that a machine unpacks.

Times of files are not compared: they say when a base image was made, not what it does.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pxeserver.errors import PxeServerError
from pxeserver.images import compress
from pxeserver.images.catalogue import Details
from pxeserver.images.progress import Progress
from pxeserver.images.store import Store
from pxeserver.images.verify import Slice
from pxeserver.model import Image

_HEADER = 110
_CHUNK = 1 << 20
_KINDS = {0o01: "fifo", 0o02: "device", 0o04: "folder", 0o06: "device", 0o10: "file", 0o12: "symlink"}


@dataclass(frozen=True, slots=True)
class Node:
    """A path of the tree; `content` is a digest, a symlink's target, or a device's numbers."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    content: str


@dataclass(frozen=True, slots=True)
class Change:
    """A path, a base image or a setting that differs; "" on the side that has none. `what` says it in words."""

    name: str
    before: str
    after: str
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """From `first` to `second`. Paths have a leading slash; `added` and `removed` are (path, kind and size)."""

    first: str
    second: str
    settings: tuple[Change, ...]  # cmdline, arch, kernel
    bases: tuple[Change, ...]  # by use: kernel, init[0], services[2]
    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    changed: tuple[Change, ...]

    @property
    def same(self) -> bool:
        return not (self.settings or self.bases or self.added or self.removed or self.changed)


def diff(store: Store, first: Details, second: Details, progress: Progress) -> ImageDiff:
    """Reads both initrds whole; segments that both have are read once."""
    known: dict[str, tuple[tuple[str, Node], ...]] = {}
    old, new = (_tree(store, details, known, progress) for details in (first, second))
    return ImageDiff(
        first.image.short,
        second.image.short,
        tuple(_settings(first, second)),
        tuple(_bases(first.facts, second.facts)),
        tuple(Change(path, "", _said(new[path])) for path in sorted(new.keys() - old.keys())),
        tuple(Change(path, _said(old[path]), "") for path in sorted(old.keys() - new.keys())),
        tuple(
            Change(path, _said(old[path]), _said(new[path]), tuple(_differences(old[path], new[path])))
            for path in sorted(old.keys() & new.keys())
            if old[path] != new[path]
        ),
    )


def _settings(first: Details, second: Details) -> Iterator[Change]:
    a, b = first.image, second.image
    ucode = [(d.facts.get("ucode") or {}).get("digest", "") for d in (first, second)]
    pairs = (
        ("cmdline", a.cmdline, b.cmdline),
        ("arch", a.arch, b.arch),
        ("kernel", a.kernel.digest, b.kernel.digest),
        ("microcode", *ucode),
    )
    for name, before, after in pairs:
        if before != after:
            yield Change(name, before, after)


def _bases(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    """Base images by where they are used; an image that moved to another place is one that changed there."""
    old, new = ({b["use"]: f"{b['ref']} {b['digest']}" for b in facts.get("bases", ())} for facts in (first, second))
    for use in [*old, *(u for u in new if u not in old)]:
        if old.get(use) != new.get(use):
            yield Change(use, old.get(use, ""), new.get(use, ""))


def _said(node: Node) -> str:
    """'file 0644 0:0 12 bytes', 'symlink -> target'."""
    if node.kind == "symlink":
        return f"symlink -> {node.content}"
    tail = f" {node.size} bytes" if node.kind == "file" else f" {node.content}" if node.kind == "device" else ""
    return f"{node.kind} {node.mode:04o} {node.uid}:{node.gid}{tail}"


def _differences(a: Node, b: Node) -> Iterator[str]:
    if a.kind != b.kind:
        yield f"{a.kind} -> {b.kind}"
        return
    if a.mode != b.mode:
        yield f"mode {a.mode:04o} -> {b.mode:04o}"
    if (a.uid, a.gid) != (b.uid, b.gid):
        yield f"owner {a.uid}:{a.gid} -> {b.uid}:{b.gid}"
    if a.content != b.content:
        sizes = f"{a.size} -> {b.size} bytes" if a.size != b.size else f"{a.size} bytes"
        yield f"content, {sizes}" if a.kind == "file" else f"{a.content} -> {b.content}"


def _tree(
    store: Store, details: Details, known: dict[str, tuple[tuple[str, Node], ...]], progress: Progress
) -> dict[str, Node]:
    """What the kernel makes of the initrd: of several entries for a path the last one counts."""
    tree: dict[str, Node] = {}
    image, facts = details.image, details.facts
    task = progress.task(f"read {image.short}", image.initrd.size)
    with store.open_blob(image.initrd.digest) as file:
        file.seek((facts.get("ucode") or {"size": 0})["size"])
        for segment in facts["segments"]:
            end = file.tell() + segment["compressed"]
            if segment["digest"] not in known:
                known[segment["digest"]] = _read(image, Slice(file, segment["compressed"]))
            file.seek(end)
            tree.update(known[segment["digest"]])
            task.advance(segment["compressed"])
    task.done()
    return tree


def _read(image: Image, segment: Slice) -> tuple[tuple[str, Node], ...]:
    try:
        return tuple(_nodes(segment))
    except Exception as error:  # every decompressor has errors of its own
        text = f"the initrd of {image.short} cannot be read: {error}"
        raise PxeServerError("image-damaged", text, hint=f"pxeserver images verify {image.short}") from None


def _nodes(segment: Slice) -> Iterator[tuple[str, Node]]:
    """The entries of one compressed cpio archive (newc)."""
    plain = compress.opened(io.BufferedReader(cast(Any, segment), _CHUNK))
    while header := plain.read(_HEADER):
        header += _exactly(plain, _HEADER - len(header))
        if header[:6] != b"070701":
            raise ValueError("it is no cpio archive of the newc kind")
        fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        _, mode, uid, gid, _, _, size, _, _, major, minor, length, _ = fields
        name = _exactly(plain, length + (-(_HEADER + length) & 3))[: length - 1].decode("utf-8", "backslashreplace")
        kind = _KINDS.get(mode >> 12, "file")
        content = _content(plain, size, kind, major, minor)
        _exactly(plain, -size & 3)
        if name != "TRAILER!!!":
            yield posixpath.normpath("/" + name.lstrip("/")), Node(kind, mode & 0o7777, uid, gid, size, content)


def _content(file: BinaryIO, size: int, kind: str, major: int, minor: int) -> str:
    if kind == "symlink":
        return _exactly(file, size).decode("utf-8", "backslashreplace")
    if kind == "device":
        return f"{major}:{minor}"
    hashed = hashlib.sha256()
    left = size
    while left:
        data = _exactly(file, min(left, _CHUNK))
        hashed.update(data)
        left -= len(data)
    return hashed.hexdigest()


def _exactly(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, however many reads it takes."""
    data = file.read(size) if size else b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise ValueError("it ends in the middle of an archive")
        data += more
    return data
