"""The whole build on small base images: tree, image, files, cache, and every fault with its place."""

from __future__ import annotations

import io
import json
import random
import resource
import tarfile
from pathlib import Path
from typing import Any

import pytest
from imagelab import KERNEL, Bases, Lab, Node, device, file, folder, hardlink, initrd_entries, symlink, tar, unpack

from pxeserver.errors import NotFound, PxeServerError, Refused, UsageError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.target import Target

TOOL = random.Random(1).randbytes(5000)
SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "console=ttyS0 quiet"}
init: ["l/init:1", "l/more:1"]
onboot: [{name: dhcp, image: "l/tool:1", command: [/dhcp]}]
services:
  - {name: web, image: "l/tool:1", readonly: true}
  - {name: other, image: "l/other:1", readonly: true}
files: [{path: etc/motd, contents: "hi", mode: "0644"}]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    bases = lab.bases
    bases.image("l/kernel:1", KERNEL)
    apk = [folder("lib"), folder("lib/apk"), folder("lib/apk/db")]
    bases.image(
        "l/init:1", [folder("bin"), file("bin/init", b"init", 0o755), *apk, file("lib/apk/db/installed", b"P:a")]
    )
    bases.image("l/more:1", [*apk, file("lib/apk/db/installed", b"P:b\n"), device("dev/null")])
    bases.image("l/tool:1", [file("tool", TOOL)], config={"Entrypoint": ["/tool"]})
    bases.image("l/other:1", [file("x", b"X"), hardlink("y", "x")])
    return lab


def test_the_tree_of_a_whole_spec(lab: Lab) -> None:
    built = lab.build(SPEC)
    entries = lab.entries(built)
    tree = unpack(entries)
    assert (entries[0][0], entries[1], entries[-1]) == (
        ".pxeserver",
        (".pxeserver/begin", Node("f", 0o644, data=b"web\n", mtime=1492533000)),
        (".pxeserver/end", Node("f", 0o644, data=b"web\n", mtime=1492533000)),
    )
    assert tree["lib/mod.ko"].data == b"MOD"
    assert tree["bin/init"] == Node("f", 0o755, data=b"init", mtime=1500000000)
    assert tree["dev/null"].device == (1, 3)
    assert tree["lib/apk/db/installed"] == Node("f", 0o644, data=b"P:a\n\nP:b\n\n\n", mtime=0)
    assert tree["etc/motd"] == Node("f", 0o644, data=b"hi", mtime=1492533000)
    assert not [name for name in tree if name.startswith("boot/")]
    onboot = "containers/onboot/000-dhcp"
    assert tree[f"{onboot}/lower/tool"].data == TOOL
    assert {tree[f"{onboot}/{d}"].kind for d in ("lower", "tmp", "rootfs")} == {"d"}
    assert json.loads(tree[f"{onboot}/config.json"].data)["process"]["args"] == ["/dhcp"]
    assert "containers/services/web/rootfs/tool" not in tree, "extracted once, for onboot"
    assert f"/{onboot}/lower".encode() in tree["containers/services/web/runtime.json"].data
    assert tree["containers/services/other/rootfs/y"] == Node("l", 0o644, data=b"x", mtime=1500000000)


def test_the_image_in_the_store(lab: Lab) -> None:
    built = lab.build(SPEC, tags=("v1", "edge:1"))
    image = built.image
    assert image is not None
    assert Catalogue(lab.store).list() == (image,)
    assert image.tags == ("edge:1", "web:latest", "web:v1")
    assert (image.cmdline, image.arch, image.spec) == ("console=ttyS0 quiet", "amd64", "web")
    assert lab.store.read_blob(image.kernel.digest) == b"KERNEL"
    raw = initrd_entries(lab.store.read_blob(image.initrd.digest))
    assert image.initrd.raw_size > sum(len(n.data) for _, n in raw)
    details = Catalogue(lab.store).details(image)
    assert details.spec_text == SPEC
    assert [b["ref"] for b in details.facts["bases"]][:2] == ["docker.io/l/kernel:1", "docker.io/l/init:1"]
    assert sum(s["size"] for s in details.facts["segments"]) == image.initrd.raw_size


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_the_digest_is_of_the_content_not_of_its_compression(lab: Lab, compression: str) -> None:
    plain, packed = lab.build(SPEC), lab.build(SPEC, compression=compression)
    assert plain.image is not None
    assert packed.image is not None
    assert packed.image.digest == plain.image.digest
    assert unpack(lab.entries(packed)) == unpack(lab.entries(plain))


