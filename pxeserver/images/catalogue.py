"""Built images: OCI artifact manifests in the store, found by name, tag or digest.

A built image is one manifest of artifact type ARTIFACT: the config blob holds what is not a file (name, content
digest, command line, arch, base images), the layers are kernel, initrd, the specs it was built from, the SBOM, and the
unified kernel image when one was made.
Each tag is an entry of index.json; an image without tags keeps one entry without a name. `NAME:latest` is the newest
build of NAME.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError, did_you_mean
from pxeserver.images import oci
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store
from pxeserver.model import Blob, Image

ARTIFACT = "application/vnd.pxeserver.image.v1"
CONFIG = "application/vnd.pxeserver.image.config.v1+json"
KERNEL = "application/vnd.pxeserver.kernel.v1"
INITRD = "application/vnd.pxeserver.initrd.v1"
SPEC = "application/vnd.pxeserver.spec.v1+yaml"
UKI = "application/vnd.pxeserver.uki.v1"
SBOM = "application/spdx+json"
CREATED = "io.pxeserver.created"  # Unix seconds; on the index entry, so that the manifest does not depend on the clock
RAW_SIZE = "io.pxeserver.raw-size"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEX = re.compile(r"(?:sha256:)?[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Details:
    """What `images show` tells beyond model.Image."""

    image: Image
    manifest: str  # digest of the manifest
    spec_text: str
    sbom: Blob | None
    facts: Mapping[str, Any]  # bases: [{use, ref, digest}], strict, compress, segments: [{use, digest, size, raw_size}]


class Catalogue:
    """Reads index.json anew at every call; manifests and configs never change and are kept in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Image] = {}

    def stamp(self) -> tuple[int, int, int]:
        """Changes whenever an image or tag is added or removed; costs one stat, so it can be polled."""
        try:
            stat = self.store.index_file.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)

    def list(self) -> tuple[Image, ...]:
        """Every built image, newest first, with its tags."""
        found: dict[str, Image] = {}
        for entry in self._entries():
            old = found.get(entry.digest) or replace(self.read(entry.digest), created=0.0)
            tags = (*old.tags, entry.ref) if entry.ref else old.tags
            created = max(old.created, float(entry.annotations.get(CREATED, "0")))
            found[entry.digest] = replace(old, tags=tuple(sorted(tags)), created=created)
        return tuple(sorted(found.values(), key=lambda i: (-i.created, i.spec, i.digest)))

    def get(self, text: str) -> Image:
        """The image that a person means: `web`, `web:tag`, `web@3f2a`, or a digest of at least 4 hex digits.

        NotFound "image-not-found" with the nearest name, Refused "image-ambiguous" when a short digest fits several.
        """
        images = self.list()
        name, at, digest = text.rpartition("@")
        if not at:
            tag = text if ":" in text else f"{text}:latest"
            hit = next((i for i in images if tag in i.tags), None) or next((i for i in images if i.spec == text), None)
            if hit:
                return hit
            digest = text
        if _HEX.fullmatch(digest):
            want = "sha256:" + digest.removeprefix("sha256:")
            hits = {i.digest: i for i in images if i.digest.startswith(want) and name in ("", i.spec)}
            if len(hits) > 1:
                raise Refused("image-ambiguous", f'"{text}" fits {len(hits)} images: {", ".join(sorted(hits))}')
            if hits:
                return next(iter(hits.values()))
        known = [*{i.spec for i in images}, *(t for i in images for t in i.tags), *(i.short for i in images)]
        raise NotFound(
            "image-not-found",
            f'no image "{text}"{did_you_mean(text, known)}',
            hint=f"pxeserver build {name or text.partition(':')[0]}" if _NAME.match(text) else "pxeserver images ls",
        )

    def newest(self, spec: str) -> Image | None:
        """What `spec:latest` names, else the image of that spec built last, else None."""
        images = [i for i in self.list() if i.spec == spec]
        return next((i for i in images if f"{spec}:latest" in i.tags), images[0] if images else None)

    def details(self, image: Image) -> Details:
        return self.details_of(image, self._entry(image).digest)

    def details_of(self, image: Image, manifest: str) -> Details:
        """Of an image by the digest of its manifest, recorded or not."""
        body = self.store.read_json(manifest)
        layers = [oci.descriptor(x) for x in body["layers"]]
        spec = next(x for x in layers if x.media_type == SPEC)
        sbom = next((Blob(x.digest, x.size) for x in layers if x.media_type == SBOM), None)
        facts = self.store.read_json(oci.descriptor(body["config"]).digest)
        return Details(image, manifest, self.store.read_blob(spec.digest).decode(), sbom, facts)

    def add(
        self,
        image: Image,
        *,
        spec_text: bytes,
        sbom: Blob | None = None,
        facts: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        created: float | None = None,
    ) -> Image:
        """Record a built image whose kernel and initrd are in the store; it becomes `spec:latest` besides `tags`.

        `created` is Unix seconds, by default now. The same content built again is the same image, only newer, and keeps
        its unified kernel image.
        """
        config = {**(facts or {}), **_config(image)}
        spec = self.store.add_bytes(spec_text)
        layers = [_layer(KERNEL, image.kernel), _layer(INITRD, image.initrd), _layer(SPEC, spec)]
        if sbom is not None:
            layers.append(_layer(SBOM, sbom))
        same = (i for i in self.list() if (i.digest, i.spec, i.initrd) == (image.digest, image.spec, image.initrd))
        uki = image.uki or next((i.uki for i in same), None)
        if uki is not None:
            layers.append(_layer(UKI, uki))
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": ARTIFACT,
            "config": self.store.add_json(CONFIG, config).json(),
            "layers": [x.json() for x in layers],
        }
        stamp = {CREATED: f"{time.time() if created is None else created:.3f}"}
        entry = self.store.add_json(oci.MANIFEST, manifest, artifact_type=ARTIFACT, annotations=stamp)
        return self._record(entry, image, (f"{image.spec}:latest", *(checked_tag(t, image.spec) for t in tags)))

    def with_uki(self, image: Image, uki: Blob) -> Image:
        """Record the unified kernel image of an image, in place of one from before; its blob is in the store."""
        before = self._entry(image)
        body = self.store.read_json(before.digest)
        layers = [x for x in body["layers"] if x["mediaType"] != UKI]
        body["layers"] = [*layers, _layer(UKI, uki).json()]
        entry = self.store.add_json(
            oci.MANIFEST, body, artifact_type=ARTIFACT, annotations={CREATED: before.annotations.get(CREATED, "0")}
        )
        reached = self.store.references([before])
        found = self._record(entry, image, image.tags)
        self.store.drop_unused(reached)
        return found

    def adopt(self, manifest: Descriptor, tags: Iterable[str] = (), created: float | None = None) -> Image:
        """Record an image built elsewhere, whose manifest and blobs are in the store already, under `tags` alone.

        One that is here already keeps the time of its build.
        """
        image = self.read(manifest.digest)
        built = next((i.created for i in self.list() if self._entry(i).digest == manifest.digest), None)
        stamp = {CREATED: f"{built or (time.time() if created is None else created):.3f}"}
        entry = Descriptor(oci.MANIFEST, manifest.digest, manifest.size, stamp, artifact_type=ARTIFACT)
        return self._record(entry, image, tuple(checked_tag(t, image.spec) for t in tags))

    def _record(self, entry: Descriptor, image: Image, names: Iterable[str]) -> Image:
        def change(entries: tuple[Descriptor, ...]) -> Iterable[Descriptor]:
            absent = [d for d in sorted(self.store.references([entry])) if not self.store.has(d)]
            if absent:  # another process removed a shared blob between writing it and naming it here
                raise PxeServerError("blob-missing", f"{absent[0]} was removed meanwhile", hint="build again")
            # the same content with other facts (base images by another digest, say): the newer record takes its place
            newest = (
                replace(entry, annotations=e.annotations) if e.artifact_type == ARTIFACT and self._is(e, image) else e
                for e in entries
            )
            return _retag(tuple(newest), entry, names)

        self.store.edit_index(change)
        return next(i for i in self.list() if self._entry(i).digest == entry.digest)

    def tag(self, text: str, new: str) -> tuple[Image, str]:
        """Give an image one more tag ("name:tag", or "tag" alone); returns it and who had that tag before, or ""."""
        image = self.get(text)
        name = checked_tag(new, image.spec)
        before = next((i.short for i in self.list() if name in i.tags), "")
        entry = self._entry(image)
        self.store.edit_index(lambda entries: _retag(entries, entry, (name,)))
        return self.get(f"{image.spec}@{image.digest}"), before

    def remove(self, text: str) -> tuple[Image, int]:
        """Remove a tag when `text` is one of several, else the whole image; returns it and the bytes freed."""
        image = self.get(text)
        entry = self._entry(image)
        if text in image.tags and len(image.tags) > 1:
            self.store.edit_index(lambda entries: [e for e in entries if e.ref != text or e.digest != entry.digest])
            return image, 0
        reached = self.store.references([entry])
        self.store.edit_index(lambda entries: [e for e in entries if e.digest != entry.digest])
        return image, self.store.drop_unused(reached)

    def _entries(self) -> tuple[Descriptor, ...]:
        return tuple(e for e in self.store.index() if e.artifact_type == ARTIFACT)

    def _entry(self, image: Image) -> Descriptor:
        for entry in self._entries():
            if self._is(entry, image):
                return entry
        raise NotFound("image-not-found", f"{image.short} is no longer in the store")

    def _is(self, entry: Descriptor, image: Image) -> bool:
        known = self.read(entry.digest)
        return (known.digest, known.spec, known.initrd) == (image.digest, image.spec, image.initrd)

    def read(self, manifest: str) -> Image:
        """The image that a manifest in the store describes; Refused "image-foreign" when that is something else."""
        image = self._known.get(manifest)
        if image is None:
            body = self.store.read_json(manifest)
            if body.get("artifactType") != ARTIFACT:
                raise _foreign(f"{manifest} is no image of pxeserver")
            config = self.store.read_json(oci.descriptor(body["config"]).digest)
            layers = {x.media_type: x for x in map(oci.descriptor, body["layers"])}
            try:
                image = _image(config, layers)
            except (KeyError, TypeError, ValueError, UsageError) as error:
                raise _foreign(f"{manifest} is no image of this pxeserver: {error!r}") from None
            self._known[manifest] = image
        return image


