"""Signatures in a real registry, where cosign puts them: fetched, kept, tampered with, cleared away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Lab, file
from registrylab import Registry
from signlab import Signer, tag

from pxeserver.checked import replace
from pxeserver.config import Images
from pxeserver.errors import PxeServerError, Refused, Unreachable
from pxeserver.images import gc, registryhttp
from pxeserver.images.sources import open_source

pytestmark = pytest.mark.server


class Site(Lab):
    """A registry with one kernel and two versions of an image; the spec trusts only signed ones."""

    def __init__(self, path: Path, registry: Registry) -> None:
        super().__init__(path)
        self.path, self.registry = path, registry
        self.org = path.name.replace("_", "-")  # its own in the registry that all tests share
        self.signer = Signer(path / "keys")
        self.trusting(self.signer)
        self.bases.image("l/kernel:1", KERNEL)
        self.image = f"{registry.host}/{self.org}/init:1"
        self.name = f"{registry.host}/{self.org}/init"
        self.digest = self.publish(b"init")
        registry.push(self.bases, "docker.io/l/kernel:1", "l/kernel", "1")
        self.spec = (
            f"kernel: {{image: '{registry.host}/l/kernel:1'}}\ninit:\n  - {self.image}\ntrust:\n  org: [{self.org}]\n"
        )

    def trusting(self, *signers: Signer) -> None:
        keys = tuple(str(s.public) for s in signers)
        self.config = replace(self.config, images=Images(trust_keys=keys))

    def publish(self, content: bytes) -> str:
        """init:1 of this content in the registry; its digest."""
        base = self.bases.image("l/init:1", [file("init", content)])
        self.registry.push(self.bases, "docker.io/l/init:1", f"{self.org}/init", "1")
        return base.digest

    def sign(self, digest: str, signer: Signer | None = None, **more: Any) -> None:
        folder = self.path / f"sig-{digest[7:15]}-{len(list(self.path.iterdir()))}"
        (signer or self.signer).into_registry(self.registry, folder, f"{self.org}/init", digest, **more)

    def make(self, **more: Any) -> Any:
        source = open_source(more.pop("kind", ""), self.store, self.config, mirrors=more.pop("mirrors", ()))
        return self.build(self.spec, source=source, **more).image

    def refused(self, **more: Any) -> PxeServerError:
        with pytest.raises(PxeServerError) as caught:
            self.make(**more)
        return caught.value


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(registryhttp, "_RETRIES", (0.01,))
    path = tmp_path_factory.mktemp("site")
    monkeypatch.setenv("DOCKER_CONFIG", str(path / "docker"))
    return Site(path, registry)


def test_signed_or_not(site: Site) -> None:
    error = site.refused()
    assert (type(error), error.slug, str(error.where)) == (Refused, "trust-unsigned", "web.yml:3:5: init[0]")
    assert site.image in error.message and site.digest in error.hint
    site.sign(site.digest)
    assert site.make() is not None


def test_a_tag_that_was_moved_is_refused(site: Site) -> None:
    site.sign(site.digest)
    assert site.make() is not None
    other = site.publish(b"evil")
    error = site.refused(pull=True)
    assert (error.slug, other in error.message) == ("trust-unsigned", True)
    site.sign(other, text=site.signer.payload(site.digest))
    assert site.refused(pull=True).slug == "trust-signature"
    site.sign(other)
    assert site.make(pull=True) is not None


def test_the_key_of_somebody_else_is_refused(site: Site) -> None:
    site.sign(site.digest, Signer(site.path / "keys", "other"))
    error = site.refused()
    assert (error.slug, f"it was not made with {site.signer.public}" in error.message) == ("trust-signature", True)


def test_a_tampered_signature_is_refused(site: Site) -> None:
    good = site.signer.sign(site.signer.payload(site.digest))
    site.sign(site.digest, signature=good[:20] + ("A" if good[20] != "A" else "B") + good[21:])
    assert site.refused().slug == "trust-signature"


def test_a_better_signature_replaces_the_one_that_was_kept(site: Site) -> None:
    site.sign(site.digest, Signer(site.path / "keys", "other"))
    assert site.refused().slug == "trust-signature"
    site.sign(site.digest)
    assert site.make() is not None


def test_what_was_signed_once_is_built_without_the_registry(site: Site, registry: Registry) -> None:
    site.sign(site.digest)
    assert site.make() is not None
    registry.stop()
    try:
        assert site.make() is not None
    finally:
        registry.start()


def test_an_image_from_the_store_whose_signature_cannot_be_asked_for(site: Site, registry: Registry) -> None:
    site.config = replace(site.config, images=Images())
    trusting = site.spec
    site.spec = trusting.partition("trust:")[0]
    assert site.make() is not None
    site.spec = trusting
    site.trusting(site.signer)
    registry.stop()
    try:
        error = site.refused()
    finally:
        registry.start()
    assert isinstance(error, Unreachable) and "must be signed" in error.hint


def test_a_mirror_brings_signatures_too(site: Site, registry: Registry) -> None:
    site.sign(site.digest)
    site.spec = site.spec.replace(registry.host, "registry.example")
    assert site.make(mirrors=[f"registry.example={registry.url}"]) is not None


def test_signatures_go_with_their_images(site: Site) -> None:
    """gc keeps them as long as the image is here; they are no base images."""
    site.sign(site.digest)
    site.make()
    name = f"{site.name}:{tag(site.digest)}"
    assert [e.ref for e in site.store.index() if e.ref.endswith(".sig")] == [name]
    assert name not in open_source("", site.store, site.config).names()
    gc.collect(site.store, lambda: (), now=1e10)
    assert site.make() is not None
    site.store.remove(site.image)
    gc.collect(site.store, lambda: (), now=1e10)
    assert [e.ref for e in site.store.index() if e.ref.endswith(".sig")] == []
    used = site.store.references(site.store.index())
    assert {f"sha256:{p.name}" for p in (site.store.root / "blobs" / "sha256").iterdir()} == used
