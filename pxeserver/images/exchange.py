"""Built images to and from registries: OCI artifacts, copied blob by blob, checked from their bytes up on arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pxeserver import units
from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, UsageError
from pxeserver.images import oci, verify
from pxeserver.images.catalogue import Catalogue, Details
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Progress
from pxeserver.images.registry import RegistrySource
from pxeserver.images.registryhttp import Endpoint, Unanswered, endpoints
from pxeserver.images.registrypush import PushHttp
from pxeserver.linuxkit import reference
from pxeserver.linuxkit.reference import Reference
from pxeserver.model import Image


@dataclass(frozen=True, slots=True)
class Pushed:
    """`digest` is the manifest's; `sent` and `known` are bytes: those sent, and those that the registry had."""

    image: str
    ref: str
    digest: str
    sent: int
    known: int


def push(catalogue: Catalogue, image: Image, ref: str, progress: Progress, *, cert_file: Path | None = None) -> Pushed:
    """Copy `image` to REGISTRY/NAME[:TAG] (`latest` without a tag)."""
    target = _target(ref)
    details = catalogue.details(image)
    http = PushHttp(progress, cert_file)
    try:
        failures: list[PxeServerError] = []
        for endpoint in endpoints(target.domain, ()):
            try:
                return _push(catalogue, details, endpoint, target, http, progress)
            except Unanswered as error:
                failures.append(error)  # of http and https one is the right one
        raise failures[-1]
    finally:
        http.close()


def _target(ref: str) -> Reference:
    target = reference.parse(ref)
    if target.digest:
        raise UsageError("push-to-digest", f"{ref} names a digest: what is pushed is named by a tag")
    if "/" not in ref:
        raise UsageError("push-where", f'"{ref}" does not say where to', hint="REGISTRY/NAME:TAG, or USER/NAME:TAG")
    return target


def _push(
    catalogue: Catalogue, details: Details, endpoint: Endpoint, target: Reference, http: PushHttp, progress: Progress
) -> Pushed:
    store = catalogue.store
    raw = store.read_blob(details.manifest)
    sent = known = 0
    for blob in store.blobs_of(Descriptor(oci.MANIFEST, details.manifest, len(raw))):
        if http.has(endpoint, target.path, blob.digest):
            known += blob.size
            continue
        task = progress.task(f"push {_what(blob)}", blob.size)
        with store.open_blob(blob.digest) as file:
            http.upload(endpoint, target.path, blob, file, task.advance)
        task.done(units.size(blob.size))
        sent += blob.size
    tag = target.tag or "latest"
    http.manifest_to(endpoint, target.path, tag, oci.MANIFEST, raw)
    return Pushed(details.image.short, f"{target.name}:{tag}", details.manifest, sent, known)


def _what(blob: Descriptor) -> str:
    """'initrd' of application/vnd.pxeserver.initrd.v1."""
    name = blob.media_type.removeprefix("application/").removeprefix("vnd.pxeserver.")
    return f"{name.partition('.v1')[0]} {blob.digest[7:19]}"


def pull(
    catalogue: Catalogue,
    ref: str,
    progress: Progress,
    *,
    mirrors: Sequence[str] = (),
    tags: Sequence[str] | None = None,
    cert_file: Path | None = None,
) -> Image:
    """Fetch a built image. `tags`: what it is called here; by default its name with the tag of `ref`.

    Nothing is recorded unless every blob has its digest and all of them make the image that they claim to be.
    """
    asked = reference.parse(ref)
    source = RegistrySource(catalogue.store, mirrors, progress, cert_file=cert_file)
    try:
        manifest = source.fetch(ref)
    except NotFound as error:
        if error.slug != "base-not-found":
            raise
        raise NotFound("image-not-found", f"no image {ref}: {error.message}", hint="REGISTRY/NAME:TAG") from None
    except Unreachable as error:
        error.hint = "is the registry's address right, and is it running?"
        raise
    default = () if asked.digest and not asked.tag else (asked.tag or "latest",)
    return adopt(catalogue, manifest, default if tags is None else tags, progress)


def adopt(catalogue: Catalogue, manifest: Descriptor, tags: Sequence[str], progress: Progress) -> Image:
    """Record what came from elsewhere once it is checked; else PxeServerError, and nothing of it stays."""
    store = catalogue.store
    reached = store.references([Descriptor(oci.MANIFEST, manifest.digest, manifest.size)])
    try:
        image = catalogue.read(manifest.digest)
        task = progress.task(f"check {image.short}")
        faults = _faults(catalogue, catalogue.details_of(image, manifest.digest))
        if faults:
            raise PxeServerError(
                "image-damaged", f"{image.short} is not what it claims to be: {'; '.join(faults)}", hint="build it anew"
            )
        task.done("ok")
        return catalogue.adopt(manifest, tags)
    except PxeServerError:
        store.drop_unused(reached)
        raise


def _faults(catalogue: Catalogue, details: Details) -> tuple[str, ...]:
    store, image = catalogue.store, details.image
    for blob in (image.kernel, image.initrd, *((image.uki,) if image.uki is not None else ())):
        size = store.blob_path(blob.digest).stat().st_size if store.has(blob.digest) else -1
        if size != blob.size:
            return (f"{blob.digest} has {size} bytes, not {blob.size}" if size >= 0 else f"{blob.digest} is missing",)
    try:
        return tuple(verify.content(store, details))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(
            "image-foreign", f"{details.manifest} is no image of this pxeserver: {error!r}", hint="build it anew"
        ) from None