def _foreign(text: str) -> Refused:
    return Refused(
        "image-foreign", text, hint="base images are not pulled or imported: a build takes them from --source"
    )


def _image(config: Mapping[str, Any], layers: Mapping[str, Descriptor]) -> Image:
    """KeyError and the like when something is missing."""
    blobs = {kind: Blob(x.digest, x.size, int(x.annotations.get(RAW_SIZE, x.size))) for kind, x in layers.items()}
    if SPEC not in blobs:
        raise KeyError(SPEC)
    return Image(
        digest=oci.checked_digest(config["digest"]),
        spec=checked_tag(f"{config['spec']}:latest", "").removesuffix(":latest"),
        kernel=blobs[KERNEL],
        initrd=blobs[INITRD],
        cmdline=str(config["cmdline"]),
        arch=str(config["arch"]),
        uki=blobs.get(UKI),
    )


def checked_tag(text: str, spec: str) -> str:
    """ "name:tag" from "name:tag" or "tag"; UsageError "image-bad-tag" for anything else."""
    name, colon, tag = text.rpartition(":")
    name = name if colon else spec
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(tag)):
        raise UsageError(
            "image-bad-tag",
            f'"{name}:{tag}" is no tag',
            hint="NAME:TAG of letters, digits, dots, dashes and underscores; --name gives an image another name",
        )
    return f"{name}:{tag}"


