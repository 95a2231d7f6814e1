"""Layout folders as sources, the order of looking, and credentials as docker keeps them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from imagelab import Bases, file

from pxeserver.config import Config, Server
from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.images import oci
from pxeserver.images.credentials import Login, login
from pxeserver.images.layers import BaseImage
from pxeserver.images.oci import Descriptor
from pxeserver.images.sources import Chain, LayoutSource, Platforms, open_source
from pxeserver.images.store import Store


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path / "bases")


def test_a_layout_is_named_by_its_folder(bases: Bases) -> None:
    bases.image("l/a:1", [file("x")])
    config = Config(server=Server(data="/nowhere"))
    source = open_source(f"oci:{bases.root}", Store(Path("/nowhere")), config)
    assert source.base("docker.io/l/a:1", "amd64").ref == "docker.io/l/a:1"
    with pytest.raises(
        NotFound, match=f'no base image "docker.io/l/b:1" in {bases.root} - did you mean "docker.io/l/a:1"'
    ):
        source.base("docker.io/l/b:1", "amd64", pull=True)


def test_a_layout_knows_digests_and_latest_as_a_registry_would(bases: Bases) -> None:
    bases.image("l/a:latest", [file("x")])
    bases.image("l/m:1", [file("m")], arch="arm64")
    other = bases.named("docker.io/l/m:1")[0].digest
    index = bases.add_json(oci.INDEX, {"schemaVersion": 2, "manifests": [e.json() for e in bases.index()]})
    source = LayoutSource(bases, "bases")
    latest = source.base("docker.io/l/a", "amd64")
    assert latest.digest == source.base("docker.io/l/a:latest", "amd64").digest
    assert source.base(f"docker.io/l/other@{other}", "amd64").digest == other, "the digest decides"
    assert source.base(f"docker.io/l/a:latest@{index.digest}", "arm64").digest == other, "of an index too"
    layer = bases.blobs_of(bases.named("docker.io/l/m:1")[0])[1].digest
    for ref in (f"l/a@{layer}", "l/a@sha256:" + "0" * 64, "l/a@sha512:" + "0" * 128, "l/m", "localhost:5000/a"):
        with pytest.raises(PxeServerError):
            source.base(ref if "localhost" in ref else f"docker.io/{ref}", "amd64")


@pytest.mark.parametrize(
    ("text", "slug"), [("oci:/nowhere", "source-not-found"), ("regystry", "source-unknown"), ("oci:", "source-unknown")]
)
def test_sources_that_are_none(text: str, slug: str) -> None:
    with pytest.raises(PxeServerError) as caught:
        open_source(text, Store(Path("/nowhere")), Config())
    assert caught.value.slug == slug


class Asked:
    """A last source that knows nothing, and remembers what it was asked."""

    name = "elsewhere"

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def base(self, ref: str, arch: str, pull: bool = False, also: Platforms = None) -> BaseImage:
        self.asked.append((ref, pull))
        raise NotFound("base-not-found", "not here")

    def names(self) -> list[str]:
        return ["docker.io/l/there:1"]


def test_the_store_goes_first_unless_pull_is_said(bases: Bases) -> None:
    bases.image("l/a:1", [file("x")])
    last = Asked()
    chain = Chain((LayoutSource(bases, "the local store"), last))
    assert chain.base("docker.io/l/a:1", "amd64").layers
    assert last.asked == []
    with pytest.raises(NotFound, match="no base image .* in the local store, elsewhere") as caught:
        chain.base("docker.io/l/a:1", "amd64", pull=True)
    assert last.asked == [("docker.io/l/a:1", True)]
    assert 'did you mean "docker.io/l/a:1"' in caught.value.message


def test_an_image_with_a_blob_missing_counts_as_absent(bases: Bases) -> None:
    image = bases.image("l/a:1", [file("x")])
    bases.blob_path(image.layers[0].digest).unlink()
    last = Asked()
    with pytest.raises(NotFound):
        Chain((LayoutSource(bases, "store"), last)).base("docker.io/l/a:1", "amd64")
    assert last.asked == [("docker.io/l/a:1", False)]


def test_an_index_of_which_the_chosen_platform_is_absent_counts_as_absent(bases: Bases) -> None:
    there = bases.image("l/x:1", [file("x")]).manifest
    assert there is not None
    gone = Descriptor(oci.MANIFEST, "sha256:" + "0" * 64, 5, platform={"os": "linux", "architecture": "arm64"})
    body = {"manifests": [there.json(), gone.json()]}
    bases.tag("docker.io/l/multi:1", bases.add_json(oci.INDEX, body))
    source = LayoutSource(bases, "store")
    assert source.base("docker.io/l/multi:1", "amd64").digest == there.digest
    for arch, also in (("arm64", None), ("amd64", ()), ("amd64", ("linux/arm64",))):
        with pytest.raises(NotFound) as caught:
            source.base("docker.io/l/multi:1", arch, also=also)
        assert caught.value.slug == "base-not-found"


def test_a_manifest_of_the_old_schema_is_refused(bases: Bases) -> None:
    bases.tag("docker.io/l/old:1", bases.add_json(oci.MANIFEST, {"schemaVersion": 1, "fsLayers": []}))
    with pytest.raises(PxeServerError) as caught:
        LayoutSource(bases, "store").base("docker.io/l/old:1", "amd64")
    assert caught.value.slug == "oci-malformed"


def docker_config(tmp_path: Path, **config: object) -> dict[str, str]:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(tmp_path)}


def auth(user: str, secret: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


def test_logins_by_registry(tmp_path: Path) -> None:
    env = docker_config(
        tmp_path,
        auths={
            "reg:5000": auth("alice", "a:b"),
            "https://index.docker.io/v1/": auth("hub", "x"),
            "token": {"identitytoken": "T", "auth": ""},
            "split": {"username": "u", "password": "p"},
            "broken": {"auth": "%%%"},
            "empty": {},
        },
    )
    assert login("reg:5000", env) == Login("alice", "a:b")
    assert login("docker.io", env) == Login("hub", "x")
    found = login("token", env)
    assert found is not None
    assert found.token == "T"
    assert login("split", env) == Login("u", "p")
    for nobody in ("broken", "empty", "other"):
        assert login(nobody, env) is None


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"auths": null}'])
def test_a_config_that_says_nothing_is_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert login("x", {"DOCKER_CONFIG": str(tmp_path)}) is None
    assert login("x", {"HOME": str(tmp_path / "nobody")}) is None


def test_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread key\n[ "$key" = reg ] && echo \'{"Username": "h", "Secret": "s"}\' || exit 1\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    env = docker_config(tmp_path, credHelpers={"reg": "test"}, credsStore="missing", auths={"plain": auth("p", "q")})
    assert login("reg", env) == Login("h", "s")
    assert login("plain", env) == Login("p", "q"), "a helper that is missing is passed over"


def test_a_bad_reference_is_a_usage_error(bases: Bases, tmp_path: Path) -> None:
    source = open_source("registry", Store(tmp_path / "s"), Config(server=Server(data=str(tmp_path))))
    with pytest.raises(UsageError) as caught:
        source.base("docker.io/l/a@sha512:" + "0" * 128, "amd64")
    assert caught.value.slug == "digest-unknown"