@pytest.mark.parametrize(
    ("old", "new"),
    [("quiet", "loud"), ("hi", "ho"), ("[/dhcp]", "[/dhcpd]"), ("l/more:1", "l/other:1"), ("onboot", "onshutdown")],
)
def test_any_change_is_another_digest(lab: Lab, old: str, new: str) -> None:
    before, after = lab.build(SPEC).image, lab.build(SPEC.replace(old, new)).image
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


class Watch:
    """Progress that remembers how each task ended."""

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.said: list[str] = []

    def task(self, name: str, total: int | None = None) -> Any:
        watch = self

        class Task:
            seen = 0

            def advance(self, n: int) -> None:
                self.seen += n

            def done(self, text: str = "") -> None:
                assert text == "cached" or total in (None, 0, self.seen), (name, total, self.seen)
                watch.tasks[name] = text

        return Task()

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_rebuild_costs_what_changed(lab: Lab) -> None:
    lab.build(SPEC)
    again, cmdline, other = Watch(), Watch(), Watch()
    lab.build(SPEC, again)
    assert set(again.tasks.values()) == {"cached"}
    assert "initrd" not in again.tasks
    lab.build(SPEC.replace("quiet", "loud"), cmdline)
    assert set(cmdline.tasks.values()) == {"cached"}, "the command line is in no segment"
    lab.bases.image("l/more:1", [file("new")])
    lab.build(SPEC, other)
    made = [name for name, how in other.tasks.items() if how != "cached"]
    assert made == ["init[1] docker.io/l/more:1", "initrd"]


def test_a_warm_build_is_the_cold_one(lab: Lab, tmp_path: Path) -> None:
    cold = lab.build(SPEC)
    warm = lab.build(SPEC)
    elsewhere = Lab(tmp_path / "elsewhere")
    elsewhere.bases = lab.bases
    far = elsewhere.build(SPEC)
    assert cold.image is not None
    assert warm.image is not None
    assert far.image is not None
    assert (cold.image.digest, cold.image.initrd) == (warm.image.digest, warm.image.initrd)
    assert (cold.image.digest, cold.image.initrd) == (far.image.digest, far.image.initrd)


def test_what_was_removed_from_the_store_is_made_again(lab: Lab) -> None:
    first = lab.build(SPEC).image
    assert first is not None
    Catalogue(lab.store).remove(first.digest)
    assert not lab.store.has(first.kernel.digest)
    second = lab.build(SPEC).image
    assert second is not None
    assert (second.digest, second.initrd) == (first.digest, first.initrd)
    assert lab.store.has(first.kernel.digest)


def test_a_damaged_segment_is_found_and_made_again(lab: Lab) -> None:
    first = lab.build(SPEC).image
    assert first is not None
    cache = lab.config.data / "cache" / "segments"
    big = max((p for p in cache.iterdir() if not p.suffix), key=lambda p: p.stat().st_size)
    big.write_bytes(bytes(big.stat().st_size))
    watch = Watch()
    again = lab.build(SPEC.replace("hi", "ho"), watch)
    assert watch.said == [f"warning: {big} was damaged and is removed; it is made again"]
    assert lab.tree(again)["containers/onboot/000-dhcp/lower/tool"].data == TOOL


def test_a_truncated_segment_counts_as_absent(lab: Lab) -> None:
    lab.build(SPEC)
    for path in (lab.config.data / "cache" / "segments").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    built = lab.build(SPEC.replace("hi", "ho"))
    assert lab.tree(built)["bin/init"].data == b"init"


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_microcode_stands_before_everything_uncompressed(lab: Lab, compression: str) -> None:
    ucode = b"070701" + b"u" * 600  # not a multiple of 4
    lab.bases.image("l/kernel:1", [*KERNEL, file("intel.cpio", ucode)])
    built = lab.build(SPEC.replace("cmdline", "ucode: intel.cpio, cmdline"), compression=compression)
    assert built.image is not None
    data = lab.store.read_blob(built.image.initrd.digest)
    assert data.startswith(ucode)
    assert unpack(initrd_entries(data[len(ucode) :].lstrip(b"\0")))["bin/init"].data == b"init"


def test_boot_files_of_an_init_image_replace_the_kernels(lab: Lab) -> None:
    boot = [folder("boot"), file("boot/kernel", b"OTHER"), file("boot/cmdline", b"from=init"), file("boot/grub.cfg")]
    lab.bases.image("l/more:1", boot)
    built = lab.build(SPEC)
    assert built.image is not None
    assert lab.store.read_blob(built.image.kernel.digest) == b"OTHER"
    assert built.image.cmdline == "from=init"
    assert "boot/grub.cfg" not in lab.tree(built)


