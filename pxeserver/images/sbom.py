"""The bill of materials of a built image: what its base images attest about themselves, in one SPDX 2.3 document.

LinuxKit's document carries a random id; ours is named by its content, so that the same build gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import time
from collections.abc import Iterable, Iterator
from typing import Any

from pxeserver.errors import PxeServerError
from pxeserver.images import oci
from pxeserver.images.layers import BaseImage

_FIXED = "2017-04-18T16:30:00Z"
_PREDICATE = "https://spdx.dev/Document"
# What is put together of all documents, in the order of SPDX 2.3's JSON; and where an item of a list has its path
_LISTS = (
    "externalDocumentRefs", "packages", "files", "hasExtractedLicensingInfos", "relationships", "annotations",
)  # fmt: skip
_PATHS = {"packages": "packageFileName", "files": "fileName"}


def documents(base: BaseImage) -> Iterator[dict[str, Any]]:
    """The SPDX documents that the image's index attests for the chosen manifest; none without an index.

    PxeServerError "oci-malformed" for one whose lists are none.
    """
    if base.index is None:
        return
    for entry in oci.descriptors(base.layout.read_json(base.index.digest), "manifests"):
        notes = entry.annotations
        if notes.get("vnd.docker.reference.type") != "attestation-manifest":
            continue
        if notes.get("vnd.docker.reference.digest") != base.digest or not base.layout.has(entry.digest):
            continue
        for layer in oci.descriptors(base.layout.read_json(entry.digest), "layers"):
            if layer.annotations.get("in-toto.io/predicate-type") == _PREDICATE and base.layout.has(layer.digest):
                predicate = base.layout.read_json(layer.digest).get("predicate")
                if isinstance(predicate, dict):
                    yield _checked(predicate, base)


def _checked(document: dict[str, Any], base: BaseImage) -> dict[str, Any]:
    for name in _LISTS:
        items = document.get(name) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            text = f"{name} in the SPDX document of {base.ref} is not a list of maps"
            raise PxeServerError("oci-malformed", text, hint="--no-sbom builds without it")
    return document


def merged(parts: Iterable[tuple[BaseImage, str]], *, strict: bool = False, now: float | None = None) -> bytes:
    """One document over (base image, folder in the tree) pairs. `now` (Unix seconds) replaces the fixed time."""
    lists: dict[str, list[Any]] = {name: [] for name in _LISTS}
    for base, prefix in parts:
        for document in documents(base):
            for name, merged_list in lists.items():
                key = _PATHS.get(name, "")
                merged_list += [_moved(x, key, prefix) if key else x for x in document.get(name) or []]
    content = {key: value for key, value in lists.items() if value}
    creators = ["Organization: LinuxKit", "Tool: linuxkit"] if strict else ["Tool: pxeserver"]
    created = _FIXED if now is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    name = hashlib.sha256(oci.dump(content)).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "sbom",
        "documentNamespace": f"https://spdx.org/spdxdocs/pxeserver-{name}",
        **{key: content.pop(key) for key in ("externalDocumentRefs",) if key in content},
        "creationInfo": {"licenseListVersion": "3.20", "creators": creators, "created": created},
        **content,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _moved(item: dict[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """`item` with the path in `key` below `prefix`; a package without a path gets the folder itself, as in LinuxKit."""
    path = str(item.get(key) or "")
    joined = f"{prefix}/{path}" if prefix and path else prefix or path
    return {**item, key: posixpath.normpath(joined)} if joined else item
