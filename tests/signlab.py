"""Signing as cosign does it, with keys made on the spot, into an OCI layout or a registry."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from registrylab import Registry

from pxeserver.images import oci
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"


class Signer:
    """A key pair; `public` is the file with the public key."""

    def __init__(self, folder: Path, name: str = "cosign", curve: ec.EllipticCurve | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        self.public = folder / f"{name}.pub"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public.write_bytes(self.key.public_key().public_bytes(serialization.Encoding.PEM, form))

    def payload(self, digest: str, **critical: Any) -> bytes:
        """The signed text; `critical` replaces members of it."""
        body = {
            "identity": {"docker-reference": "registry.example/x"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }
        return json.dumps({"critical": {**body, **critical}, "optional": None}).encode()

    def sign(self, text: bytes) -> str:
        return base64.b64encode(self.key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()

    def manifest(
        self, store: Store, digest: str, *, text: bytes | None = None, signature: str | None = None, earlier: Any = ()
    ) -> Descriptor:
        """A manifest of one signature, after those of `earlier`, in `store`; it has no name yet."""
        text = self.payload(digest) if text is None else text
        blob = store.add_bytes(text)
        layer = Descriptor(PAYLOAD, blob.digest, blob.size, {ANNOTATION: signature or self.sign(text)})
        config = store.add_json(oci.CONFIG, {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers"}})
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": config.json(),
            "layers": [*earlier, layer.json()],
        }
        return store.add_json(oci.MANIFEST, body)

    def into_layout(self, store: Store, name: str, digest: str, **more: Any) -> Descriptor:
        """Sign `digest` of the repository `name` within a layout, under cosign's tag."""
        made = self.manifest(store, digest, **more)
        store.tag(f"{name}:{tag(digest)}", made)
        return made

    def into_registry(self, registry: Registry, folder: Path, repository: str, digest: str, **more: Any) -> None:
        """Push a signature, as `cosign sign` does."""
        store = Store(folder)
        store.tag("sig", self.manifest(store, digest, **more))
        registry.push(store, "sig", repository, tag(digest))


def tag(digest: str) -> str:
    return digest.replace("sha256:", "sha256-") + ".sig"
