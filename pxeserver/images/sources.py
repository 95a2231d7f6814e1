"""Where base images come from: the local store, any OCI layout, a registry, a docker engine.

Every source ends in an OCI layout on disk that the layers are then read from: a registry and an engine bring what is
missing into a store first, so that building is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pxeserver.config import Config
from pxeserver.errors import NotFound, Unreachable, UsageError, did_you_mean
from pxeserver.images import oci, signatures
from pxeserver.images.layers import BaseImage, base_image
from pxeserver.images.layout import Layout, for_platforms
from pxeserver.images.progress import Progress, Silent
from pxeserver.images.signatures import Signed
from pxeserver.images.store import Store
from pxeserver.linuxkit.lockfile import Pin

T = TypeVar("T")
Platforms = Sequence[str] | None
KINDS = ("registry", "docker", "oci:DIR", "archive:FILE")


class Source(Protocol):
    @property
    def name(self) -> str:
        """As a person would say it: "the local store"."""

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        """The image that the full reference `ref` names, for linux/`arch`, with all its blobs on this host.

        `also`: the blobs of these platforms of an index too ("linux/arm64"; an empty tuple: of all).
        `pull`: what a registry says now counts, not what was fetched before. Raises NotFound "base-not-found" or
        "image-platform", Unreachable "registry-unreachable" or "docker-unreachable".
        """

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        """The digest that says today what `ref` is: of the index where there is one. Raises what `base` does."""

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        """Manifests of cosign signatures of the image `digest` of the repository `name` (registry/path)."""

    def names(self) -> Iterable[str]:
        """The references that this source is known to have, for finding the nearest one."""


@dataclass(frozen=True)
class LayoutSource:
    """A folder in OCI image layout, LinuxKit's cache among them; names are matched exactly."""

    layout: Layout
    name: str

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        found = local(self.layout, ref, arch, also)
        if found is None:
            raise not_found(ref, self)
        return found

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        """By architecture where several images share the name without an index."""
        found = self.base(ref, arch)
        if found.index is not None:
            return found.index.digest
        single = {e.platform["architecture"]: e.digest for e in self.layout.meant(ref) if "architecture" in e.platform}
        return single if len(single) > 1 else found.digest

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        return signatures.in_layout(self.layout, name, digest)

    def names(self) -> Iterable[str]:
        return {e.ref for e in self.layout.index() if e.ref and not e.artifact_type}


@dataclass(frozen=True)
class Chain:
    """The first source that has the image; with `pull` only those that ask somebody else."""

    sources: Sequence[Source]

    @property
    def name(self) -> str:
        return ", ".join(s.name for s in self.sources)

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        return self._first(ref, pull, lambda source, again: source.base(ref, arch, again, also))

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        return self._first(ref, pull, lambda source, again: source.pin(ref, arch, again))

    def _first(self, ref: str, pull: bool, ask: Callable[[Source, bool], T]) -> T:
        """`ask(source, pull)` of the first source that has `ref`."""
        for source in self.sources[:-1]:
            if pull:
                break  # the last one is the registry, and the only one that can be newer
            try:
                return ask(source, False)
            except NotFound:
                continue
        try:
            return ask(self.sources[-1], pull)
        except NotFound as error:
            if error.slug != "base-not-found":
                raise
            raise not_found(ref, self) from None
        except Unreachable as error:
            if not pull and len(self.sources) > 1:
                others = ", ".join(s.name for s in self.sources[:-1])
                error.hint = f"{others} has no {ref}{did_you_mean(ref, self.names())}"
            raise

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        for source in self.sources:
            yield from source.signatures(name, digest)

    def names(self) -> Iterable[str]:
        return {name for s in self.sources for name in s.names()}


def not_found(ref: str, source: Source) -> NotFound:
    return NotFound(
        "base-not-found",
        f'no base image "{ref}" in {source.name}{did_you_mean(ref, source.names())}',
        hint="pxeserver bases ls",
    )


def local(layout: Layout, ref: str, arch: str, also: Platforms = None) -> BaseImage | None:
    """`ref` out of a layout, if it is there with all its blobs; NotFound "image-platform" like `Layout.resolve`."""
    entries = layout.meant(ref)
    manifest = layout.resolve(ref, arch)
    if manifest is None or not layout.has(manifest.digest):
        return None
    index = next((e for e in entries if e.media_type in oci.INDEXES), None)
    manifests = [manifest]
    if index is not None and also is not None:
        manifests += for_platforms(layout.read_json(index.digest), ref, also)
    for one in manifests:
        if not (layout.has(one.digest) and all(layout.has(x.digest) for x in layout.blobs_of(one))):
            return None
    return base_image(layout, ref, manifest, index)


def open_source(
    text: str,
    store: Store,
    config: Config,
    *,
    docker: bool = False,
    mirrors: Sequence[str] = (),
    cert_file: Path | None = None,
    progress: Progress | None = None,
) -> Source:
    """The source that `text` names: "" (local store, then registry), "registry", "docker", "oci:DIR", "archive:FILE".

    An archive is what `docker save` wrote, or an OCI layout in a tar; oci:FILE takes it too.
    `docker` puts the engine in front (LinuxKit's --docker). `mirrors` ([REG=]URL) go before the configured ones.
    """
    progress = progress or Silent()
    kind, _, rest = text.partition(":")
    if kind in ("oci", "archive") and rest:
        folder = Path(rest).expanduser()
        if kind == "archive" or folder.is_file():
            from pxeserver.images import unpacked

            return LayoutSource(unpacked.layout(folder, config.data / "cache" / "archives", progress), str(folder))
        if not (folder / "index.json").is_file():
            raise NotFound("source-not-found", f"{folder} is no OCI image layout", hint="it needs an index.json")
        return LayoutSource(Layout(folder), str(folder))
    if text not in ("", "registry", "docker"):
        raise UsageError(
            "source-unknown", f'no source "{text}"{did_you_mean(text, KINDS)}', hint=f"known: {', '.join(KINDS)}"
        )
    if text == "docker" or docker:
        from pxeserver.images.engine import EngineSource

        engine = EngineSource(Store(config.data / "cache" / "docker"), progress)
        if text == "docker":
            return engine
    from pxeserver.images.registry import RegistrySource

    registry = RegistrySource(store, (*filter(None, mirrors), *config.images.mirrors), progress, cert_file=cert_file)
    chain: list[Source] = [registry]
    if text != "registry":
        chain.insert(0, LayoutSource(store, "the local store"))
    if docker:
        chain.insert(0, engine)
    return Chain(tuple(chain)) if len(chain) > 1 else registry
