"""The spec's trust section at work: a source whose images are signed, or pinned by digest, or refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxeserver.config import Config
from pxeserver.errors import Refused, Unreachable
from pxeserver.images.layers import BaseImage
from pxeserver.images.locked import LockedSource, intact
from pxeserver.images.signatures import Signed
from pxeserver.images.sources import Platforms, Source
from pxeserver.linuxkit import reference, trust
from pxeserver.linuxkit.loader import Loaded
from pxeserver.linuxkit.lockfile import Pin
from pxeserver.linuxkit.trust import Rule

if TYPE_CHECKING:
    from pxeserver.images.cosign import Key


def guarded(loaded: Loaded, source: Source, config: Config) -> Source:
    """`source`, with a guard when the spec trusts only signed images; a source that holds locks pins all digests."""
    rules = {use.ref: rule for use, rule in trust.covered(loaded).values()}
    if not rules or isinstance(source, LockedSource):
        return source
    from pxeserver.images import cosign  # cryptography takes long to import, and most specs trust everybody

    return TrustedSource(source, rules, cosign.keys(config.images.trust_keys))


@dataclass(frozen=True)
class TrustedSource:
    """`rules`: by expanded reference, why an image must be signed."""

    source: Source
    rules: Mapping[str, Rule]
    keys: tuple[Key, ...]

    @property
    def name(self) -> str:
        return self.source.name

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        """As `sources.Source`; Refused "trust-*" for an image that must be signed and is not."""
        base = self.source.base(ref, arch, pull, also)
        if ref in self.rules:
            # the signature of one platform says nothing about the others of an index
            single = () if also is not None and base.index else (base.digest,)
            digests = (*((base.index.digest,) if base.index else ()), *single)
            self._check(ref, digests)
            intact(base)
        return base

    def pin(self, ref: str, arch: str, pull: bool = False) -> Pin:
        found = self.source.pin(ref, arch, pull)
        if ref in self.rules:
            for digest in (found,) if isinstance(found, str) else tuple(found.values()):
                self._check(ref, (digest,))
        return found

    def names(self) -> Iterable[str]:
        return self.source.names()

    def signatures(self, name: str, digest: str) -> Iterator[Signed]:
        return self.source.signatures(name, digest)

    def _check(self, ref: str, digests: Collection[str]) -> None:
        asked, rule = reference.parse(ref), self.rules[ref]
        why = f"{rule} at {rule.where}"
        first = next(iter(digests))
        pin = f"{asked.name}@{first}"
        if asked.digest:
            if asked.digest not in digests:
                raise Refused(
                    "trust-digest",
                    f"{ref} is pinned by digest, but {self.name} has {first} under that name",
                    hint="build from a registry or an OCI layout that knows it; an engine keeps no digests",
                )
            return
        if not self.keys:
            raise Refused(
                "trust-no-key",
                f"{ref} must be signed ({why}), and no key is configured to tell",
                hint=f"images.trust_keys: [cosign.pub], or pin it: {pin}",
            )
        faults = list(self._faults(asked.name, digests, f"{ref} must be signed ({why}), and its signature is not here"))
        if "" in faults:
            return
        sign = f"cosign sign --key cosign.key {pin}"
        if not faults:
            raise Refused(
                "trust-unsigned",
                f"{ref} must be signed ({why}), and there is no signature of {first}",
                hint=f"{sign}; or pin it: {pin}",
            )
        raise Refused(
            "trust-signature",
            f"{ref} must be signed ({why}), and no signature of {first} is valid: {'; '.join(dict.fromkeys(faults))}",
            hint=f"{sign}; or, if this is the image that you want, pin it: {pin}",
        )

    def _faults(self, name: str, digests: Collection[str], otherwise: str) -> Iterator[str]:
        """What is wrong with each signature, in the order of the sources; ends with "" at the first valid one."""
        from pxeserver.images import cosign

        try:
            for digest in digests:
                for layout, manifest in self.source.signatures(name, digest):
                    for fault in cosign.check(layout, manifest, digests, self.keys):
                        yield fault
                        if not fault:
                            return
        except Unreachable as error:
            error.hint = otherwise
            raise
