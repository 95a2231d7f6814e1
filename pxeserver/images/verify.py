"""Checking a built image from its bytes up: blobs by their digests, then what they unpack to by the image's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from pxeserver.errors import PxeServerError
from pxeserver.images import compress, initrd
from pxeserver.images.catalogue import Catalogue, Details
from pxeserver.images.store import Store
from pxeserver.model import Blob, Image

_CHUNK = 1 << 20


class Slice(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def verify(catalogue: Catalogue, image: Image, count: Callable[[int], None]) -> tuple[str, ...]:
    """What is wrong with the image, one sentence each; () when all is well. `count` hears of the bytes read."""
    try:
        details = catalogue.details(image)
    except PxeServerError as error:
        return (error.message,)
    faults = [
        f"{name} {blob.digest} {fault}"
        for name, blob in (("kernel", image.kernel), ("initrd", image.initrd), ("UKI", image.uki))
        if blob is not None and (fault := _blob(catalogue, blob, count))
    ]
    if not faults:
        faults += content(catalogue.store, details)
    return tuple(faults)


def _blob(catalogue: Catalogue, blob: Blob, count: Callable[[int], None]) -> str:
    if not catalogue.store.has(blob.digest):
        return "is missing"
    hashed, size = hashlib.sha256(), 0
    with catalogue.store.open_blob(blob.digest) as file:
        while data := file.read(_CHUNK):
            hashed.update(data)
            size += len(data)
            count(len(data))
    if size != blob.size:
        return f"has {size} bytes instead of {blob.size}"
    return "" if "sha256:" + hashed.hexdigest() == blob.digest else "is damaged"


def content(store: Store, details: Details) -> Iterator[str]:
    """The digest says what the machine unpacks: unpack it. The blobs are taken to be what their digests say."""
    image, facts = details.image, details.facts
    segments, ucode = facts["segments"], facts.get("ucode") or {"size": 0, "digest": ""}
    unpacked = ucode["size"]
    with store.open_blob(image.initrd.digest) as file:
        before = file.read(ucode["size"])
        if before and "sha256:" + hashlib.sha256(before).hexdigest() != ucode["digest"]:
            yield "the microcode before the initrd is not what was built"
        for n, segment in enumerate(segments):
            hashed = hashlib.sha256()
            try:
                plain = compress.opened(io.BufferedReader(cast(Any, Slice(file, segment["compressed"])), _CHUNK))
                while data := plain.read(_CHUNK):
                    hashed.update(data)
                    unpacked += len(data)
            except Exception as error:  # every decompressor has errors of its own
                yield f"segment {n} of the initrd cannot be unpacked: {error}"
                return
            if "sha256:" + hashed.hexdigest() != segment["digest"]:
                yield f"segment {n} of the initrd unpacks to something else than was built"
        if file.read(1):
            yield "the initrd goes on after its last segment"
    if unpacked != image.initrd.raw_size:
        yield f"the initrd unpacks to {unpacked} bytes, not {image.initrd.raw_size}"
    found = initrd.content_digest(
        arch=image.arch,
        cmdline=image.cmdline,
        kernel=image.kernel.digest,
        segments=[s["digest"] for s in segments],
        ucode=ucode["digest"],
    )
    if found != image.digest:
        yield f"its parts make {found}"
