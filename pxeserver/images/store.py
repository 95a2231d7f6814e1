"""The one OCI image layout that holds base images and built images alike: `<data>/store`.

Safe against kill -9 at any point: a blob appears under its digest only when it is whole (temporary file, hashed
while written, renamed); index.json changes under a lock and by rename. Temporary files are locked by their writer,
so that what a killed writer left behind is recognised and swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pxeserver.errors import PxeServerError, UsageError
from pxeserver.images import oci
from pxeserver.images.entry import Readable
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor
from pxeserver.model import Blob

_CHUNK = 1 << 20


class BlobWriter(io.RawIOBase):
    """A blob being written: `write`, then `commit`. Left without commit, nothing of it stays."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hash = hashlib.sha256()
        self.size = 0
        fd, name = new_file(store.tmp)
        self._file = os.fdopen(fd, "wb", buffering=0)
        self._name: Path | None = name

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        view = memoryview(data)
        total = view.nbytes
        while view.nbytes:
            view = view[self._file.write(view) :]
        self.size += total
        return total

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return "sha256:" + self._hash.hexdigest()

    def commit(self, expect: str = "") -> Blob:
        """Put the blob into the store; PxeServerError "digest-mismatch" when it is not the `expect`ed one."""
        digest = self.digest
        if expect and digest != expect:
            raise PxeServerError("digest-mismatch", f"expected {expect}, got {digest} ({self.size} bytes)")
        assert self._name is not None, "commit is called once"
        path = self._store.blob_path(digest)
        if path.is_file() and path.stat().st_size == self.size:
            os.utime(path)  # younger again: whoever removes unused blobs sees that this one has a new user
        else:
            os.fchmod(self._file.fileno(), 0o644)  # the serving process may be another user; the umask must not matter
            os.fsync(self._file.fileno())
            self._name.rename(path)
            self._name = None
        self.close()
        return Blob(digest, self.size)

    def close(self) -> None:
        if not self.closed:
            if self._name is not None:
                self._name.unlink(missing_ok=True)
                self._name = None
            self._file.close()
        super().close()


