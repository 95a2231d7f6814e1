"""Where the signatures of images are kept: under a tag of the repository, in a registry as in a layout."""

from __future__ import annotations

from collections.abc import Iterator

from pxeserver.images import oci
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor

ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"  # marks our own entries: they are no base images
_KIND, _SAVED = "kind", "dev.cosignproject.cosign/sigs"  # how `cosign save` marks them in a layout without names

Signed = tuple[Layout, Descriptor]  # a layout on this host, and a manifest of signatures in it


def tag(digest: str) -> str:
    """The tag that cosign keeps the signatures of an image under: sha256-<hex>.sig."""
    return digest.replace(":", "-") + ".sig"


def subject(ref: str) -> str:
    """The digest of the image that a name of this form is about; "" for other names."""
    text = ref.rpartition(":")[2].removesuffix(".sig")
    digest = text.replace("sha256-", "sha256:", 1)
    return digest if ref.endswith(".sig") and len(digest) == 71 else ""


def in_layout(layout: Layout, name: str, digest: str) -> Iterator[Signed]:
    """Manifests of signatures that a layout may have for an image: what they say is checked, not where they are."""
    names = (f"{name}:{tag(digest)}", tag(digest))
    for entry in layout.index():
        if entry.media_type in oci.MANIFESTS and (entry.ref in names or entry.annotations.get(_KIND) == _SAVED):
            yield layout, entry
