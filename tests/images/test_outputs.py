"""Root file systems, CDs and disks: what is in them, the same bytes each time, clear refusals, nothing half made."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from imagelab import Bases, Lab, file, folder, hardlink, initrd_entries, symlink, tar, unpack

from pxeserver.errors import PxeServerError, Refused, UsageError
from pxeserver.images import early, outputs, programs, rootfs
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.target import Target

SPEC = """\
kernel: {image: "l/kernel:1", cmdline: "console=ttyS0"}
init: ["l/init:1", "l/more:1"]
services: [{name: web, image: "l/tool:1", uid: 5}]
"""
KERNEL = b"MZ" + b"k" * 3000
# a static program, as far as anybody looks: an ELF header without any segment
STATIC = b"\x7fELF\x02\x01\x01".ljust(64, b"\0")
HOME = "lib/modules/6.1"
DEP = (
    "kernel/squashfs.ko.xz:\nkernel/sr_mod.ko.xz: kernel/cdrom.ko.xz\nkernel/cdrom.ko.xz:\nkernel/sound.ko.xz:\n"
    "kernel/virtio-scsi.ko:\n"
)
ALIAS = "# aliases\nalias fs-squashfs squashfs\nalias scsi:t-0x05* sr_mod\nalias pci:sound* sound\n"


def modules(dep: str = DEP) -> bytes:
    names = [line.partition(":")[0] for line in dep.splitlines()]
    return tar(
        [
            *(folder("bin"), symlink("usr", "bin"), file("usr/through", b"link")),
            *map(folder, ("lib", "lib/modules", HOME, f"{HOME}/kernel")),
            *(file(f"{HOME}/{n}", lzma.compress(n.encode()) if n.endswith("xz") else n.encode()) for n in names),
            file(f"{HOME}/modules.dep", dep.encode()),
            file(f"{HOME}/modules.alias", ALIAS.encode()),
        ]
    )


def fill(bases: Bases, *, archive: bytes | None = None, busybox: bytes = STATIC) -> None:
    parts = [
        file("kernel", KERNEL),
        file("kernel.tar", modules() if archive is None else archive),
        file("u", b"U" * 512),
    ]
    bases.image("l/kernel:1", parts)
    bases.image(
        "l/init:1",
        [folder("bin"), file("bin/busybox", busybox, 0o4755), file("bin/old", b"old")],
    )
    bases.image("l/more:1", [file("bin/old", b"newer"), folder("var", uid=7, gid=8)])
    bases.image("l/tool:1", [file("tool", b"T" * 9000), hardlink("same", "tool")])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab.bases)
    return lab


def assembled(lab: Lab, spec: str = SPEC) -> outputs.Assembled:
    image = lab.build(spec).image
    assert image is not None
    return outputs.exported(Catalogue(lab.store).details(image))


def write(lab: Lab, form: str, to: Path, spec: str = SPEC, **more: int) -> list[str]:
    to.mkdir(exist_ok=True)
    return [p.name for p in outputs.write(form, assembled(lab, spec), lab.store, Target(to, "web", **more))]


# The tree


def test_each_path_stands_once_as_the_kernel_leaves_it(lab: Lab) -> None:
    made = assembled(lab)
    tree = rootfs.RootTree(made, lab.store)
    kernel = unpack(initrd_entries(lab.store.read_blob(made.initrd.digest)))
    found = {entry.name: entry for entry in tree.entries()}
    assert found.keys() - {"bin/through"} == kernel.keys() - {"usr/through"}, (
        "a path through a symlink is where it leads"
    )
    assert tree.read(["bin/old", "bin/through"]) == {"bin/old": b"newer", "bin/through": b"link"}
    assert (found["var"].uid, found["var"].gid, found["bin/busybox"].mode) == (7, 8, 0o4755)
    assert tree.find("usr/old") == "bin/old" and tree.find("usr/none") is None and tree.find("bin") is None


def test_a_folder_with_something_in_it_stays_a_folder(lab: Lab) -> None:
    lab.bases.image(
        "l/more:1", [file("etc/x", b"x"), symlink("bin", "etc"), symlink("loop", "loop"), file("loop/x", b"")]
    )
    tree = rootfs.RootTree(assembled(lab), lab.store)
    assert tree.find("bin/busybox") == "bin/busybox"
    assert tree.find("loop/x") is None


# The early initrd


def test_a_kernel_with_modules_gets_an_early_initrd(lab: Lab, tmp_path: Path) -> None:
    made = assembled(lab, SPEC.replace("cmdline", "ucode: u, cmdline"))
    tree = rootfs.RootTree(made, lab.store)
    assert early.needed(tree)
    with (tmp_path / "early").open("w+b") as out:
        assert early.write(out, made, tree, lab.store)
        out.seek(0)
        data = out.read()
    assert data.startswith(b"U" * 512), "microcode comes first"
    found = unpack(initrd_entries(data[512:]))
    assert found["bin/busybox"].data == STATIC
    names = {n.removeprefix(f"{HOME}/kernel/"): v.data for n, v in found.items() if n.endswith(".ko")}
    assert names == {n: f"kernel/{n}.xz".encode() for n in ("squashfs.ko", "sr_mod.ko", "cdrom.ko")} | {
        "virtio-scsi.ko": b"kernel/virtio-scsi.ko"
    }
    assert b"kernel/sr_mod.ko: kernel/cdrom.ko\n" in found[f"{HOME}/modules.dep"].data
    assert found[f"{HOME}/modules.alias"].data == b"alias fs-squashfs squashfs\nalias scsi:t-0x05* sr_mod\n"
    script = found["init"]
    assert script.mode == 0o755 and b"for module in squashfs sr_mod; do" in script.data


@pytest.mark.parametrize("dep", ["", "kernel/sound.ko.xz:\n"])
def test_a_kernel_with_everything_built_in_needs_none(lab: Lab, tmp_path: Path, dep: str) -> None:
    fill(lab.bases, archive=modules(dep))
    made = assembled(lab)
    tree = rootfs.RootTree(made, lab.store)
    assert not early.needed(tree)
    with (tmp_path / "early").open("wb") as out:
        assert not early.write(out, made, tree, lab.store)


def test_without_a_static_busybox_it_says_so(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lab.bases, busybox=b"#!/bin/sh\n")
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    made = assembled(lab)
    with (tmp_path / "early").open("wb") as out, pytest.raises(Refused) as caught:
        early.write(out, made, rootfs.RootTree(made, lab.store), lab.store)
    assert caught.value.slug == "early-no-busybox"


def test_a_broken_module_is_named(lab: Lab, tmp_path: Path) -> None:
    broken = tar(
        [*map(folder, ("lib", "lib/modules", HOME, f"{HOME}/kernel")), file(f"{HOME}/kernel/squashfs.ko.xz", b"no xz"),
         file(f"{HOME}/modules.dep", b"kernel/squashfs.ko.xz:\n")]
    )  # fmt: skip
    fill(lab.bases, archive=broken)
    made = assembled(lab)
    with (tmp_path / "early").open("wb") as out, pytest.raises(PxeServerError, match=r"module-broken.*squashfs"):
        early.write(out, made, rootfs.RootTree(made, lab.store), lab.store)


# Which formats there are


@pytest.mark.parametrize(
    ("name", "near"), [("aws", "raw-bios"), ("rpi3", "kernel+initrd"), ("iso-efi-initrd", "raw-efi")]
)
def test_formats_of_linuxkit_that_are_not_made_name_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"format-unsupported.*nearest is {re.escape(near)}"):
        outputs.checked([name])


def test_an_unknown_format_and_streams_beside_others() -> None:
    with pytest.raises(UsageError, match=r'unknown format type "squashfs" - did you mean "kernel\+squashfs"'):
        outputs.checked(["squashfs"])
    with pytest.raises(UsageError, match="format type tar must be the only format specified"):
        outputs.checked(["raw-efi", "tar"])
    with pytest.raises(UsageError, match="format-clash"):
        outputs.checked(["iso-bios", "kernel+iso"])


@pytest.mark.parametrize("form", [name for name, form in outputs.FORMS.items() if form.needs])
def test_a_missing_tool_is_known_before_anything_is_built(
    lab: Lab, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("pxeserver.tools._SYSTEM", "/nowhere")
    monkeypatch.setattr("pxeserver.images.uki.STUBS", Path("/nowhere"))
    with pytest.raises(Refused) as caught:
        lab.build(SPEC, formats=(form,), target=Target(tmp_path, "web"))
    assert caught.value.slug == "tool-missing" and caught.value.hint.startswith("apt-get install ")
    assert not lab.store.root.exists()


@pytest.mark.parametrize("form", ["iso-bios", "raw-bios", "qcow2-bios", "vhd", "vmdk"])
def test_a_bios_is_for_amd64(form: str) -> None:
    with pytest.raises(Refused, match="format-arch"):
        outputs.need([form], "arm64")


def test_what_boots_by_itself_needs_a_kernel(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="spec-no-kernel"):
        lab.build('init: ["l/init:1"]', formats=("raw-efi",), target=Target(tmp_path, "web"))


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(PxeServerError, match=r"tool-failed.*sh: out of paper"):
        programs.run(["sh", "-c", "echo out of paper >&2; exit 3"])
    with pytest.raises(PxeServerError, match="tool-failed"):
        programs.run(["no-such-program"])


# The real tools


@pytest.mark.server
@pytest.mark.parametrize("form", [n for n, f in outputs.FORMS.items() if f.needs and n != "uki"])
def test_the_same_bytes_each_time(lab: Lab, tmp_path: Path, form: str) -> None:
    if form in ("vhd", "dynamic-vhd", "vmdk"):
        write(lab, form, tmp_path / "a")  # QEMU puts the time, or chance, into these
        return
    first = write(lab, form, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "5"}.items():
            patch.setenv(key, value)
        time.sleep(2.1)  # FAT counts in steps of two seconds
        assert write(lab, form, tmp_path / "b") == first
    assert sorted(first) == sorted(p.name for p in (tmp_path / "a").iterdir()), "nothing else is left"
    for name in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
        assert (tmp_path / "a" / name).stat().st_mode & 0o777 == 0o644


def shown(*argv: str | Path) -> str:
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, check=False, env={"PATH": _PATH, "TZ": "UTC"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@pytest.mark.server
def test_squashfs_holds_the_tree(lab: Lab, tmp_path: Path) -> None:
    names = write(lab, "kernel+squashfs", tmp_path / "a")
    assert names == ["web-kernel", "web-cmdline", "web-early-initrd.img", "web-squashfs.img"]
    assert (tmp_path / "a/web-kernel").read_bytes() == KERNEL
    listing = {
        line.split()[-1]: line for line in shown("unsquashfs", "-lln", tmp_path / "a/web-squashfs.img").splitlines()
    }
    assert listing["squashfs-root/bin/busybox"].startswith("-rwsr-xr-x 0/0")
    assert listing["squashfs-root/var"].startswith("drwxr-xr-x 7/8")
    assert "2017-04-18 16:30 squashfs-root" in listing["squashfs-root"]
    assert "usr -> bin" in shown("unsquashfs", "-lln", tmp_path / "a/web-squashfs.img")
    assert shown("unsquashfs", "-cat", tmp_path / "a/web-squashfs.img", "bin/old") == "newer"


@pytest.mark.server
def test_cds_boot_and_hold_the_tree(lab: Lab, tmp_path: Path) -> None:
    write(lab, "kernel+iso", tmp_path / "a")
    write(lab, "iso-efi", tmp_path / "a")
    assert write(lab, "iso-bios", tmp_path / "b") == ["web.iso"]
    plain = tmp_path / "a/web.iso"
    find = shown("xorriso", "-indev", plain, "-find", "/", "-exec", "lsdl")
    assert "-rwsr-xr-x" in find and "'/usr' -> 'bin'" in find and "'/bin/through'" in find
    assert "El Torito" not in shown("xorriso", "-indev", plain, "-report_el_torito", "plain")
    assert "BIOS" in shown("xorriso", "-indev", tmp_path / "b/web.iso", "-report_el_torito", "plain")
    assert "UEFI" in shown("xorriso", "-indev", tmp_path / "a/web-efi.iso", "-report_el_torito", "plain")
    shown("xorriso", "-osirrox", "on", "-indev", tmp_path / "b/web.iso", "-extract", "/boot", tmp_path / "boot")
    config = (tmp_path / "boot/isolinux/isolinux.cfg").read_text()
    assert "APPEND console=ttyS0 root=/dev/sr0\n" in config and "INITRD /boot/initrd.img" in config
    assert (tmp_path / "boot/kernel").read_bytes() == KERNEL


@pytest.mark.server
def test_disks_hold_kernel_and_initrd(lab: Lab, tmp_path: Path) -> None:
    made = assembled(lab)
    write(lab, "raw-bios", tmp_path / "a")
    write(lab, "raw-efi", tmp_path / "a")
    bios, efi = tmp_path / "a/web-bios.img", tmp_path / "a/web-efi.img"
    shown("mcopy", "-i", f"{bios}@@1M", "::/initrd.img", "::/syslinux.cfg", tmp_path)
    assert (tmp_path / "initrd.img").read_bytes() == lab.store.read_blob(made.initrd.digest)
    assert "APPEND console=ttyS0\n" in (tmp_path / "syslinux.cfg").read_text(), "no root=: the initrd is the root"
    assert bios.read_bytes()[510:512] == b"\x55\xaa" and bios.read_bytes()[440:446] != bytes(6)
    shown("mcopy", "-i", f"{efi}@@1M", "::/EFI/BOOT/BOOTX64.EFI", tmp_path)
    assert lab.store.read_blob(made.initrd.digest) in (tmp_path / "BOOTX64.EFI").read_bytes()
    table = shown("sfdisk", "--dump", efi)
    assert "label: gpt" in table and "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" in table


@pytest.mark.server
def test_size_is_the_size_of_a_qcow2_for_a_bios(lab: Lab, tmp_path: Path) -> None:
    def size(to: str) -> int:
        head = (tmp_path / to / "web.qcow2").read_bytes()[:32]
        return int(struct.unpack_from(">Q", head, 24)[0])

    write(lab, "qcow2-bios", tmp_path / "a")
    write(lab, "qcow2-bios", tmp_path / "b", size=64 << 20)
    assert (size("a"), size("b")) == (1024 << 20, 64 << 20)
    with pytest.raises(Refused, match="size-too-small") as caught:
        write(lab, "qcow2-bios", tmp_path / "c", size=1 << 20)
    assert caught.value.hint == "--size 36M"
    assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.server
def test_a_kernel_that_uefi_cannot_start_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.bases.image("l/kernel:1", [file("kernel", b"\x7fELF"), file("kernel.tar", modules())])
    for form in ("iso-efi", "raw-efi", "qcow2-efi"):
        with pytest.raises(Refused, match="kernel-no-efi"):
            write(lab, form, tmp_path / "a")
        assert list((tmp_path / "a").iterdir()) == []


def test_an_initrd_that_is_cut_off_is_refused(lab: Lab) -> None:
    made = assembled(lab)
    data = gzip.compress(b"070701" + b"0" * 50)
    blob = lab.store.add_bytes(data)
    broken = outputs.Assembled(made.digest, made.kernel, None, blob, "", ())
    with pytest.raises(PxeServerError, match="cpio-broken"):
        rootfs.RootTree(broken, lab.store)
