"""Two images compared: settings, base images and every path, by what the kernel makes of the initrd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Lab, device, file, folder, symlink

from pxeserver.errors import PxeServerError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.diff import Change, ImageDiff, diff
from pxeserver.images.progress import Silent
from pxeserver.model import Image

SPEC = 'kernel: {image: "l/kernel:1", cmdline: "%s"}\ninit: ["%s"]\nfiles: [%s]\n'


class Home(Lab):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bases.image("l/kernel:1", KERNEL)
        same = [folder("d"), file("d/same", b"s"), symlink("l", "a"), device("n")]
        self.bases.image("l/init:1", [*same, file("gone", b"g"), file("m", b"m"), file("c", b"one"), file("k", b"k")])
        self.bases.image(
            "l/init:2",
            [folder("d"), file("d/same", b"s", mtime=5), symlink("l", "b"), device("n", minor=4), file("new", b"n")],
            [file("m", b"m", 0o600, uid=7), file("c", b"three"), folder("k")],
        )
        self.catalogue = Catalogue(self.store)

    def make(self, cmdline: str = "quiet", init: str = "l/init:1", files: str = "", **more: Any) -> Image:
        image = self.build(SPEC % (cmdline, init, files), **more).image
        assert image is not None
        return image

    def diff(self, a: Image, b: Image) -> ImageDiff:
        first, second = (self.catalogue.details(i) for i in (a, b))
        return diff(self.store, first, second, Silent())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_every_kind_of_difference(home: Home) -> None:
    found = home.diff(home.make(), home.make("debug", "l/init:2"))
    assert found.settings == (Change("cmdline", "quiet", "debug"),)
    (base,) = found.bases
    assert (base.name, base.before.split()[0], base.after.split()[0]) == (
        "init[0]",
        "docker.io/l/init:1",
        "docker.io/l/init:2",
    )
    assert found.added == (Change("/new", "", "file 0644 0:0 1 bytes"),)
    assert found.removed == (Change("/gone", "file 0644 0:0 1 bytes", ""),)
    assert {c.name: c.what for c in found.changed} == {
        "/c": ("content, 3 -> 5 bytes",),
        "/k": ("file -> folder",),
        "/l": ("a -> b",),
        "/m": ("mode 0644 -> 0600", "owner 0:0 -> 7:0"),
        "/n": ("1:3 -> 1:4",),
    }
    assert not found.same


def test_the_same_image_is_the_same(home: Home) -> None:
    image = home.make()
    assert home.diff(image, image).same
    assert home.diff(image, image) == ImageDiff(image.short, image.short, (), (), (), (), ())


def test_the_last_entry_of_a_path_counts(home: Home) -> None:
    """The files section comes after the image and replaces what it has."""
    found = home.diff(home.make(), home.make(files="{path: c, contents: one, mode: '0644'}"))
    assert (found.added, found.removed, found.changed) == ((), (), ())


def test_compression_is_no_difference(home: Home) -> None:
    first = home.make()
    second = home.make("debug", compression="zstd")
    assert [c.name for c in home.diff(first, second).settings] == ["cmdline"]
    assert home.diff(first, second).changed == ()


def test_microcode_before_the_initrd(home: Home) -> None:
    home.bases.image("l/kernel:1", [*KERNEL, file("u.cpio", b"microcode")])
    first = home.make()
    spec = 'kernel: {image: "l/kernel:1", cmdline: quiet, ucode: u.cpio}\ninit: ["l/init:1"]\n'
    second = home.build(spec).image
    assert second is not None
    found = home.diff(first, second)
    assert [(c.name, c.before) for c in found.settings] == [("microcode", "")]
    assert (found.added, found.removed, found.changed) == ((), (), ())


def test_names_that_are_no_text(home: Home) -> None:
    home.bases.image("l/init:2", [file("a\udcff", b"x")])
    found = home.diff(home.make(), home.make(init="l/init:2"))
    assert "/a\\xff" in {c.name for c in found.added}


def test_a_damaged_initrd(home: Home) -> None:
    first, second = home.make(), home.make("debug", files="{path: etc/x, contents: x}")
    path = home.store.blob_path(second.initrd.digest)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PxeServerError) as caught:
        home.diff(first, second)
    assert caught.value.slug == "image-damaged"
