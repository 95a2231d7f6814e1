"""What `run` is told, and which files it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pxeserver.errors import NotFound, UsageError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.local import qemu, run
from pxeserver.model import Image


@pytest.mark.parametrize("text", ["8080:80", "8080:80/tcp"])
def test_a_published_port(text: str) -> None:
    assert run.parse_publish(text) == run.Publish(8080, 80)


@pytest.mark.parametrize("text", ["", "80", ":80", "80:", "a:b", "0:80", "80:65536", "53:53/udp", "1:2:3", "-1:80"])
def test_a_publish_that_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="bad-publish"):
        run.parse_publish(text)


def test_files_by_their_prefix(tmp_path: Path) -> None:
    for end, text in (("-kernel", "K"), ("-initrd.img", "I"), ("-cmdline", "console=ttyS0\n")):
        (tmp_path / f"web{end}").write_text(text)
    assert run.find_image(f"{tmp_path}/web", tmp_path / "data").kernel == qemu.Kernel(
        tmp_path / "web-kernel", tmp_path / "web-initrd.img", "console=ttyS0"
    )


def test_a_kernel_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "web-kernel").write_text("K")
    found = run.find_image(f"{tmp_path}/web", tmp_path / "data")
    assert found.kernel == qemu.Kernel(tmp_path / "web-kernel", None, "")


def test_a_path_without_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="image-files-missing"):
        run.find_image(f"{tmp_path}/web", tmp_path / "data")


def test_a_built_image_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kernel, initrd = store.add_bytes(b"kernel"), store.add_bytes(b"initrd")
    image = Image("sha256:" + "1" * 64, "web", kernel, initrd, "console=ttyS0 quiet", "amd64")
    Catalogue(store).add(image, spec_text=b"kernel: {}\n")
    found = run.find_image("web", tmp_path).kernel
    assert found is not None
    assert (found.kernel.read_bytes(), found.cmdline) == (b"kernel", "console=ttyS0 quiet")
    assert found.initrd is not None
    assert found.initrd.read_bytes() == b"initrd"


def test_an_unknown_name_proposes_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="image-not-found"):
        run.find_image("webb", tmp_path)


def test_no_device_means_no_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "KVM", tmp_path / "kvm")
    assert run.kvm_works(tmp_path / "kernel") is False