def test_a_strict_tree_has_no_sentinel_and_repeats_what_must_exist(lab: Lab) -> None:
    names = [name for name, _ in lab.entries(lab.build(SPEC, strict=True))]
    assert ".pxeserver" not in names
    assert names.count("etc/hosts") == 2
    assert names[-1] == "etc/motd"


def written(lab: Lab, folder: Path, *formats: str, **more: Any) -> dict[str, bytes]:
    lab.build(SPEC, formats=formats, target=Target(folder, "out"), **more)
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_files_as_linuxkit_names_them(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    found = written(lab, folder, "kernel+initrd", "tar-kernel-initrd")
    assert list(found) == ["out-cmdline", "out-initrd.img", "out-initrd.tar", "out-kernel"]
    assert (found["out-kernel"], found["out-cmdline"]) == (b"KERNEL", b"console=ttyS0 quiet")
    with tarfile.open(fileobj=io.BytesIO(found["out-initrd.tar"])) as archive:
        assert archive.getnames() == ["kernel", "initrd.img", "cmdline"]
        inner = archive.extractfile("initrd.img")
        assert inner is not None
        assert inner.read() == found["out-initrd.img"]
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o644}


@pytest.mark.parametrize(("form", "extra"), [("tar", []), ("docker", ["Dockerfile"])])
def test_the_tree_as_one_archive(lab: Lab, tmp_path: Path, form: str, extra: list[str]) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    found = written(lab, folder, form)
    assert list(found) == [f"out.{form}"]
    with tarfile.open(fileobj=io.BytesIO(found[f"out.{form}"])) as archive:
        members = archive.getmembers()
    assert [m.name for m in members][:5] == [".pxeserver", ".pxeserver/begin", "boot", "boot/cmdline", "boot/kernel"]
    assert [m.name for m in members][-1 - len(extra) : -1] == extra
    notes = {m.name: (m.pax_headers.get("LINUXKIT.location"), m.pax_headers.get("LINUXKIT.source")) for m in members}
    assert notes["lib/mod.ko"] == ("kernel", "docker.io/l/kernel:1")
    assert notes["lib/apk/db/installed"] == ("init", "LINUXKIT.apkinit")
    assert notes["etc/motd"] == ("files[0]", "linuxkit.files")
    assert notes[".pxeserver/begin"] == (None, None)
    assert Catalogue(lab.store).list() == (), "a stream is no image"


def test_a_stream_goes_where_it_is_told(lab: Lab) -> None:
    out = io.BytesIO()
    built = lab.build(SPEC, formats=("tar",), target=Target(Path(), "out", out))
    assert built.files == ()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert "etc/motd" in archive.getnames()


def test_a_failed_build_leaves_no_file(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    layer = lab.bases.image("l/other:1", [file("big", bytes(range(256)) * 999)], packed="none").layers[0]
    path = lab.bases.blob_path(layer.digest)
    path.write_bytes(path.read_bytes()[:-2000] + bytes(2000)[:1999] + b"x")
    with pytest.raises(PxeServerError, match="damaged"):
        written(lab, folder, "tar")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("formats", "slug", "words"),
    [
        (("kernel+initrdd",), "format-unknown", 'did you mean "kernel+initrd"'),
        (("rpi3",), "format-unsupported", "rpi3 is not made here"),
        (("tar", "kernel+initrd"), "format-alone", "tar must be the only format"),
    ],
)
def test_formats_that_cannot_be(lab: Lab, formats: tuple[str, ...], slug: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("+", r"\+")) as caught:
        lab.build(SPEC, formats=formats, target=Target(Path(), "x"))
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'kernel: {image: "l/kernal:1"}',
            'error[base-not-found]: web.yml:1:17: kernel.image: no base image "docker.io/l/kernal:1" in BASES'
            ' - did you mean "docker.io/l/kernel:1"?',
        ),
        (
            'init: ["l/init:1"]\nservices: [{name: x, image: "l/amr:1"}]',
            "error[image-platform]: web.yml:2:29: services[0].image: docker.io/l/amr:1 is not there for linux/amd64",
        ),
        (
            "files:\n  - {path: a, source: missing.txt}",
            "error[file-source-missing]: web.yml:2:5: files[0]: no file missing.txt",
        ),
        (
            f"files:\n  - {{path: a, optional: true, source: {'x' * 300}}}\n  - {{path: a, source: {'x' * 300}}}",
            f"error[file-source-missing]: web.yml:3:5: files[1]: cannot look for {'x' * 300}: File name too long",
        ),
        (
            'kernel: {image: "l/init:1"}',
            'error[kernel-not-found]: web.yml:1:17: kernel.image: did not find kernel "kernel" in docker.io/l/init:1',
        ),
    ],
)
def test_faults_name_their_place(lab: Lab, text: str, message: str) -> None:
    lab.bases.image("l/amr:1", [file("x")], arch="arm64")
    with pytest.raises(NotFound) as caught:
        lab.build(text)
    assert str(caught.value).replace(str(lab.bases.root), "BASES") == message


