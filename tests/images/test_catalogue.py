"""Built images by name, tag and digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pxeserver.errors import NotFound, Refused, UsageError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.images.verify import verify
from pxeserver.model import Blob, Image


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(Store(tmp_path / "store"))


def built(catalogue: Catalogue, spec: str, content: str, created: float, *tags: str) -> Image:
    kernel, initrd = catalogue.store.add_bytes(b"kernel"), catalogue.store.add_bytes(content.encode())
    digest = "sha256:" + (content.encode().hex() * 64)[:64]
    image = Image(digest, spec, kernel, Blob(initrd.digest, initrd.size, 99), "console=ttyS0", "amd64")
    return catalogue.add(image, spec_text=f"# {spec}\n".encode(), tags=tags, created=created, facts={"strict": False})


def test_what_was_added_is_read_back_by_another_process(catalogue: Catalogue) -> None:
    image = built(catalogue, "web", "one", 5.0, "v1")
    again = Catalogue(Store(catalogue.store.root)).list()
    assert again == (image,)
    assert (image.created, image.tags, image.initrd.raw_size) == (5.0, ("web:latest", "web:v1"), 99)
    details = catalogue.details(image)
    assert (details.spec_text, details.facts["strict"], details.sbom) == ("# web\n", False, None)


def test_a_uki_belongs_to_its_image_until_another_is_made(catalogue: Catalogue) -> None:
    image = built(catalogue, "web", "one", 5.0, "v1")
    first, second = catalogue.store.add_bytes(b"first"), catalogue.store.add_bytes(b"second")
    with_first = catalogue.with_uki(image, first)
    assert with_first == replace(image, uki=Blob(first.digest, 5, 5))
    assert built(catalogue, "web", "one", 6.0).uki == with_first.uki  # the same content built again
    with_second = catalogue.with_uki(with_first, second)
    assert [i.uki for i in Catalogue(Store(catalogue.store.root)).list()] == [with_second.uki]
    assert with_second.tags == ("web:latest", "web:v1")
    assert not catalogue.store.has(first.digest) and catalogue.store.has(second.digest)
    catalogue.store.blob_path(second.digest).write_bytes(b"broken")
    assert any("UKI" in fault and "is damaged" in fault for fault in verify(catalogue, with_second, lambda _: None))
    assert catalogue.remove("web@" + image.digest)[0].digest == image.digest
    assert not catalogue.store.has(second.digest)


def test_latest_moves_with_each_build_and_the_older_image_stays(catalogue: Catalogue) -> None:
    old, new = built(catalogue, "web", "one", 1.0), built(catalogue, "web", "two", 2.0)
    assert [i.digest for i in catalogue.list()] == [new.digest, old.digest]
    assert catalogue.newest("web") == new
    assert catalogue.get("web") == catalogue.get("web:latest") == new
    assert catalogue.get(old.digest).tags == ()
    back = built(catalogue, "web", "one", 3.0)
    assert (back.digest, back.created, back.tags) == (old.digest, 3.0, ("web:latest",))
    assert catalogue.newest("web") == back
    assert catalogue.newest("none") is None


def test_the_same_content_from_other_bases_is_the_same_image_with_the_newer_facts(catalogue: Catalogue) -> None:
    image = built(catalogue, "web", "one", 1.0, "v1")
    again = catalogue.add(image, spec_text=b"# web\n", created=2.0, facts={"strict": True})
    assert catalogue.list() == (again,)
    assert (again.digest, again.created, again.tags) == (image.digest, 2.0, ("web:latest", "web:v1"))
    assert catalogue.details(again).facts["strict"] is True


def test_names_that_a_person_types(catalogue: Catalogue) -> None:
    image = built(catalogue, "web", "one", 1.0, "v1")
    other = built(catalogue, "db", "two", 1.0)
    hexa = image.digest.removeprefix("sha256:")
    for text in ("web", "web:v1", "web@" + hexa[:4], hexa[:8], image.digest, f"web@{image.digest}", image.short):
        assert catalogue.get(text) == image, text
    with pytest.raises(NotFound, match='no image "webb" - did you mean "web"') as caught:
        catalogue.get("webb")
    assert caught.value.hint == "pxeserver build webb"
    with pytest.raises(NotFound):
        catalogue.get("db@" + hexa[:8])
    assert catalogue.get(other.short) == other


def test_a_short_digest_that_fits_two_images_is_refused(catalogue: Catalogue) -> None:
    a, b = (Image(f"sha256:abcd{n}" + "0" * 59, n, Blob("", 0), Blob("", 0), "", "amd64") for n in "12")
    for image in (a, b):
        blob = catalogue.store.add_bytes(image.spec.encode())
        catalogue.add(Image(image.digest, image.spec, blob, blob, "", "amd64"), spec_text=b"")
    with pytest.raises(Refused) as caught:
        catalogue.get("abcd")
    assert caught.value.slug == "image-ambiguous"
    assert catalogue.get("abcd2").spec == "2"


def test_tags_move_and_say_who_had_them(catalogue: Catalogue) -> None:
    old, new = built(catalogue, "web", "one", 1.0), built(catalogue, "web", "two", 2.0)
    assert catalogue.tag(old.digest, "stable") == (catalogue.get("web:stable"), "")
    image, before = catalogue.tag(new.digest, "web:stable")
    assert (image.tags, before) == (("web:latest", "web:stable"), old.short)
    assert catalogue.get(old.digest).tags == ()
    for bad in ("a b", "web:", ":x", "-x", "a/b:c"):
        with pytest.raises(UsageError, match="is no tag"):
            catalogue.tag("web", bad)


def test_removing_a_tag_and_removing_an_image(catalogue: Catalogue) -> None:
    old = built(catalogue, "web", "one", 1.0)
    new = built(catalogue, "web", "two", 2.0, "v2")
    assert catalogue.remove("web:v2")[1] == 0
    assert catalogue.get("web").tags == ("web:latest",)
    _, freed = catalogue.remove(new.digest)
    assert freed > 0
    assert not catalogue.store.has(new.initrd.digest)
    assert catalogue.store.has(old.kernel.digest), "shared by both"
    assert catalogue.newest("web") == catalogue.get(old.digest)


def test_the_stamp_moves_with_every_change(catalogue: Catalogue) -> None:
    seen = [catalogue.stamp()]
    image = built(catalogue, "web", "one", 1.0)
    seen.append(catalogue.stamp())
    catalogue.tag("web", "x")
    seen.append(catalogue.stamp())
    catalogue.remove(image.digest)
    seen.append(catalogue.stamp())
    assert len(set(seen)) == 4
    assert catalogue.stamp() == seen[-1]
