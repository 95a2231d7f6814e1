"""A built image as one file: an OCI image layout in a tar archive, which other tools (skopeo, oras) take too."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images import exchange, oci, tarstore
from pxeserver.images.catalogue import ARTIFACT, Catalogue, checked_tag
from pxeserver.images.entry import FILE, Entry, folder, text
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Progress
from pxeserver.images.store import Store
from pxeserver.images.target import Target, whole_file
from pxeserver.images.tarwrite import TarWriter
from pxeserver.images.writers import Sink
from pxeserver.model import Blob, Image

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def export(catalogue: Catalogue, image: Image, target: Target) -> Path:
    """FOLDER/NAME.oci.tar: the same bytes for the same image and tags."""
    path = target.folder / f"{target.name}.oci.tar"
    with whole_file(path) as file:
        write(catalogue, image, file)
    return path


def write(catalogue: Catalogue, image: Image, sink: Sink) -> None:
    store = catalogue.store
    manifest = catalogue.details(image).manifest
    size = store.blob_path(manifest).stat().st_size
    entry = Descriptor(oci.MANIFEST, manifest, size, artifact_type=ARTIFACT)
    named = [replace(entry, annotations={oci.REF_NAME: tag}) for tag in image.tags] or [entry]
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [e.json() for e in named]}
    tar = TarWriter(sink)
    tar.add(text("oci-layout", _LAYOUT))
    tar.add(text("index.json", oci.dump(index)))
    tar.add(folder("blobs"))
    tar.add(folder(tarstore.BLOBS.rstrip("/")))
    for digest in sorted(store.references([entry])):
        tar.add(_blob(store, digest))
    tar.finish()


def _blob(store: Store, digest: str) -> Entry:
    path = store.blob_path(digest)
    if not path.is_file():
        raise PxeServerError("blob-missing", f"{store.root} has no blob {digest}", hint="pxeserver images verify")
    name = tarstore.BLOBS + digest.removeprefix("sha256:")
    return Entry(name, FILE, 0o644, size=path.stat().st_size, open=lambda: path.open("rb"))


def load(
    catalogue: Catalogue, name: str, file: BinaryIO, progress: Progress, tags: Sequence[str] | None = None
) -> tuple[Image, ...]:
    """Take the built images of an archive (plain, gzip or zstd) into the store; `name` is the archive's, for people.

    Tags are those of the archive unless others are given. What does not check out is not recorded.
    """
    store = catalogue.store
    task = progress.task(f"read {name}")
    files: dict[str, Blob] = {}
    try:
        files = tarstore.unpack(cast(io.BufferedReader, file), name, store, task.advance)
        task.done()
        return tuple(
            exchange.adopt(catalogue, manifest, _usable(own) if tags is None else tags, progress)
            for manifest, own in _images(store, name, _index(files, store, name))
        )
    finally:
        store.drop_unused(blob.digest for blob in files.values())


def _usable(names: Sequence[str]) -> list[str]:
    """Those that are tags here; other tools have names of other forms, and may give none."""
    found = []
    for name in names:
        with contextlib.suppress(UsageError):
            found.append(checked_tag(name, ""))
    return found


def _index(files: tarstore.Files, store: Store, name: str) -> list[Descriptor]:
    index = tarstore.listed(files, "index.json", store)
    if not isinstance(index, dict):
        raise UsageError(
            "archive-bad", f"{name} has no index.json", hint="pxeserver images export IMAGE -f oci makes such a file"
        )
    return oci.descriptors(index, "manifests")


def _images(store: Store, name: str, index: Sequence[Descriptor]) -> list[tuple[Descriptor, list[str]]]:
    """The built images among the entries, each with its names."""
    found: dict[str, tuple[Descriptor, list[str]]] = {}
    for entry in index:
        if entry.media_type != oci.MANIFEST:
            continue
        if not store.has(entry.digest):
            raise NotFound("archive-incomplete", f"{name} names {entry.digest}, and does not hold it")
        if store.read_json(entry.digest).get("artifactType") == ARTIFACT:
            found.setdefault(entry.digest, (entry, []))[1].extend([entry.ref] if entry.ref else [])
    if not found:
        raise Refused(
            "image-foreign", f"{name} holds no built image", hint=f"base images are used with --source oci:{name}"
        )
    for manifest, _ in found.values():
        absent = [d for d in sorted(store.references([manifest])) if not store.has(d)]
        if absent:
            raise NotFound("archive-incomplete", f"{name} does not hold {absent[0]}")
    return list(found.values())