def test_a_spec_without_a_kernel_makes_files_but_no_image(lab: Lab, tmp_path: Path) -> None:
    text = 'init: ["l/init:1"]'
    with pytest.raises(Refused, match="has no kernel") as caught:
        lab.build(text)
    assert str(caught.value).startswith("error[spec-no-kernel]: web.yml: kernel.image: ")
    built = lab.build(text, formats=("kernel+initrd",), target=Target(tmp_path, "x"))
    assert built.image is None
    assert [p.name for p in built.files] == ["x-initrd.img"]
    assert unpack(initrd_entries((tmp_path / "x-initrd.img").read_bytes()))["bin/init"].data == b"init"
    assert Catalogue(lab.store).list() == ()


def test_an_image_for_another_architecture_is_said_aloud(lab: Lab) -> None:
    image = lab.bases.image("l/tool:1", [file("tool")], arch="arm64")
    assert image.manifest is not None
    plain = type(image.manifest)(image.manifest.media_type, image.digest, image.manifest.size)
    lab.bases.remove("docker.io/l/tool:1")
    lab.bases.tag("docker.io/l/tool:1", plain)
    watch = Watch()
    lab.build(SPEC, watch)
    assert [s for s in watch.said if "arm64" in s] == [
        "warning: web.yml:3:30: onboot[0].image: docker.io/l/tool:1 is for arm64, not amd64"
    ]


