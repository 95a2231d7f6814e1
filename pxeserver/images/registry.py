"""A registry as the source of base images: what is missing is fetched into the store (distribution-spec 1.1).

Names are resolved by the registry at each call; blobs are fetched once, several at a time, resumed where a broken
download ended, and checked against their digest before they count.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, UsageError
from pxeserver.images import layout, oci, signatures
from pxeserver.images.layers import BaseImage, base_image
from pxeserver.images.oci import Descriptor
from pxeserver.images.partial import partial
from pxeserver.images.progress import Progress
from pxeserver.images.registryhttp import Endpoint, Http, Unanswered, endpoints
from pxeserver.images.signatures import Signed
from pxeserver.images.store import Store
from pxeserver.linuxkit import reference
from pxeserver.linuxkit.lockfile import Pin

T = TypeVar("T")

_ACCEPT = ", ".join((oci.INDEX, oci.MANIFEST, oci.DOCKER_LIST, oci.DOCKER_MANIFEST))
_MANIFEST_LIMIT = 4 << 20  # bytes; the distribution specification lets registries refuse larger ones
_AT_ONCE = 4


class RegistrySource:
    name = "the registry"

    def __init__(
        self, store: Store, mirrors: Sequence[str], progress: Progress, *, cert_file: Path | None = None
    ) -> None:
        self._store, self._mirrors, self._progress = store, tuple(mirrors), progress
        self._cert_file = cert_file
        self._lock = threading.Lock()
        self._made: Http | None = None

    @property
    def _http(self) -> Http:
        with self._lock:
            if self._made is None:
                self._made = Http(self._progress, self._cert_file)
                weakref.finalize(self, self._made.close)
            return self._made

    def names(self) -> Iterable[str]:
        return ()  # registries seldom let anybody list what they have

    def base(self, ref: str, arch: str, pull: bool = False, also: Sequence[str] | None = None) -> BaseImage:
        """See `sources.Source`; `ref` is written to the store under its own spelling, as LinuxKit's cache has it."""
        return self._anywhere(ref, lambda endpoint, name, wanted: self._from(endpoint, name, wanted, ref, arch, also))

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        """See `sources.Source`; only the manifest is fetched."""
        top = self._anywhere(ref, lambda endpoint, name, wanted: self._manifest(endpoint, name, wanted, ref))
        if top.media_type in oci.INDEXES:
            layout.choose(self._store.read_json(top.digest), ref, arch)
        return top.digest

    def fetch(self, ref: str) -> Descriptor:
        """The manifest that `ref` names, of whatever kind, with all its blobs in the store, and without a name there.

        NotFound "base-not-found" when there is none.
        """

        def one(endpoint: Endpoint, repository: str, wanted: str) -> Descriptor:
            top = self._manifest(endpoint, repository, wanted, ref)
            if top.media_type not in oci.INDEXES:
                self._fetch_all(endpoint, repository, self._store.blobs_of(top))
            return top

        return self._anywhere(ref, one)

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        """Fetched anew each time, and kept in the store, so that a later build needs no registry."""
        ref = f"{name}:{signatures.tag(digest)}"
        try:
            found = self.fetch(ref)
        except (NotFound, Refused):
            return  # some registries deny what is not there
        if found.media_type in oci.MANIFESTS:
            self._store.tag(ref, replace(found, artifact_type=signatures.ARTIFACT))
            yield self._store, found

    def _anywhere(self, ref: str, ask: Callable[[Endpoint, str, str], T]) -> T:
        """`ask(endpoint, repository, tag or digest)` of the mirrors, then of the registry itself."""
        name = reference.parse(ref)
        repository, wanted = name.path, name.digest or name.tag or "latest"
        if wanted.startswith("sha512:"):
            raise UsageError("digest-unknown", f"{ref}: only sha256 digests are known here")
        failures: list[PxeServerError] = []
        for endpoint in endpoints(name.domain, self._mirrors):
            try:
                return ask(endpoint, repository, wanted)
            except (NotFound, Refused, Unreachable) as error:
                if error.slug == "image-platform":
                    raise
                failures.append(error)  # a mirror may lack an image or be down; the last one is the registry itself
        answered = [e for e in failures if not isinstance(e, Unanswered)]
        raise (answered or failures)[-1]

    def _from(
        self, endpoint: Endpoint, repository: str, wanted: str, ref: str, arch: str, also: Sequence[str] | None
    ) -> BaseImage:
        top = self._manifest(endpoint, repository, wanted, ref)
        manifest, index = top, None
        if top.media_type in oci.INDEXES:
            body, index = self._store.read_json(top.digest), top
            manifest = layout.choose(body, ref, arch)
            others = layout.for_platforms(body, ref, also) if also is not None else []
            for one in {m.digest: m for m in (manifest, *others)}.values():
                self._manifest(endpoint, repository, one.digest, ref)
                self._fetch_all(endpoint, repository, self._store.blobs_of(one))
            self._attestations(endpoint, repository, body, manifest, ref)
        else:
            self._fetch_all(endpoint, repository, self._store.blobs_of(manifest))
        self._store.tag(ref, top)
        return base_image(self._store, ref, manifest, index)

    def _manifest(self, endpoint: Endpoint, repository: str, wanted: str, ref: str) -> Descriptor:
        """Fetch one manifest or index by tag or digest into the store."""
        by_digest = wanted.startswith("sha256:")
        if by_digest and self._store.has(wanted):
            raw, kind = self._store.read_blob(wanted), ""
        else:
            answer = self._http.manifest(endpoint, repository, wanted, _ACCEPT, _MANIFEST_LIMIT)
            raw, kind = answer.content, answer.kind
        blob = self._store.add_bytes(raw, expect=wanted if by_digest else "")
        kind = str(oci.parse(raw, f"the manifest of {ref}").get("mediaType") or kind or oci.MANIFEST)
        return Descriptor(kind, blob.digest, blob.size)

    def _attestations(
        self, endpoint: Endpoint, repository: str, index: dict[str, Any], manifest: Descriptor, ref: str
    ) -> None:
        """What the index says about the image itself (SBOMs), so that a later build finds it in the store."""
        for entry in oci.descriptors(index, "manifests"):
            if entry.annotations.get("vnd.docker.reference.digest") == manifest.digest:
                self._manifest(endpoint, repository, entry.digest, ref)
                content = self._store.read_json(entry.digest)
                self._fetch_all(endpoint, repository, oci.descriptors(content, "layers"))

    def _fetch_all(self, endpoint: Endpoint, repository: str, blobs: Sequence[Descriptor]) -> None:
        absent = {b.digest: b for b in blobs if not self._store.has(b.digest)}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
            for done in [pool.submit(self._fetch, endpoint, repository, b) for b in absent.values()]:
                done.result()

    def _fetch(self, endpoint: Endpoint, repository: str, blob: Descriptor) -> None:
        task = self._progress.task(f"fetch {repository} {blob.digest[7:19]}", blob.size)
        with partial(self._store, blob, task.advance) as into:
            if into is not None:
                self._http.blob(endpoint, repository, blob.digest, into)
        task.done()
