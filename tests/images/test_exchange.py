"""Built images to a real registry and back: what is sent, what is checked, what a broken line costs."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from imagelab import KERNEL, Lab, file
from pushlab import LOST, Between
from registrylab import HTPASSWD, PASSWORD, USER, Front, Registry, certificate, token_server

from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, UsageError
from pxeserver.images import exchange, oci, registryhttp, registrypush
from pxeserver.images.catalogue import ARTIFACT, INITRD, Catalogue
from pxeserver.images.catalogue import KERNEL as KERNEL_TYPE
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Silent
from pxeserver.images.store import Store
from pxeserver.model import Image

pytestmark = pytest.mark.server

BIG = random.Random(5).randbytes(3_000_000)
SPEC = 'kernel: {image: "l/kernel:1", cmdline: "quiet"}\ninit: ["l/big:1"]\n'


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registryhttp, "_RETRIES", (0.01, 0.02))
    monkeypatch.setattr(registrypush, "_CHUNK", 1 << 20)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


class Home(Lab):
    """A lab that has built one image."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/big:1", [file("big", BIG)], packed="none")
        built = self.build(SPEC, tags=("v1",)).image
        assert built is not None
        self.image: Image = built
        self.catalogue = Catalogue(self.store)

    def push(self, ref: str, **more: Any) -> exchange.Pushed:
        return exchange.push(self.catalogue, self.image, ref, Silent(), **more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def away(tmp_path: Path) -> Catalogue:
    return Catalogue(Store(tmp_path / "away" / "store"))


def pull(catalogue: Catalogue, ref: str, **more: Any) -> Image:
    return exchange.pull(catalogue, ref, Silent(), **more)


def bare(image: Image) -> tuple[Any, ...]:
    return (image.digest, image.spec, image.kernel, image.initrd, image.cmdline, image.arch)


def blobs(store: Store) -> set[str]:
    folder = store.root / "blobs" / "sha256"
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def test_there_and_back(home: Home, away: Catalogue, registry: Registry) -> None:
    done = home.push(f"{registry.host}/images/web:v1")
    assert (done.ref, done.known) == (f"{registry.host}/images/web:v1", 0)
    assert done.sent > len(BIG)
    came = pull(away, done.ref)
    assert bare(came) == bare(home.image)
    assert came.tags == ("web:v1",)
    mine, theirs = home.catalogue.details(home.image), away.details(came)
    assert (theirs.manifest, theirs.spec_text, theirs.facts) == (mine.manifest, mine.spec_text, mine.facts)
    assert pull(away, f"{registry.host}/images/web@{done.digest}", tags=["mine"]).tags == ("web:mine", "web:v1")


def test_other_tools_see_an_artifact(home: Home, registry: Registry) -> None:
    home.push(f"{registry.host}/seen/web:v1")
    answer = httpx.get(f"{registry.url}/v2/seen/web/manifests/v1", headers={"accept": oci.MANIFEST})
    body = answer.json()
    assert (answer.headers["content-type"], body["artifactType"]) == (oci.MANIFEST, ARTIFACT)
    assert {KERNEL_TYPE, INITRD} <= {layer["mediaType"] for layer in body["layers"]}


def test_only_what_the_registry_lacks_is_sent(home: Home, registry: Registry) -> None:
    first = home.push(f"{registry.host}/twice/web:v1")
    again = home.push(f"{registry.host}/twice/web:v2")
    assert (again.sent, again.known, again.digest) == (0, first.sent, first.digest)


def test_an_image_by_its_digest_has_no_tag(home: Home, away: Catalogue, registry: Registry) -> None:
    done = home.push(f"{registry.host}/plain/web")
    assert done.ref.endswith("/plain/web:latest")
    came = pull(away, f"{registry.host}/plain/web@{done.digest}")
    assert (came.tags, away.get("web").digest) == ((), home.image.digest)
    assert pull(away, f"{registry.host}/plain/web").tags == ("web:latest",)


def test_a_pull_again_changes_no_age(home: Home, away: Catalogue, registry: Registry) -> None:
    ref = home.push(f"{registry.host}/age/web:v1").ref
    first = pull(away, ref)
    assert pull(away, ref).created == first.created


def test_a_refused_chunk_is_sent_again_and_nothing_else(home: Home, registry: Registry, away: Catalogue) -> None:
    patches: list[str] = []

    def trouble(method: str, path: str) -> int:
        if method == "PATCH":
            patches.append(path)
        return 503 if method == "PATCH" and len(patches) in (2, 4) else 0

    with Between(registry, trouble) as front:
        ref = home.push(f"{front.host}/broken/web:v1").ref
        whole = sum(b.size for b in (home.image.kernel, home.image.initrd))
        assert whole < front.received <= whole + 3 * (1 << 20)
        assert bare(pull(away, ref)) == bare(home.image)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_chunk_whose_answer_was_lost(home: Home, registry: Registry, away: Catalogue, remembers: bool) -> None:
    patches: list[str] = []

    def trouble(method: str, path: str) -> int:
        if method == "PATCH":
            patches.append(path)
        return LOST if method == "PATCH" and len(patches) == 3 else 0

    with Between(registry, trouble, remembers=remembers) as front:
        ref = home.push(f"{front.host}/lost{remembers:d}/web:v1").ref
        uploads = [(method, path) for method, path in front.calls if "/uploads/" in path]
        assert [method for method, _ in uploads].count("GET") == 1, "the upload's state was asked for"
        twice = front.received - sum(b.size for b in (home.image.kernel, home.image.initrd))
        assert (twice < 10_000) is remembers
        assert bare(pull(away, ref)) == bare(home.image)


def test_a_registry_that_forgot_the_upload_gets_it_anew(home: Home, registry: Registry, away: Catalogue) -> None:
    seen: list[str] = []

    def trouble(method: str, path: str) -> int:
        if method in ("PATCH", "GET") and "/uploads/" in path:
            seen.append(method)
            return {4: 500, 5: 404}.get(len(seen), 0)
        return 0

    with Between(registry, trouble) as front:
        ref = home.push(f"{front.host}/forgot/web:v1").ref
        assert seen[3:5] == ["PATCH", "GET"]
        assert bare(pull(away, ref)) == bare(home.image)


def test_a_registry_that_refuses_says_why(home: Home, registry: Registry) -> None:
    with Between(registry, lambda method, path: 413 if method == "PATCH" else 0) as front:
        with pytest.raises(Refused, match="refuses refused/web: it answers 413") as caught:
            home.push(f"{front.host}/refused/web:v1")
        assert caught.value.slug == "registry-refused"


def test_a_broken_pull_goes_on_where_it_broke(home: Home, registry: Registry, away: Catalogue) -> None:
    home.push(f"{registry.host}/resume/web:v1")
    initrd = f"/v2/resume/web/blobs/{home.image.initrd.digest}"

    def misbehave(path: str, attempt: int) -> tuple[int, int]:
        return (0, 1_000_000) if path == initrd and attempt == 1 else (0, 0)

    with Front(registry, misbehave) as front:
        pull(away, f"127.0.0.1:{front.server_port}/resume/web:v1")
        ranges = front.asked[initrd]
        assert len(ranges) == 2 and ranges[1].startswith("bytes=") and int(ranges[1][6:-1]) > 500_000


def test_a_registry_that_stays_away(home: Home, away: Catalogue) -> None:
    with pytest.raises(Unreachable) as caught:
        home.push("127.0.0.1:1/x/web:v1")
    assert caught.value.slug == "registry-unreachable"
    with pytest.raises(Unreachable):
        pull(away, "127.0.0.1:1/x/web:v1")


def test_what_is_not_there(away: Catalogue, registry: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        pull(away, f"{registry.host}/absent/web:v1")
    assert caught.value.slug == "image-not-found"


@pytest.mark.parametrize(("ref", "slug"), [("web:v1", "push-where"), ("a/web@sha256:" + "0" * 64, "push-to-digest")])
def test_where_nothing_can_be_pushed(home: Home, ref: str, slug: str) -> None:
    with pytest.raises(UsageError) as caught:
        home.push(ref)
    assert caught.value.slug == slug


def test_a_base_image_is_no_built_image(home: Home, away: Catalogue, registry: Registry) -> None:
    registry.push(home.bases, "docker.io/l/big:1", "l/big", "1")
    with pytest.raises(Refused) as caught:
        pull(away, f"{registry.host}/l/big:1")
    assert caught.value.slug == "image-foreign"
    assert (away.list(), blobs(away.store)) == ((), set()), "nothing of it stays"


def test_an_image_that_lies_about_its_content_is_refused(home: Home, away: Catalogue, registry: Registry) -> None:
    """Every blob is what its digest says, but together they are not the image that the config claims."""
    store = home.store
    entry = next(e for e in store.index() if e.artifact_type == ARTIFACT)
    body = store.read_json(entry.digest)
    longer = store.add_bytes(store.read_blob(home.image.initrd.digest) + b"more")
    for layer in body["layers"]:
        if layer["mediaType"] == INITRD:
            layer.update(digest=longer.digest, size=longer.size)
    forged = store.add_json(oci.MANIFEST, body)
    store.tag("forged", forged)
    registry.push(store, "forged", "l/forged", "1")
    with pytest.raises(PxeServerError, match="goes on after its last segment") as caught:
        pull(away, f"{registry.host}/l/forged:1")
    assert caught.value.slug == "image-damaged"
    assert (away.list(), blobs(away.store)) == ((), set())


def test_a_registry_that_wants_a_login(home: Home, away: Catalogue, tmp_path: Path, monkeypatch: Any) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    with Registry(tmp_path / "r", {"htpasswd": {"realm": "tests", "path": str(users)}}) as registry:
        with pytest.raises(Refused, match="does not let us"):
            home.push(f"{registry.host}/private/web:v1")
        _login(tmp_path / "docker", registry.host)
        ref = home.push(f"{registry.host}/private/web:v1").ref
        assert bare(pull(away, ref)) == bare(home.image)


def test_a_token_for_reading_is_changed_for_one_for_writing(home: Home, away: Catalogue, tmp_path: Path) -> None:
    with token_server(tmp_path / "t") as (auth, seen), Registry(tmp_path / "r", auth) as registry:
        _login(tmp_path / "docker", registry.host)
        ref = home.push(f"{registry.host}/private/web:v1").ref
        scopes = {frozenset(asked["scope"].rpartition(":")[2].split(",")) for asked in seen}
        assert scopes == {frozenset({"pull"}), frozenset({"pull", "push"})}, "named in any order"
        assert bare(pull(away, ref)) == bare(home.image)


def test_over_tls(home: Home, away: Catalogue, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    with Registry(tmp_path / "r", tls=tls) as registry:
        cert = Path(tls["certificate"])
        ref = home.push(f"{registry.host}/tls/web:v1", cert_file=cert).ref
        assert bare(pull(away, ref, cert_file=cert)) == bare(home.image)


def _login(folder: Path, host: str) -> None:
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_mirror_is_asked_first(home: Home, away: Catalogue, registry: Registry) -> None:
    home.push(f"{registry.host}/mirrored/web:v1")
    came = pull(away, "registry.example/mirrored/web:v1", mirrors=[f"registry.example={registry.url}"])
    assert bare(came) == bare(home.image)


def test_manifests_and_blobs_are_kept_when_asked_by_digest(home: Home, registry: Registry) -> None:
    """The manifest that arrives is, byte for byte, the one that was sent."""
    done = home.push(f"{registry.host}/bytes/web:v1")
    raw = httpx.get(f"{registry.url}/v2/bytes/web/manifests/{done.digest}", headers={"accept": oci.MANIFEST}).content
    assert raw == home.store.read_blob(done.digest)
    assert Descriptor(oci.MANIFEST, done.digest, len(raw)).digest == done.digest
