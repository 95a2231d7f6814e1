"""What gc leaves alone, and what it removes: tags, what machines need, what is young, what somebody is fetching."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from imagelab import KERNEL, Lab, file

from pxeserver.errors import NotFound
from pxeserver.images import gc
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.oci import LAYER, Descriptor
from pxeserver.images.store import Store
from pxeserver.model import Digest, Image

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "%s"}\ninit: ["l/init:1"]\n'
LATER = 1e10  # everything is old by then


class Home(Lab):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases.image("l/kernel:1", KERNEL)
        self.bases.image("l/init:1", [file("init", b"init")])
        self.catalogue = Catalogue(self.store)

    def make(self, cmdline: str) -> Image:
        """Each one takes the tag web:latest."""
        image = self.build(SPEC % cmdline).image
        assert image is not None
        return image

    def collect(
        self, *needed: Digest, dry_run: bool = False, now: float = LATER, grace: float = 3600.0
    ) -> gc.Collected:
        return gc.collect(self.store, lambda: needed, dry_run=dry_run, now=now, grace=grace)

    def here(self) -> list[str]:
        return sorted(i.cmdline for i in self.catalogue.list())

    def blobs(self) -> set[str]:
        return {"sha256:" + p.name for p in (self.store.root / "blobs" / "sha256").iterdir()}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_tagged_and_needed_images_stay(home: Home) -> None:
    first, second, third = (home.make(name) for name in ("first", "second", "third"))
    done = home.collect(second.digest)
    assert (done.images, home.here()) == ((first.short,), ["second", "third"])
    assert done.files == 3, "its manifest, config and spec: all else is shared"
    assert home.blobs() == home.store.references(home.store.index())
    for image in (second, third):
        assert home.catalogue.details(image).spec_text


def test_nothing_left_to_do_the_second_time(home: Home) -> None:
    home.make("first")
    home.make("second")
    assert home.collect().images
    assert home.collect() == gc.Collected((), 0, 0, dry_run=False)


def test_a_dry_run_says_the_same_and_removes_nothing(home: Home) -> None:
    home.make("first")
    home.make("second")
    home.store.add_bytes(b"nobody's")
    before = home.blobs(), home.store.index_file.read_bytes()
    told = home.collect(dry_run=True)
    assert (home.blobs(), home.store.index_file.read_bytes()) == before
    done = home.collect()
    assert (told.images, told.files, told.bytes) == (done.images, done.files, done.bytes)
    assert told.dry_run and not done.dry_run


def test_the_young_stay(home: Home) -> None:
    old, new = home.make("old"), home.make("new")
    loose = home.store.add_bytes(b"of a download under way")
    home.make("newest")
    now = home.store.blob_path(loose.digest).stat().st_mtime
    assert home.collect(now=now + 3000) == gc.Collected((), 0, 0, dry_run=False)
    assert home.store.has(loose.digest)
    done = home.collect(now=now + 3000, grace=2000)
    assert set(done.images) == {old.short, new.short}
    assert not home.store.has(loose.digest)


def test_base_images_stay_as_long_as_they_have_a_name(home: Home) -> None:
    base = home.store.add_bytes(b"layer")
    config = {"config": {}}
    home.store.write_base("docker.io/l/x:1", config, [Descriptor(LAYER, base.digest, base.size)], "amd64")
    assert home.collect().files == 0
    home.store.remove("docker.io/l/x:1")
    assert home.collect().files == 3


def test_downloads_that_nobody_works_on_go(home: Home) -> None:
    home.make("image")
    folder = home.store.root / "partial"
    folder.mkdir()
    for name in ("left", "worked-on"):
        (folder / name).write_bytes(b"half of it")
    with (folder / "worked-on").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = home.collect()
    assert (done.files, done.bytes, [p.name for p in folder.iterdir()]) == (1, 10, ["worked-on"])


def test_the_fleet_is_asked_while_the_store_is_locked(home: Home) -> None:
    """What is assigned at the same moment is seen by one of the two."""
    home.make("first")
    home.make("second")

    def needed() -> tuple[Digest, ...]:
        with (home.store.root / "index.lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return ()

    assert len(gc.collect(home.store, needed, now=LATER).images) == 1


def test_an_absent_store(tmp_path: Path) -> None:
    assert gc.collect(Store(tmp_path / "none"), lambda: ()) == gc.Collected((), 0, 0, dry_run=False)
    assert not (tmp_path / "none").exists()


def test_a_build_after_gc_makes_anew_what_is_gone(home: Home) -> None:
    """The segment cache remembers kernels and initrds that the store may have lost."""
    image = home.make("one")
    home.catalogue.remove(image.digest)
    home.collect()
    assert home.blobs() == set()
    again = home.make("one")
    assert again.digest == image.digest
    assert home.store.has(again.kernel.digest) and home.store.has(again.initrd.digest)


def test_a_build_that_loses_a_blob_to_gc_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Catalogue.add

    def add(self: Catalogue, *args: object, **more: object) -> Image:
        for path in (home.store.root / "blobs" / "sha256").iterdir():
            os.utime(path, (0, 0))
        home.collect()
        return real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalogue, "add", add)
    with pytest.raises(Exception, match="was removed meanwhile"):
        home.make("one")
    with pytest.raises(NotFound):
        home.catalogue.get("web")
