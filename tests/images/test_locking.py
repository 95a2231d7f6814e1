"""What a source says a reference is, so that a lock means the same for every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
from imagelab import Bases, Lab, file

from pxeserver.errors import Refused
from pxeserver.images import locking, oci
from pxeserver.images.locked import LockedSource
from pxeserver.images.sources import LayoutSource
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.linuxkit.lockfile import Lock


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    made = Bases(tmp_path / "bases")
    amd, arm = (made.image(f"l/{a}:1", [file("arch", a.encode())], arch=a) for a in ("amd64", "arm64"))
    assert amd.manifest and arm.manifest
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [amd.manifest.json(), arm.manifest.json()]}
    made.tag("docker.io/l/multi:1", made.add_json(oci.INDEX, body))
    for arch in ("amd64", "arm64"):
        made.image("l/pair", [file("arch", arch.encode())], arch=arch)
    return made


def test_pins_are_the_same_for_every_architecture(bases: Bases) -> None:
    source = LayoutSource(bases, "lab")
    entries = {(e.ref, e.platform.get("architecture", "")): e.digest for e in bases.index()}
    for arch in ("amd64", "arm64"):
        assert source.pin("docker.io/l/multi:1", arch) == entries["docker.io/l/multi:1", ""]
        assert source.pin("docker.io/l/pair", arch) == {a: entries["docker.io/l/pair", a] for a in ("amd64", "arm64")}
    assert source.pin("docker.io/l/amd64:1", "amd64") == entries["docker.io/l/amd64:1", "amd64"]


def test_an_index_and_its_manifest_say_the_same_image(bases: Bases) -> None:
    source = LayoutSource(bases, "lab")
    base = source.base("docker.io/l/multi:1", "arm64")
    assert base.index
    for digest in (base.index.digest, base.digest):
        locked = LockedSource(source, [Lock("l", {"docker.io/l/multi:1": digest})])
        assert locked.base("docker.io/l/multi:1", "arm64").digest == base.digest
    with pytest.raises(Refused) as caught:
        LockedSource(source, [Lock("l", {"docker.io/l/multi:1": base.digest})]).base("docker.io/l/multi:1", "amd64")
    assert caught.value.slug == "base-lock-differs"


def test_every_lock_that_knows_a_reference_must_agree(bases: Bases) -> None:
    source = LayoutSource(bases, "lab")
    ref = "docker.io/l/amd64:1"
    digest = source.base(ref, "amd64").digest
    other = "sha256:" + "0" * 64
    agreeing = [Lock("a", {ref: digest}), Lock("b", {"x": other})]
    assert LockedSource(source, agreeing).base(ref, "amd64").digest == digest
    with pytest.raises(Refused, match="is locked to sha256:0000"):
        LockedSource(source, [*agreeing, Lock("c", {ref: other})]).base(ref, "amd64")


def test_references_with_a_digest_lock_to_it_and_several_uses_count_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    base = lab.bases.image("l/x:1", [file("x")])
    pinned = f"l/x:1@{'sha256:' + '3' * 64}"
    text = f"init: ['l/x:1', 'docker.io/l/x:1', '{pinned}']"
    done = locking.write(SpecSource("web.yml", text, tmp_path), LayoutSource(lab.bases, "lab"), "amd64", lab.config)
    assert done.images == {"docker.io/l/x:1": base.digest, f"docker.io/{pinned}": "sha256:" + "3" * 64}
