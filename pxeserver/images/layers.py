"""Opening the layers of a base image: decompressed, and checked against their digest while they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pxeserver.errors import PxeServerError
from pxeserver.images import compress, oci, tarread
from pxeserver.images.entry import Entry, Readable
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor

_CHUNK = 1 << 20


def _no_one(count: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An OCI image that a spec refers to, ready to be read from `layout`. `layers` bottom first."""

    ref: str  # full reference as expanded
    digest: str  # of the manifest for this architecture
    layout: Layout
    layers: tuple[Descriptor, ...]
    config: dict[str, Any] = field(default_factory=dict)  # the whole image configuration (image-spec, config.md)
    manifest: Descriptor | None = None
    index: Descriptor | None = None  # the image index that the manifest was chosen from
    on_read: Callable[[int], None] = _no_one  # hears of the bytes of layers as they are read

    @property
    def size(self) -> int:
        """Of all layers as they are kept: what `on_read` comes to in the end."""
        return sum(x.size for x in self.layers)


class _Checked(io.RawIOBase):
    """Reads a file, counts and hashes what was read."""

    def __init__(self, file: BinaryIO, count: Callable[[int], None]) -> None:
        self._file, self._count = file, count
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self.hash.update(memoryview(buffer)[:count])
        self._count(count)
        return count


class _Guarded:
    """Names the layer when its bytes cannot be read or decompressed."""

    def __init__(self, stream: Readable, base: BaseImage, layer: Descriptor) -> None:
        self._stream, self._base, self._layer = stream, base, layer

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:  # every decompressor has errors of its own
            raise _damaged(self._base, self._layer, str(error)) from None


@contextlib.contextmanager
def open_layer(base: BaseImage, layer: Descriptor) -> Iterator[Readable]:
    """The layer's tar stream. Leaving the context reads what is left and compares the digest.

    Raises PxeServerError "layer-damaged" for a layer that is not what its digest says, or is no tar archive.
    """
    with base.layout.open_blob(layer.digest) as file:
        checked = _Checked(file, base.on_read)
        buffered = io.BufferedReader(cast(Any, checked), _CHUNK)
        plain = _Guarded(compress.opened(cast(Any, buffered)), base, layer)
        try:
            yield plain
        except PxeServerError as error:
            if error.slug != tarread.SLUG:
                raise
            raise _damaged(base, layer, error.message) from None
        while plain.read(_CHUNK) or buffered.read(_CHUNK):
            pass
        got = "sha256:" + checked.hash.hexdigest()
        if got != layer.digest:
            raise _damaged(base, layer, f"its content has digest {got}")


def _damaged(base: BaseImage, layer: Descriptor, why: str) -> PxeServerError:
    return PxeServerError(
        "layer-damaged",
        f"layer {layer.digest} of {base.ref} is damaged: {why}",
        hint="build with --pull to fetch it again",
    )


@contextlib.contextmanager
def layer_entries(base: BaseImage, layer: Descriptor) -> Iterator[Iterator[Entry]]:
    """The entries of one layer, see `open_layer`; layers that are no tar archives are refused."""
    if "in-toto" in layer.media_type:
        raise PxeServerError("layer-damaged", f"{base.ref} is an attestation, not an image")
    with open_layer(base, layer) as stream:
        yield tarread.entries(stream)


def base_image(layout: Layout, ref: str, manifest: Descriptor, index: Descriptor | None = None) -> BaseImage:
    """Read manifest and config; PxeServerError "oci-malformed" when they are not what they should be."""
    body = layout.read_json(manifest.digest)
    if body.get("schemaVersion") == 1:
        raise PxeServerError("oci-malformed", f"{ref} has a manifest of the old schema 1, which has no digests")
    conf = layout.read_json(oci.descriptor(body.get("config")).digest)
    layers = tuple(oci.descriptors(body, "layers"))
    return BaseImage(ref, manifest.digest, layout, layers, conf, manifest, index)
