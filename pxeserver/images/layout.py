"""Reading an OCI image layout folder (image-spec 1.1, image-layout.md): LinuxKit's cache, our store, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pxeserver.errors import NotFound, PxeServerError
from pxeserver.images import oci
from pxeserver.images.oci import Descriptor

_MANIFEST_MOST = 4 << 20  # bytes; registries take no larger manifests (distribution-spec 1.1)


class Layout:
    """A folder with `oci-layout`, `index.json` and `blobs/sha256/`; never written to by this class."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def index_file(self) -> Path:
        return self.root / "index.json"

    def blob_path(self, digest: str) -> Path:
        """Where a blob is kept, whether it is there or not. ValueError for anything but a sha256 digest."""
        return self.root / "blobs" / "sha256" / oci.checked_digest(digest).removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.blob_path(digest).is_file()

    def open_blob(self, digest: str) -> BinaryIO:
        """The blob for reading; NotFound "blob-missing" when the layout does not hold it."""
        try:
            return self.blob_path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound("blob-missing", f"{self.root} has no blob {digest}") from None

    def read_blob(self, digest: str) -> bytes:
        with self.open_blob(digest) as file:
            return file.read()

    def read_json(self, digest: str) -> dict[str, Any]:
        return oci.parse(self.read_blob(digest), f"blob {digest}")

    def index(self) -> tuple[Descriptor, ...]:
        """All entries of index.json in their order; empty when there is none yet."""
        try:
            raw = self.index_file.read_bytes()
        except FileNotFoundError:
            return ()
        return tuple(oci.descriptors(oci.parse(raw, str(self.index_file)), "manifests", str(self.index_file)))

    def named(self, ref: str) -> tuple[Descriptor, ...]:
        """The entries with exactly this name, newest last; several when they are for different platforms."""
        return tuple(e for e in self.index() if e.ref == ref)

    def meant(self, ref: str) -> tuple[Descriptor, ...]:
        """What a registry with the same content would give for `ref`: the entries of that name, else what its digest
        names, else for a name without a tag those of `latest`."""
        found = self.named(ref)
        name, _, digest = ref.partition("@")
        if found or not digest:
            return found or (() if ":" in ref.rpartition("/")[2] else self.named(f"{ref}:latest"))
        if not digest.startswith("sha256:") or not self.has(digest):
            return ()
        size = self.blob_path(digest).stat().st_size
        body = self.read_json(digest) if size <= _MANIFEST_MOST else {}
        kind = body.get("mediaType") or (oci.INDEXES[0] if "manifests" in body else oci.MANIFESTS[0])
        return (Descriptor(kind, digest, size),) if {"manifests", "config"} & body.keys() else ()

    def resolve(self, ref: str, arch: str) -> Descriptor | None:
        """The image manifest of `ref` for linux/`arch` (Go spelling), None when the name is not here.

        Variants are ignored; a plain manifest without a platform suits any architecture, as in LinuxKit.
        Raises NotFound "image-platform" when the name is here for other architectures only.
        """
        entries = self.meant(ref)
        if not entries:
            return None
        fitting = [e for e in entries if e.platform.get("architecture", arch) == arch]
        if not fitting:
            have = sorted({e.platform["architecture"] for e in entries})
            raise missing_platform(ref, arch, have)
        entry = fitting[-1]
        if entry.media_type in oci.INDEXES:
            return choose(self.read_json(entry.digest), ref, arch)
        return entry

    def blobs_of(self, manifest: Descriptor) -> list[Descriptor]:
        """Config and layers of an image manifest that is here; PxeServerError "oci-malformed" for anything else."""
        body = self.read_json(manifest.digest)
        if not body.get("config"):
            raise PxeServerError("oci-malformed", f"{manifest.digest} is no image manifest of today")
        return [oci.descriptor(body["config"]), *oci.descriptors(body, "layers")]


def for_platforms(index: dict[str, Any], ref: str, platforms: Sequence[str]) -> list[Descriptor]:
    """The manifests of a parsed index for all of `platforms` ("linux/arm64", variants ignored; none: every one)."""
    found = oci.descriptors(index, "manifests")
    have = {f"{m.platform.get('os')}/{m.platform.get('architecture')}": m for m in reversed(found)}
    if not platforms:
        return found
    short = ["/".join(p.split("/")[:2]) for p in platforms]
    for platform in short:
        if platform not in have:
            raise missing_platform(ref, platform.partition("/")[2], sorted(have))
    return [m for m in found if f"{m.platform.get('os')}/{m.platform.get('architecture')}" in short]


def choose(index: dict[str, Any], ref: str, arch: str) -> Descriptor:
    """The first linux/`arch` manifest of a parsed image index; NotFound "image-platform" otherwise."""
    entries = oci.descriptors(index, "manifests")
    for entry in entries:
        if entry.platform.get("os") == "linux" and entry.platform.get("architecture") == arch:
            return entry
    have = sorted({e.platform.get("architecture", "?") for e in entries if e.platform.get("os") == "linux"})
    raise missing_platform(ref, arch, have)


def missing_platform(ref: str, arch: str, have: list[str]) -> NotFound:
    return NotFound(
        "image-platform",
        f"{ref} is not there for linux/{arch}",
        hint=f"it is there for: {', '.join(have)}" if have else "it names no platform at all",
    )