def test_files_from_disk_are_streamed_and_checked(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(b"B" * 700_000)
    text = SPEC.replace('hi", mode: "0644"}]', f"hi\"}}, {{path: opt/big, source: {source}, mode: '0755'}},")
    text += "  {path: opt/no, source: x, optional: true}]\n"
    tree = lab.tree(lab.build(text))
    assert tree["opt/big"] == Node("f", 0o755, data=b"B" * 700_000, mtime=1492533000)
    assert "opt/no" not in tree
    source.unlink()
    source.mkdir()
    with pytest.raises(UsageError) as caught:
        lab.build(text)
    assert caught.value.slug == "file-source-kind"


def test_volumes(lab: Lab) -> None:
    spec = (
        SPEC + 'volumes: [{name: blank}, {name: v, image: "l/other:1"}, {name: o, image: "l/other:1", format: oci}]\n'
    )
    tree = lab.tree(lab.build(spec))
    for name in ("blank", "v", "o"):
        assert {tree[f"containers/volumes/{name}/{d}"].kind for d in ("lower", "tmp", "merged")} == {"d"}
    assert tree["containers/volumes/v/lower/x"].data == b"X"
    assert tree["containers/volumes/v/lower/etc/resolv.conf"].data == b"/run/resolvconf/resolv.conf"
    layout = {n.removeprefix("containers/volumes/o/lower/"): v.data for n, v in tree.items() if "/o/lower/" in n}
    (entry,) = json.loads(layout["index.json"])["manifests"]
    manifest = json.loads(layout["blobs/sha256/" + entry["digest"][7:]])
    for blob in (manifest["config"], *manifest["layers"]):
        assert len(layout["blobs/sha256/" + blob["digest"][7:]]) == blob["size"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "docker.io/l/other:1"}
    with pytest.raises(Refused) as caught:
        lab.build(spec, strict=True)
    assert caught.value.slug == "volume-needs-index"


def test_the_same_layers_under_another_name_are_the_same_image_parts(lab: Lab) -> None:
    """A cache entry is keyed by content: a moved tag that names the same layers costs nothing."""
    lab.build(SPEC)
    lab.bases.image("l/tool:2", [file("tool", TOOL)], config={"Entrypoint": ["/tool"]})
    watch = Watch()
    lab.build(SPEC.replace("l/tool:1", "l/tool:2"), watch)
    assert watch.tasks["onboot[0] docker.io/l/tool:2"] == "cached"


def test_symlinks_and_odd_names_reach_the_initrd(lab: Lab) -> None:
    odd = "sp ace/é\udce9"
    lab.bases.image("l/other:1", [folder("sp ace"), file(odd, b"?"), symlink("link", "sp ace")])
    tree = lab.tree(lab.build(SPEC))
    assert tree[f"containers/services/other/rootfs/{odd}"].data == b"?"
    assert tree["containers/services/other/rootfs/link"].data == b"sp ace"


def test_bases_may_be_given_by_digest(lab: Lab) -> None:
    bases: Bases = lab.bases
    image = bases.image("l/tool:1", [file("tool")])
    assert image.manifest is not None
    ref = f"l/tool@{image.digest}"
    bases.tag(f"docker.io/{ref}", image.manifest)
    assert "containers/onboot/000-dhcp/lower/tool" in lab.tree(lab.build(SPEC.replace("l/tool:1", ref)))


def test_a_modules_archive_may_hold_boot_files_of_its_own(lab: Lab) -> None:
    inner = tar([folder("boot"), file("boot/System.map"), folder("lib"), file("lib/x")])
    lab.bases.image("l/kernel:1", [file("kernel", b"K"), file("kernel.tar", inner)])
    tree = lab.tree(lab.build(SPEC))
    assert "lib/x" in tree
    assert "boot/System.map" not in tree


def test_a_write_that_fails_is_said_and_leaves_nothing_half_made(lab: Lab) -> None:
    """As on a full disk: no file may grow beyond 1 MiB."""
    lab.bases.image("l/other:1", [file("big", random.Random(1).randbytes(3 << 20))])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(PxeServerError, match="File too large") as caught:
            lab.build(SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.slug == "build-io"
    for folder_ in (lab.config.data / "cache" / "segments", lab.store.tmp):
        assert [p.name for p in folder_.iterdir() if p.name.startswith("new-")] == []
    assert Catalogue(lab.store).list() == ()
    assert lab.build(SPEC).image is not None


def test_a_command_line_that_no_kernel_reads_is_refused_but_not_by_linuxkit(lab: Lab) -> None:
    spec = SPEC.replace("quiet", "x" * 3000)
    with pytest.raises(Refused) as caught:
        lab.build(spec)
    assert (caught.value.slug, str(caught.value.where).endswith("kernel.cmdline")) == ("cmdline-too-long", True)
    assert lab.build(spec, strict=True).image is not None


def test_a_file_over_4_gib_is_refused_at_its_place(lab: Lab, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 32)
    spec = SPEC.replace("files: [", f"files: [{{path: opt/huge, source: {tmp_path}/huge}}, ")
    with pytest.raises(PxeServerError) as caught:
        lab.build(spec)
    assert caught.value.slug == "cpio-too-large"
    assert "opt/huge has 4294967296 bytes" in caught.value.message and "files[0]" in str(caught.value.where)
    assert not Catalogue(lab.store).list() and not list(lab.store.tmp.iterdir())


def test_a_file_below_proc_has_its_content_though_it_says_to_be_empty(lab: Lab) -> None:
    spec = SPEC.replace("files: [", "files: [{path: etc/os, source: /proc/sys/kernel/ostype}, ")
    assert lab.tree(lab.build(spec))["etc/os"].data == b"Linux\n"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"Entrypoint": "sh"}, "Entrypoint"), ({"Cmd": 5}, "Cmd"), ({"Env": [1]}, "Env"),
        ({"WorkingDir": 7}, "WorkingDir"), ({"Labels": [1]}, "Labels"),
        ({"Labels": {"org.mobyproject.config": 5}}, "Labels"),
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_named(lab: Lab, config: dict[str, Any], name: str) -> None:
    lab.bases.image("l/tool:1", [file("t")], config=config)
    with pytest.raises(
        PxeServerError, match=f"docker.io/l/tool:1: {name} in the image's configuration is not"
    ) as caught:
        lab.build(SPEC)
    assert caught.value.slug == "oci-malformed" and "onboot[0].image" in str(caught.value.where)


def test_strict_leaves_out_what_a_later_init_image_replaces_and_makes_again(lab: Lab) -> None:
    """And a cached segment of the earlier image is not taken where another image follows."""
    lab.bases.image("l/first:1", [folder("dev"), device("dev/null"), folder("etc"), file("etc/x"), file("init")])
    lab.bases.image("l/link:1", [symlink("dev", "realdev")])
    lab.bases.image("l/plain:1", [folder("dev"), file("late")])
    spec = 'kernel: {image: "l/kernel:1"}\ninit: ["l/first:1", "l/%s:1"]\n'
    trees = {name: lab.tree(lab.build(spec % name, strict=True)) for name in ("plain", "link")}
    assert ["dev/null" in tree for tree in trees.values()] == [True, False]
    for tree in trees.values():
        assert {"dev", "dev/pts", "etc/x", "init"} - tree.keys() == set()
    assert trees["plain"] == lab.tree(lab.build(spec % "plain", strict=True))