def _config(image: Image) -> dict[str, Any]:
    return {"arch": image.arch, "cmdline": image.cmdline, "digest": image.digest, "spec": image.spec}


def _layer(kind: str, blob: Blob) -> Descriptor:
    raw = {RAW_SIZE: str(blob.raw_size)} if blob.raw_size else {}
    return Descriptor(kind, blob.digest, blob.size, raw)


def _retag(entries: Iterable[Descriptor], entry: Descriptor, names: Iterable[str]) -> list[Descriptor]:
    """The entries with `names` moved to `entry`; an image that loses its last tag keeps an entry without a name."""
    moved = set(names)
    kept = [e for e in entries if e.ref not in moved and not (e.digest == entry.digest and not e.ref)]
    if not moved and all(e.digest != entry.digest for e in kept):
        return [*kept, entry]
    still = {e.digest for e in kept} | {entry.digest}
    plain = {k: v for k, v in entry.annotations.items() if k != oci.REF_NAME}
    for e in entries:
        if e.ref in moved and e.digest not in still:
            bare = {k: v for k, v in e.annotations.items() if k != oci.REF_NAME}
            kept.append(replace(e, annotations=bare))
            still.add(e.digest)
    return kept + [replace(entry, annotations={**plain, oci.REF_NAME: name}) for name in sorted(moved)]
