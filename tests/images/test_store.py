"""The store: whole blobs or none, an index that survives kill -9, base images by their full name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pxeserver.errors import NotFound, PxeServerError, UsageError
from pxeserver.images import oci
from pxeserver.images.oci import Descriptor
from pxeserver.images.store import Store


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def base(store: Store, ref: str, content: bytes, arch: str = "amd64") -> Descriptor:
    blob = store.add_bytes(content)
    return store.write_base(ref, {}, [Descriptor(oci.LAYER, blob.digest, blob.size)], arch)


def test_a_blob_is_named_by_its_content_and_readable_by_others(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        blob = Store(tmp_path / "s").add_blob(io.BytesIO(b"x" * 3_000_000))
    finally:
        os.umask(old)
    path = Store(tmp_path / "s").blob_path(blob.digest)
    assert (blob.digest, blob.size) == (sha(b"x" * 3_000_000), 3_000_000)
    assert path.read_bytes() == b"x" * 3_000_000
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_blob_with_another_digest_than_expected_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(PxeServerError, match="expected sha256:0000") as caught:
        store.add_bytes(b"abc", expect="sha256:" + "0" * 64)
    assert caught.value.slug == "digest-mismatch"
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == list(store.tmp.iterdir()) == []


def test_a_damaged_blob_is_replaced_when_it_is_added_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.blob_path(store.add_bytes(b"whole").digest)
    path.write_bytes(b"wh")
    assert store.read_blob(store.add_bytes(b"whole").digest) == b"whole"


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:00", "0" * 64])
def test_only_a_digest_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        Store(tmp_path).blob_path(digest)


def test_reading_an_absent_store_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    assert store.index() == store.list() == ()
    assert store.resolve("docker.io/library/x", "amd64") is None
    with pytest.raises(NotFound, match="no blob"):
        store.open_blob("sha256:" + "0" * 64)
    assert not (tmp_path / "s").exists()


def test_a_base_image_is_found_by_its_full_name_per_architecture(tmp_path: Path) -> None:
    store = Store(tmp_path)
    amd, arm = base(store, "docker.io/a/b:1", b"amd"), base(store, "docker.io/a/b:1", b"arm", "arm64")
    assert store.resolve("docker.io/a/b:1", "amd64") == amd
    assert store.resolve("docker.io/a/b:1", "arm64") == arm
    assert store.resolve("docker.io/a/b", "amd64") is None
    with pytest.raises(NotFound, match="linux/riscv64") as caught:
        store.resolve("docker.io/a/b:1", "riscv64")
    assert caught.value.hint == "it is there for: amd64, arm64"
    newer = base(store, "docker.io/a/b:1", b"amd 2")
    assert store.resolve("docker.io/a/b:1", "amd64") == newer
    assert len(store.list()) == 2
    assert store.remove("docker.io/a/b:1")
    assert not store.remove("docker.io/a/b:1")
    assert store.list() == ()


def test_base_images_do_not_depend_on_when_they_were_made(tmp_path: Path) -> None:
    config = {"config": {"Env": ["A=b"]}}
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    found = []
    for store in (first, second):
        blob = store.add_bytes(b"layer")
        found.append(store.write_base("r:1", config, [Descriptor(oci.LAYER, blob.digest, blob.size)], "amd64"))
    assert found[0] == found[1]
    assert first.index_file.read_bytes() == second.index_file.read_bytes()
    manifest = first.read_json(found[0].digest)
    body = first.read_json(manifest["config"]["digest"])
    assert body["rootfs"] == {"type": "layers", "diff_ids": [sha(b"layer")]}
    assert (body["os"], body["architecture"], body["config"]) == ("linux", "amd64", {"Env": ["A=b"]})


def test_an_index_chooses_by_platform_and_ignores_the_variant(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.add_json(oci.MANIFEST, {"n": 1}, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    two = store.add_json(oci.MANIFEST, {"n": 2}, platform={"os": "linux", "architecture": "amd64"})
    index = store.add_json(oci.INDEX, {"manifests": [one.json(), two.json()]})
    store.tag("r:1", index)
    assert [store.resolve("r:1", a) for a in ("arm64", "amd64")] == [one, two]
    with pytest.raises(NotFound) as caught:
        store.resolve("r:1", "s390x")
    assert caught.value.slug == "image-platform"


def test_unused_blobs_go_and_shared_ones_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    base(store, "r:1", b"shared")
    second = base(store, "r:2", b"own")
    store.write_base(
        "r:2", {}, [Descriptor(oci.LAYER, sha(b"own"), 3), Descriptor(oci.LAYER, sha(b"shared"), 6)], "amd64"
    )
    reached = store.references(store.named("r:2"))
    store.remove("r:2")
    freed = store.drop_unused(reached)
    assert freed > 3
    assert not store.has(sha(b"own"))
    assert store.has(sha(b"shared"))
    assert store.has(second.digest), "only what the removed entry reached is a candidate"


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot write to .*/file/store: Not a directory") as caught:
        Store(tmp_path / "file" / "store").add_bytes(b"x")
    assert caught.value.slug == "data-not-writable"
    assert "--data DIR" in caught.value.hint


WRITER = """
import sys, random
from pathlib import Path
from pxeserver.images.store import Store
from pxeserver.images import oci
store, r = Store(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
print("go", flush=True)
n = 0
while True:
    n += 1
    blob = store.add_bytes(r.randbytes(r.randrange(1, 200_000)))
    store.write_base(f"r:{r.randrange(20)}", {}, [oci.Descriptor(oci.LAYER, blob.digest, blob.size)], "amd64")
"""


def test_kill_9_at_any_moment_leaves_a_whole_store(tmp_path: Path) -> None:
    rand = random.Random(7)
    for turn in range(12):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(turn * 2 + i)], stdout=subprocess.PIPE)
            for i in range(2)
        ]
        for w in writers:
            assert w.stdout is not None
            assert w.stdout.readline() == b"go\n"
        time.sleep(rand.uniform(0.0, 0.15))
        for w in writers:
            w.send_signal(signal.SIGKILL)
        for w in writers:
            w.communicate()
    store = Store(tmp_path)
    store.add_bytes(b"the first write sweeps")
    assert list(store.tmp.iterdir()) == []
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        assert sha(path.read_bytes()) == "sha256:" + path.name
    entries = store.list()
    assert entries, "some writer got through"
    assert all(store.has(d) for d in store.references(entries))
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


@pytest.mark.parametrize(
    "body",
    [{}, {"digest": 5, "size": 1}, {"digest": "sha256:x", "size": 1}, {"digest": sha(b""), "size": "many"}, 7, None],
)
def test_a_malformed_descriptor_is_refused(body: object) -> None:
    with pytest.raises(PxeServerError) as caught:
        oci.descriptor(body)
    assert caught.value.slug == "oci-malformed"
