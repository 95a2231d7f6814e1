"""Base images made of nothing but the standard library's tarfile, and initrds read by a second, independent reader."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from pxeserver.config import Config, Server
from pxeserver.images import oci
from pxeserver.images.build import BuildRequest, Built, build
from pxeserver.images.layers import BaseImage
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Progress, Silent
from pxeserver.images.sources import open_source
from pxeserver.images.store import Store
from pxeserver.linuxkit.loader import SpecSource

Item = tuple[tarfile.TarInfo, bytes]
WHEN = 1500000000


def file(name: str, data: bytes = b"", mode: int = 0o644, **more: Any) -> Item:
    return _item(name, tarfile.REGTYPE, mode, data, **more)


def folder(name: str, mode: int = 0o755, **more: Any) -> Item:
    return _item(name, tarfile.DIRTYPE, mode, **more)


def symlink(name: str, target: str, **more: Any) -> Item:
    return _item(name, tarfile.SYMTYPE, 0o777, linkname=target, **more)


def hardlink(name: str, target: str, **more: Any) -> Item:
    return _item(name, tarfile.LNKTYPE, 0o644, linkname=target, **more)


def device(name: str, kind: bytes = tarfile.CHRTYPE, major: int = 1, minor: int = 3, **more: Any) -> Item:
    return _item(name, kind, 0o666, devmajor=major, devminor=minor, **more)


def _item(name: str, kind: bytes, mode: int, data: bytes = b"", **more: Any) -> Item:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, len(data), WHEN
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(items: Sequence[Item], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in items:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


_PACK = {
    "gzip": (lambda data: gzip.compress(data, mtime=0), oci.LAYER_GZIP),
    "zstd": (lambda data: zstandard.compress(data), oci.LAYER_ZSTD),
    "none": (lambda data: data, oci.LAYER),
}


class Bases(Store):
    """An OCI layout that a test fills with base images."""

    def image(
        self,
        ref: str,
        *layers: Sequence[Item],
        config: Mapping[str, Any] | None = None,
        arch: str = "amd64",
        packed: str = "gzip",
    ) -> BaseImage:
        """docker.io/REF of these layers, bottom first."""
        pack, kind = _PACK[packed]
        stored = []
        for items in layers:
            blob = self.add_bytes(pack(tar(items)))
            stored.append(Descriptor(kind, blob.digest, blob.size))
        full = f"docker.io/{ref}"
        body = {"config": dict(config or {})}
        manifest = self.write_base(full, body, stored, arch)
        return BaseImage(full, manifest.digest, self, tuple(stored), {**body, "architecture": arch}, manifest)


@dataclass(frozen=True)
class Node:
    """What a path of an unpacked initrd is; `data` is a file's content or a symlink's target."""

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    mtime: int = 0


_KINDS = {0o04: "d", 0o10: "f", 0o12: "l", 0o02: "c", 0o06: "b", 0o01: "p"}


def cpio_entries(data: bytes) -> list[tuple[str, Node]]:
    """Every entry of one or more newc archives, in order; raises when a member is not complete with its trailer."""
    found: list[tuple[str, Node]] = []
    at, open_archive = 0, False
    while at < len(data):
        if not data[at:].strip(b"\0"):
            break
        assert data[at : at + 6] == b"070701", (at, data[at : at + 16])
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, length, _ = fields
        name = data[at + 110 : at + 109 + length].decode("utf-8", "surrogateescape")
        body = (at + 110 + length + 3) // 4 * 4
        at = (body + size + 3) // 4 * 4
        open_archive = name != "TRAILER!!!"
        if open_archive:
            content = data[body : body + size]
            node = Node(_KINDS[mode >> 12], mode & 0o7777, uid, gid, content, (major, minor), mtime)
            found.append((name, node))
    assert not open_archive, "the last archive has no trailer"
    return found


def unpack(entries: Sequence[tuple[str, Node]]) -> dict[str, Node]:
    """What the kernel makes of the entries: a file whose folder is not there is dropped, the last of a name counts."""
    tree: dict[str, Node] = {}
    for name, node in entries:
        path = name.rstrip("/").removeprefix("./")
        above = path.rpartition("/")[0]
        if above and (above not in tree or tree[above].kind not in "dl"):
            continue
        if path in tree and tree[path].kind == "d" != node.kind:
            tree = {p: n for p, n in tree.items() if p != path and not p.startswith(path + "/")}
        tree[path] = node
    return tree


def initrd_entries(data: bytes) -> list[tuple[str, Node]]:
    """The entries of a whole initrd: members of any compression one after another, as the kernel takes them."""
    found: list[tuple[str, Node]] = []
    while data := data.lstrip(b"\0"):
        if data[:2] == b"\x1f\x8b":
            import zlib

            inflate = zlib.decompressobj(31)
            plain = inflate.decompress(data) + inflate.flush()
            data = inflate.unused_data
        elif data[:4] == b"\x28\xb5\x2f\xfd":
            unzstd = zstandard.ZstdDecompressor().decompressobj()
            plain = unzstd.decompress(data)
            data = unzstd.unused_data
        else:
            plain, data = data, b""
        found += cpio_entries(plain)
    return found


KERNEL = (file("kernel", b"KERNEL", 0o600), file("kernel.tar", tar([folder("lib"), file("lib/mod.ko", b"MOD")])))


class Lab:
    """A data folder and a layout of base images; `build` builds one spec text with them."""

    def __init__(self, folder: Path) -> None:
        self.bases = Bases(folder / "bases")
        self.config = Config(server=Server(data=str(folder / "data")))
        self.store = Store(folder / "data" / "store")

    def build(self, text: str, progress: Progress | None = None, /, name: str = "web", **more: Any) -> Built:
        request = BuildRequest(
            specs=(SpecSource(f"{name}.yml", text),),
            name=name,
            arch=more.pop("arch", "amd64"),
            source=more.pop("source", None) or open_source(f"oci:{self.bases.root}", self.store, self.config),
            **{"sbom": "", **more},
        )
        return build(request, self.store, self.config, progress or Silent())

    def entries(self, built: Built) -> list[tuple[str, Node]]:
        assert built.image is not None
        return initrd_entries(self.store.read_blob(built.image.initrd.digest))

    def tree(self, built: Built) -> dict[str, Node]:
        return unpack(self.entries(built))
