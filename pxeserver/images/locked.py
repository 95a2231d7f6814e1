"""A source that refuses everything but what is locked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pxeserver.errors import PxeServerError, Refused
from pxeserver.images import oci
from pxeserver.images.layers import BaseImage
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor
from pxeserver.images.signatures import Signed
from pxeserver.images.sources import Platforms, Source
from pxeserver.linuxkit.lockfile import Lock, Pin


@dataclass(frozen=True)
class LockedSource:
    """`source`, but what it gives must be what every lock that knows the reference says, and one must know it."""

    source: Source
    locks: Sequence[Lock]

    @property
    def name(self) -> str:
        return self.source.name

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        """As `sources.Source`; Refused "base-not-locked", "base-lock-differs"."""
        wanted = {d: lock for lock in self.locks if (d := lock.digest(ref, arch))}
        files = ", ".join(lock.file for lock in self.locks)
        if not wanted:
            raise Refused(
                "base-not-locked", f"{ref} is not locked for {arch} in {files}", hint="pxeserver specs lock SPEC"
            )
        base = self.source.base(ref, arch, pull, also)
        got = {base.digest, *([base.index.digest] if base.index else [])}
        for digest, lock in wanted.items():
            if digest not in got:
                is_now = base.index.digest if base.index else base.digest
                raise Refused(
                    "base-lock-differs",
                    f"{ref} is locked to {digest} in {lock.file}, but {self.name} has {is_now}",
                    hint="pxeserver specs lock SPEC takes the new one; build without --locked does not look",
                )
        intact(base)
        return base

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        return self.source.pin(ref, arch, pull)

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        return self.source.signatures(name, digest)

    def names(self) -> Iterable[str]:
        return self.source.names()


def intact(base: BaseImage) -> None:
    """What a digest vouches for is what is read: index, manifest and config are what their digests say.

    Layers are compared while they are read. PxeServerError "digest-mismatch".
    """
    assert base.manifest is not None
    config = oci.descriptor(base.layout.read_json(base.digest).get("config"))
    for one in (base.index, base.manifest, config):
        if one is not None and not _is(base.layout, one):
            raise PxeServerError(
                "digest-mismatch", f"{one.digest} of {base.ref} is damaged in {base.layout.root}", hint="build --pull"
            )


def _is(layout: Layout, wanted: Descriptor) -> bool:
    return "sha256:" + hashlib.sha256(layout.read_blob(wanted.digest)).hexdigest() == wanted.digest
