"""Segments of base images are made at once: in threads, with the same bytes and the same fault as one by one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Lab, file, folder

from pxeserver.errors import PxeServerError
from pxeserver.images import initrd
from pxeserver.images.entry import Entry
from pxeserver.images.segments import SegmentCache

NAMES = ("a", "b", "c", "d")
SPEC = "kernel: {image: 'l/kernel:1'}\ninit: ['l/a:1', 'l/b:1', 'l/c:1', 'l/d:1', 'l/b:1']\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Four init images, each with a package database; `d` is by far the largest."""
    made, rand = Lab(tmp_path), random.Random(7)
    made.bases.image("l/kernel:1", KERNEL)
    apk = [folder("lib"), folder("lib/apk"), folder("lib/apk/db")]
    for name in NAMES:
        size = 3 << 20 if name == "d" else 1000
        data = file("lib/apk/db/installed", f"P:{name}".encode())
        made.bases.image(f"l/{name}:1", [*apk, data, *(file(f"{name}{n}", rand.randbytes(size)) for n in range(4))])
    return made


def segments(lab: Lab) -> list[Path]:
    return list((lab.config.data / "cache" / "segments").glob("*"))


def test_each_is_made_once_by_several_threads_with_the_bytes_of_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, list[int]] = {}
    make = SegmentCache.make

    def noted(self: SegmentCache, entries: Iterable[Entry]) -> Any:
        def seen() -> Any:
            for entry in entries:
                if entry.name in {f"{name}0" for name in NAMES}:
                    threads.setdefault(entry.name, []).append(threading.get_ident())
                yield entry

        return make(self, seen())

    monkeypatch.setattr(SegmentCache, "make", noted)
    digests = set()
    for helpers in (1, 3):
        monkeypatch.setattr(initrd, "_helpers", lambda count=helpers: count)
        for path in segments(lab):
            path.unlink()
        built = lab.build(SPEC)
        assert built.image is not None
        digests.add((built.image.digest, built.image.initrd.digest))
        assert lab.tree(built)["lib/apk/db/installed"].data == b"P:a\n\nP:b\n\nP:c\n\nP:d\n\nP:b\n\n"
    assert len(digests) == 1
    assert {name: len(found) for name, found in threads.items()} == {f"{name}0": 2 for name in NAMES}
    assert len({ident for found in threads.values() for ident in found}) > 1


@pytest.mark.parametrize("damaged", ["b", "d"])
def test_a_fault_in_one_ends_the_others_and_leaves_nothing_half_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    monkeypatch.setattr(initrd, "_helpers", lambda: 3)
    layer = lab.bases.blobs_of(lab.bases.named(f"docker.io/l/{damaged}:1")[0])[1].digest
    path = lab.bases.blob_path(layer)
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    with pytest.raises(PxeServerError) as caught:
        lab.build(SPEC)
    assert caught.value.slug == "layer-damaged" and layer in str(caught.value)
    assert f"init[{NAMES.index(damaged)}]" in str(caught.value.where)
    assert not [p for p in segments(lab) if p.name.startswith("new-")]
    assert not [t for t in threading.enumerate() if t.name.startswith("segment")]
