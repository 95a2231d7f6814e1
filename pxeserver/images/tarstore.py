"""Archives of images: what `docker save` writes and OCI layouts in a tar, taken into a store file by file."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pxeserver.errors import PxeServerError, UsageError
from pxeserver.images import compress, oci, tarread
from pxeserver.images.entry import FILE, SYMLINK, Readable
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store
from pxeserver.model import Blob

BLOBS = "blobs/sha256/"
_JSON_LIMIT = 8 << 20  # bytes of a list of contents

Files = Mapping[str, Blob]


def take(stream: Readable, store: Store, advance: Callable[[int], None]) -> dict[str, Blob]:
    """Every file of a tar stream that an image may be made of, as a blob, by its normalised path.

    PxeServerError "tar-malformed"; "digest-mismatch" for a file below blobs/ that is not what its name says. Then
    nothing of the archive stays.
    """
    files: dict[str, Blob] = {}
    try:
        return files | _linked(_taken(stream, store, advance, files), files)
    except BaseException:
        store.drop_unused(blob.digest for blob in files.values())
        raise


def _linked(links: Mapping[str, str], files: Files) -> dict[str, Blob]:
    return {path: files[to] for path, to in links.items() if to in files}


def _taken(stream: Readable, store: Store, advance: Callable[[int], None], files: dict[str, Blob]) -> dict[str, str]:
    """Fills `files`; returns the symlinks."""
    links: dict[str, str] = {}
    for entry in tarread.entries(stream):
        path = posixpath.normpath(entry.name)
        if entry.kind == SYMLINK:  # a layer that another image of the stream has too
            links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.link))
        elif entry.kind == FILE and entry.open is not None and _wanted(path):
            expect = "sha256:" + path.removeprefix(BLOBS) if path.startswith(BLOBS) else ""
            files[path] = store.add_blob(_Counted(entry.open(), advance), expect=expect)
    while stream.read(1 << 20):
        pass  # an engine's answer has ended only when it is read to its end
    return links


def unpack(file: io.BufferedReader, name: str, store: Store, advance: Callable[[int], None]) -> dict[str, Blob]:
    """`take` of an archive file, plain or compressed; UsageError "archive-bad" when it is none, or is damaged."""
    try:
        return take(_Guarded(compress.opened(file)), store, advance)
    except PxeServerError as error:
        if error.slug not in (tarread.SLUG, "digest-mismatch"):
            raise
        raise UsageError("archive-bad", f"{name} is no archive of images: {error.message}") from None


class _Guarded:
    """Every decompressor has errors of its own."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            raise PxeServerError(tarread.SLUG, str(error) or type(error).__name__) from None


def _wanted(path: str) -> bool:
    """Not the engine's old per-layer files (`VERSION`, `<id>/json`, `repositories`)."""
    return path.endswith((".tar", ".json")) or path.startswith("blobs/")


def listed(files: Files, path: str, store: Store) -> Any:
    """The JSON in `path`, None when there is no such file; PxeServerError "oci-malformed"."""
    blob = files.get(path)
    if blob is None:
        return None
    if blob.size > _JSON_LIMIT:
        raise PxeServerError("oci-malformed", f"{path} has {blob.size} bytes")
    return oci.parse(b'{"x":' + store.read_blob(blob.digest) + b"}", path)["x"]


@dataclass(frozen=True, slots=True)
class Saved:
    """An image of a `docker save` archive: `names` as docker spells them, layers uncompressed."""

    names: tuple[str, ...]
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def arch(self) -> str:
        return str(self.config.get("architecture") or "")


def saved(files: Files, store: Store, what: str) -> Iterator[Saved]:
    """The images that manifest.json lists; PxeServerError "oci-malformed" when it is of no known form."""
    try:
        for image in listed(files, "manifest.json", store) or ():
            layers = [files[posixpath.normpath(path)] for path in image["Layers"]]
            yield Saved(
                tuple(image.get("RepoTags") or ()),
                store.read_json(files[posixpath.normpath(image["Config"])].digest),
                tuple(Descriptor(oci.LAYER, blob.digest, blob.size) for blob in layers),
            )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PxeServerError("oci-malformed", f"docker saved {what} in an unknown form: {error!r}") from None


class _Counted:
    def __init__(self, stream: Readable, advance: Callable[[int], None]) -> None:
        self._stream, self._advance = stream, advance

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._advance(len(data))
        return data