class Store(Layout):
    """See the module. `root` is made on the first write; reading an absent store finds nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tmp = root / "tmp"
        self._ready = False

    def prepare(self) -> None:
        """Make the store's folders if need be; UsageError "data-not-writable" when that cannot be done."""
        if self._ready:
            return
        try:
            for folder in (self.root, self.root / "blobs", self.root / "blobs" / "sha256", self.tmp):
                folder.mkdir(parents=True, exist_ok=True)
            mark = self.root / "oci-layout"
            if not mark.is_file():
                self._replace(mark, b'{"imageLayoutVersion":"1.0.0"}')
            remove_abandoned(self.tmp.iterdir())
        except OSError as error:
            raise UsageError(
                "data-not-writable",
                f"cannot write to {self.root}: {error.strerror}",
                hint="run as root, or name a data folder of your own: pxeserver --data DIR (PXESERVER_SERVER_DATA)",
            ) from None
        self._ready = True

    def writer(self) -> BlobWriter:
        """A new blob to write to; use as a context manager."""
        self.prepare()
        return BlobWriter(self)

    def add_blob(self, stream: Readable, *, expect: str = "") -> Blob:
        """Copy a stream into the store; memory stays at one chunk."""
        with self.writer() as out:
            while chunk := stream.read(_CHUNK):
                out.write(chunk)
            return out.commit(expect)

    def adopt(self, path: Path, digest: str) -> None:
        """Move a whole file on the store's own file system into it; the caller has checked that it has this digest."""
        self.prepare()
        path.chmod(0o644)
        path.rename(self.blob_path(digest))

    def add_bytes(self, data: bytes, *, expect: str = "") -> Blob:
        return self.add_blob(io.BytesIO(data), expect=expect)

    def add_json(self, media_type: str, body: Mapping[str, Any], **more: Any) -> Descriptor:
        """Store JSON in its canonical spelling; `more` are further fields of the Descriptor."""
        blob = self.add_bytes(oci.dump(body))
        return Descriptor(media_type, blob.digest, blob.size, **more)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that every change of index.json needs (flock on index.lock)."""
        self.prepare()
        with (self.root / "index.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def edit_index(self, change: Callable[[tuple[Descriptor, ...]], Iterable[Descriptor]]) -> None:
        """Replace the entries of index.json by `change(entries)`, under the lock, whole or not at all."""
        with self.locked():
            entries = [e.json() for e in change(self.index())]
            body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
            self._replace(self.index_file, oci.dump(body))

    def _replace(self, path: Path, data: bytes) -> None:
        fd, name = new_file(self.tmp)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
            name.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def tag(self, ref: str, descriptor: Descriptor) -> Descriptor:
        """Let `ref` name this manifest; the entry it had before (for the same platform) is replaced."""
        named = Descriptor(
            descriptor.media_type,
            descriptor.digest,
            descriptor.size,
            {**descriptor.annotations, oci.REF_NAME: ref},
            descriptor.platform,
            descriptor.artifact_type,
        )
        arch = named.platform.get("architecture")

        def change(entries: tuple[Descriptor, ...]) -> list[Descriptor]:
            return [e for e in entries if e.ref != ref or e.platform.get("architecture") != arch] + [named]

        self.edit_index(change)
        return named

    def list(self) -> tuple[Descriptor, ...]:
        """The named entries by name: base images, and tags of built images (those have an `artifact_type`)."""
        return tuple(sorted((e for e in self.index() if e.ref), key=lambda e: (e.ref, e.digest)))

    def remove(self, ref: str) -> bool:
        """Take the name away; False when there was none. Blobs stay until `drop_unused`."""
        found = bool(self.named(ref))
        if found:
            self.edit_index(lambda entries: [e for e in entries if e.ref != ref])
        return found

    def write_base(self, ref: str, config: Mapping[str, Any], layers: Iterable[Descriptor], arch: str) -> Descriptor:
        """Store a base image under `ref` (the full expanded reference) and return its manifest's descriptor.

        `config` is the OCI image config (`config`: Entrypoint, Env, Labels...); architecture, os and rootfs.diff_ids of
        uncompressed layers are filled in when missing. `layers` are blobs that are in this store already. Nothing here
        depends on the clock: the same layers give the same digest.
        """
        layers = tuple(layers)
        for layer in layers:
            if not self.has(layer.digest):
                raise PxeServerError("blob-missing", f"layer {layer.digest} of {ref} is not in {self.root}")
        body = {"architecture": arch, "os": "linux", **config}
        body.setdefault("rootfs", {"type": "layers", "diff_ids": [x.digest for x in layers]})
        conf = self.add_json(oci.CONFIG, body)
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": conf.json(),
            "layers": [x.json() for x in layers],
        }
        return self.tag(ref, self.add_json(oci.MANIFEST, manifest, platform={"os": "linux", "architecture": arch}))

    def references(self, entries: Iterable[Descriptor]) -> set[str]:
        """Every digest that these entries reach: indexes, manifests, configs, layers. Absent blobs are passed over."""
        seen: set[str] = set()
        todo = list(entries)
        while todo:
            entry = todo.pop()
            if entry.digest in seen:
                continue
            seen.add(entry.digest)
            if entry.media_type not in (*oci.INDEXES, *oci.MANIFESTS) or not self.has(entry.digest):
                continue
            body = self.read_json(entry.digest)
            todo += [*oci.descriptors(body, "manifests"), *oci.descriptors(body, "layers")]
            todo += [oci.descriptor(body["config"])] if body.get("config") else []
        return seen

    def drop_unused(self, candidates: Iterable[str]) -> int:
        """Delete those of `candidates` that no entry reaches any more; returns the bytes freed."""
        freed = 0
        with self.locked():
            used = self.references(self.index())
            for digest in set(candidates) - used:
                path = self.blob_path(digest)
                if path.is_file():
                    freed += path.stat().st_size
                    path.unlink()
        return freed


def new_file(folder: Path) -> tuple[int, Path]:
    """A new file "new-...", locked until it is closed; made again if a sweep came between making and locking it."""
    while True:
        fd, name = tempfile.mkstemp(prefix="new-", dir=folder)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, Path(name)
        os.close(fd)


def remove_abandoned(files: Iterable[Path]) -> None:
    """Remove those of `new_file` whose writer is gone: a live one holds a lock on its file."""
    for path in files:
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
