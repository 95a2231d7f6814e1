"""Checking a built image from its bytes up: blobs by their digests, then what they unpack to by the image's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from pxeserver.errors import PxeServerError
from pxeserver.images import compress, initrd
from pxeserver.images.catalogue import Catalogue
from pxeserver.model import Blob, Image

_CHUNK = 1 << 20


class _Slice(io.RawIOBase):
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
        facts = catalogue.details(image).facts
    except PxeServerError as error:
        return (error.message,)
    faults = [
        f"{name} {blob.digest} {fault}"
        for name, blob in (("kernel", image.kernel), ("initrd", image.initrd))
        if (fault := _blob(catalogue, blob, count))
    ]
    if not faults:
        faults += _content(catalogue, image, facts)
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


def _content(catalogue: Catalogue, image: Image, facts: Any) -> Iterator[str]:
    """The digest says what the machine unpacks: unpack it."""
    segments = facts["segments"]
    with catalogue.store.open_blob(image.initrd.digest) as file:
        file.seek(facts["ucode"]["size"] if facts.get("ucode") else 0)
        for n, segment in enumerate(segments):
            hashed = hashlib.sha256()
            try:
                plain = compress.opened(io.BufferedReader(cast(Any, _Slice(file, segment["compressed"])), _CHUNK))
                while data := plain.read(_CHUNK):
                    hashed.update(data)
            except Exception as error:  # every decompressor has errors of its own
                yield f"segment {n} of the initrd cannot be unpacked: {error}"
                return
            if "sha256:" + hashed.hexdigest() != segment["digest"]:
                yield f"segment {n} of the initrd unpacks to something else than was built"
    found = initrd.content_digest(
        arch=image.arch,
        cmdline=image.cmdline,
        kernel=image.kernel.digest,
        segments=[s["digest"] for s in segments],
        ucode=facts["ucode"]["digest"] if facts.get("ucode") else "",
    )
    if found != image.digest:
        yield f"its parts make {found}"
