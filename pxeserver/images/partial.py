"""A blob on its way from a registry: hashed while it grows, continued where a broken download ended."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pxeserver.errors import PxeServerError
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store

_CHUNK = 1 << 20


class Partial:
    """The bytes that are there so far. `advance` hears of each that comes, and of those found at the start."""

    def __init__(self, file: BinaryIO, wanted: Descriptor, advance: Callable[[int], None]) -> None:
        self._file, self._wanted, self._advance = file, wanted, advance
        self._hash = hashlib.sha256()
        self.size = 0
        file.seek(0)
        while data := file.read(_CHUNK):
            self._count(data)

    @property
    def complete(self) -> bool:
        return self.size >= self._wanted.size

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._count(data)
        if self.size > self._wanted.size:
            raise PxeServerError("digest-mismatch", f"more than the {self._wanted.size} bytes of {self._wanted.digest}")

    def restart(self) -> None:
        self._advance(-self.size)
        self._file.seek(0)
        self._file.truncate()
        self._hash, self.size = hashlib.sha256(), 0

    def finish(self) -> None:
        self._file.flush()
        if "sha256:" + self._hash.hexdigest() != self._wanted.digest:
            self.restart()  # nothing of it is worth keeping
            raise PxeServerError(
                "digest-mismatch",
                f"something else than {self._wanted.digest} was sent",
                hint="a proxy or mirror between here and the registry changes what it passes on; build again",
            )

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._advance(len(data))


@contextlib.contextmanager
def partial(store: Store, wanted: Descriptor, advance: Callable[[int], None]) -> Iterator[Partial | None]:
    """Put `wanted` into the store by filling the Partial; None when another process has just done so.

    Left by an exception, what has come stays for the next attempt. Two processes take turns.
    """
    folder = store.root / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wanted.digest.removeprefix("sha256:")
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if store.has(wanted.digest):
            path.unlink(missing_ok=True)
            yield None
            return
        blob = Partial(file, wanted, advance)
        if blob.size > wanted.size:
            blob.restart()
        yield blob
        blob.finish()
        store.adopt(path, wanted.digest)
