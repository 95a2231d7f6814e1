"""The OCI words that this room uses: media types, annotations, descriptors (image-spec 1.1, descriptor.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pxeserver.errors import PxeServerError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (INDEX, DOCKER_LIST)
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)

REF_NAME = "org.opencontainers.image.ref.name"
EMPTY_CONFIG = b"{}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to a blob; `size` in bytes, `digest` "sha256:<64 hex>"."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def ref(self) -> str:
        """The name that an index entry goes by, "" when it has none."""
        return self.annotations.get(REF_NAME, "")

    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            body["artifactType"] = self.artifact_type
        if self.platform:
            body["platform"] = dict(self.platform)
        if self.annotations:
            body["annotations"] = dict(self.annotations)
        return body


def descriptor(body: Any) -> Descriptor:
    """A Descriptor out of parsed JSON; PxeServerError "oci-malformed" when it is none."""
    try:
        return Descriptor(
            media_type=str(body.get("mediaType") or ""),
            digest=checked_digest(str(body["digest"])),
            size=int(body["size"]),
            annotations={str(k): str(v) for k, v in (body.get("annotations") or {}).items()},
            platform={str(k): str(v) for k, v in (body.get("platform") or {}).items() if isinstance(v, str)},
            artifact_type=str(body.get("artifactType") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise PxeServerError("oci-malformed", f"not an OCI descriptor: {error!r}") from None


def descriptors(body: Mapping[str, Any], key: Literal["manifests", "layers"], what: str = "") -> list[Descriptor]:
    """Those that a parsed index or manifest lists, none where it has no such list.

    PxeServerError "oci-malformed", which names `what` it is.
    """
    found = body.get(key) or []
    if not isinstance(found, list):
        raise PxeServerError("oci-malformed", f"{what + ': ' if what else ''}{key} is not a list")
    return [descriptor(x) for x in found]


def checked_digest(text: str) -> str:
    """`text` if it is a sha256 digest in its one spelling, else ValueError: digests become file names."""
    kind, _, hexa = text.partition(":")
    if kind != "sha256" or len(hexa) != 64 or not set(hexa) <= set("0123456789abcdef"):
        raise ValueError(f"not a sha256 digest: {text[:80]!r}")
    return text


def parse(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object, or PxeServerError "oci-malformed" naming `what`."""
    try:
        body = json.loads(raw)
        if b"\\u" in raw:  # half a character becomes U+FFFD, as for Go: nothing could be written with it
            text = json.dumps(body, ensure_ascii=False).encode("utf-16", "surrogatepass")
            body = json.loads(text.decode("utf-16", "replace"))
    except (ValueError, RecursionError) as error:
        raise PxeServerError("oci-malformed", f"{what} is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise PxeServerError("oci-malformed", f"{what} is not a JSON object")
    return body


def dump(body: Any) -> bytes:
    """JSON with one spelling for one value: what gets a digest must not depend on anything else."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
