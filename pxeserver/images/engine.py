"""A docker engine as the source of base images, through docker's SDK.

An image is saved (not created and exported): that gives its layers, so the tree is the one that a registry would have
given, with the engine's own additions left out. What was saved once is kept in a layout of its own, by image id.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pxeserver.errors import NotFound, Unreachable, did_you_mean
from pxeserver.images import tarstore
from pxeserver.images.layers import BaseImage, base_image
from pxeserver.images.layout import missing_platform
from pxeserver.images.progress import Progress
from pxeserver.images.signatures import Signed
from pxeserver.images.store import Store
from pxeserver.linuxkit.lockfile import Pin

if TYPE_CHECKING:
    from docker import DockerClient


class EngineSource:
    name = "the docker engine"

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._client: DockerClient | None = None

    def names(self) -> Iterable[str]:
        return [tag for image in self._docker().images.list() for tag in image.tags]

    def base(self, ref: str, arch: str, pull: bool = False, also: Sequence[str] | None = None) -> BaseImage:
        """See `sources.Source`. `pull` lets the engine pull first. An engine keeps one platform of an image."""
        import docker.errors

        engine = self._docker()
        try:
            if pull:
                engine.images.pull(ref)
            found = engine.images.get(ref)
        except docker.errors.NotFound:
            near = did_you_mean(ref, self.names())
            raise NotFound(
                "base-not-found", f'no base image "{ref}" in the docker engine{near}', hint=f"docker pull {ref}"
            ) from None
        except docker.errors.APIError as error:
            raise Unreachable("docker-unreachable", f"the docker engine fails: {error.explanation}") from None
        has = str(found.attrs.get("Architecture") or "")
        if has != arch:
            raise missing_platform(ref, arch, [has])
        ident = str(found.id)
        manifest = self._store.resolve(ident, arch)
        if manifest is None:
            size = int(found.attrs.get("Size") or 0)
            task = self._progress.task(f"save {ref} from docker", size or None)
            files = tarstore.take(_Pieces(engine.api.get_image(ident)), self._store, task.advance)
            (image,) = tarstore.saved(files, self._store, ref)
            manifest = self._store.write_base(ident, image.config, image.layers, arch)
            task.done()
        return base_image(self._store, ref, manifest)

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        """An engine does not keep the digests of registries: this is the one of the image as it was saved."""
        return self.base(ref, arch, pull).digest

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        """An engine keeps none."""
        return iter(())

    def _docker(self) -> DockerClient:
        if self._client is None:
            import docker
            import docker.errors

            address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
            try:
                _knock(address)
                self._client = docker.DockerClient(base_url=address, timeout=600)
                weakref.finalize(self, self._client.close)
                self._client.ping()
            except (docker.errors.DockerException, OSError) as error:
                raise Unreachable(
                    "docker-unreachable",
                    f"no docker engine answers at {address}: {error}",
                    hint="DOCKER_HOST names another one; without --docker and --source docker none is needed",
                ) from None
        return self._client


def _knock(address: str) -> None:
    """OSError when nobody listens on the socket: the SDK would say so in a page of nested exceptions."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address.removeprefix("unix://"))


class _Pieces:
    """Reads from an iterator of pieces of any size."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._held = piece
        data = self._held if size < 0 else self._held[:size]
        self._held = self._held[len(data) :]
        return data
