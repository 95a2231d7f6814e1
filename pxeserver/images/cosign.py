"""Signatures of images as cosign makes and stores them (sigstore/cosign, specs/SIGNATURE_SPEC.md).

A signature is a manifest under the tag `sha256-<hex of the image's digest>.sig` of the image's own repository. Each of
its layers is a signed text in the simple signing format, which names the digest; the signature stands in the layer's
annotation. Keys are ECDSA P-256, the signature is over the SHA-256 of the text.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.images import oci
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_LIMIT = 1 << 20  # bytes of a signed text


@dataclass(frozen=True, slots=True)
class Key:
    """A public key; `file` is how people know it."""

    file: str
    key: ec.EllipticCurvePublicKey


def keys(files: Sequence[str]) -> tuple[Key, ...]:
    """Public keys in PEM, as `cosign generate-key-pair` writes cosign.pub. NotFound, UsageError "trust-key-*"."""
    return tuple(Key(file, _key(file)) for file in files)


def _key(file: str) -> ec.EllipticCurvePublicKey:
    try:
        raw = Path(file).expanduser().read_bytes()
    except OSError as error:
        raise NotFound(
            "trust-key-missing", f"cannot read the key {file}: {error.strerror}", hint="see images.trust_keys"
        ) from None
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "trust-key-bad", f"{file} is no public key: {error}", hint="PEM, as cosign public-key prints it"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("trust-key-bad", f"{file} is no ECDSA key on the curve P-256, which cosign's are")
    return key


def check(layout: Layout, manifest: Descriptor, digests: Collection[str], known: Sequence[Key]) -> Iterator[str]:
    """What is wrong with each signature of a signature manifest; "" for one that is valid for one of `digests`."""
    try:
        layers = oci.descriptors(layout.read_json(manifest.digest), "layers")
    except PxeServerError as error:
        yield error.message
        return
    for layer in layers:
        if layer.media_type == PAYLOAD and SIGNATURE in layer.annotations:
            yield _fault(layout, layer, digests, known)


def _fault(layout: Layout, layer: Descriptor, digests: Collection[str], known: Sequence[Key]) -> str:
    if not layout.has(layer.digest) or layer.size > _LIMIT:
        return "the signed text is missing, or far too long"
    text = layout.read_blob(layer.digest)
    try:
        signature = base64.b64decode(layer.annotations[SIGNATURE], validate=True)
    except (binascii.Error, ValueError):
        return "the signature cannot be read"
    if not any(_signed(key.key, signature, text) for key in known):
        return f"it was not made with {' or '.join(key.file for key in known)}"
    try:
        critical = json.loads(text)["critical"]
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, LookupError, TypeError):
        return "the signed text is of no known form"
    if kind != _TYPE:
        return f'what was signed is a "{kind}"'
    return "" if digest in digests else f"it is the signature of {digest}"


def _signed(key: ec.EllipticCurvePublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
