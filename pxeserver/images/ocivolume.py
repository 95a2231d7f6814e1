"""A volume of `format: oci`: the base image as an OCI layout inside the tree, for whoever unpacks it at run time."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pxeserver.errors import Refused
from pxeserver.images import oci
from pxeserver.images.entry import Entry, folder, from_disk, parents, text
from pxeserver.images.layers import BaseImage
from pxeserver.images.layout import for_platforms
from pxeserver.images.oci import Descriptor

_LAYOUT_FILE = b'{\n\t\t"imageLayoutVersion": "1.0.0"\n\t}'  # as LinuxKit's library spells it


def entries(base: BaseImage, prefix: str, platforms: tuple[str, ...], *, strict: bool = False) -> Iterator[Entry]:
    """The layout below `prefix` ("" or ending with a slash), for `platforms` ("linux/arm64"; none given: all).

    Contents are checked nowhere here: blobs are copied as they are, and whoever unpacks them has their digests.
    Raises Refused "volume-needs-index" where LinuxKit breaks down, NotFound "image-platform".
    """
    top = base.index or base.manifest
    assert top is not None
    if base.index is None and strict:
        raise Refused(
            "volume-needs-index", f"{base.ref} is no image index, which LinuxKit needs", hint="build without --strict"
        )
    yield from parents(prefix)
    yield text(f"{prefix}oci-layout", _LAYOUT_FILE, mtime=0)
    for name in ("blobs/", "blobs/sha256/"):
        yield folder(prefix + name)._replace(mtime=0)
    for blob in _blobs(base, platforms):
        path = base.layout.blob_path(blob.digest)
        yield from_disk(f"{prefix}blobs/sha256/{path.name}", path, 0o644)._replace(mtime=0)
    entry = top.json() | {"annotations": {oci.REF_NAME: base.ref}}
    entry = {key: entry[key] for key in ("mediaType", "size", "digest", "annotations")}
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}
    yield text(f"{prefix}index.json", json.dumps(index, indent=3, ensure_ascii=False).encode(), mtime=0)


def _blobs(base: BaseImage, platforms: tuple[str, ...]) -> Iterator[Descriptor]:
    """Per image config, layers, manifest, as LinuxKit orders them; then the index itself."""
    seen: set[str] = set()
    if base.index is None:
        assert base.manifest is not None
        manifests = [base.manifest]
    else:
        manifests = for_platforms(base.layout.read_json(base.index.digest), base.ref, platforms)
    for manifest in manifests:
        for blob in (*base.layout.blobs_of(manifest), manifest):
            if blob.digest not in seen:
                seen.add(blob.digest)
                yield blob
    if base.index is not None:
        yield base.index
