"""What an image takes of a machine, and which machines are known not to have it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pxeserver.boot.cmdline import LIMIT
from pxeserver.boot.preflight import MIB, memory_least, memory_need, preflight, tight, unfit
from pxeserver.model import Blob, Image, Machine


def test_memory_need_matches_what_was_measured(image: Image) -> None:
    """112 MiB unpacked, 32 MiB packed: 320 MiB was enough on BIOS, 384 on UEFI."""
    assert 300 < memory_need(image, efi=False) <= 320
    assert 360 < memory_need(image, efi=True) <= 384
    unknown = replace(image, initrd=Blob("sha256:" + "22" * 32, 50 * MIB))
    assert memory_need(unknown, efi=False) == 3 * 50 + 14 + 48


def test_what_an_image_takes(image: Image) -> None:
    takes = preflight(replace(image, cmdline="quiet \u00e9"))
    assert (takes.arch, takes.transfer, takes.unpacked) == ("amd64", (14 + 32) * MIB, 112 * MIB)
    assert takes.peak == (32 + 112) * MIB, "packed and unpacked lie beside each other"
    assert takes.memory_least == 2 * 112 + 32 + 14, "the tree must fit into half of the memory"
    assert (takes.memory_bios, takes.memory_efi) == (takes.memory_least + 48, takes.memory_least + 112)
    assert (takes.cmdline, takes.cmdline_limit) == (8, LIMIT)


@pytest.mark.parametrize(
    ("memory", "arch", "slug"),
    [
        (None, "", ""), (269, "", "memory-too-small"), (270, "amd64", ""), (4096, "arm64", "arch-mismatch"),
        (64, "arm64", "arch-mismatch"),
    ],
)  # fmt: skip
def test_a_machine_known_not_to_fit(image: Image, machine: Machine, memory: int | None, arch: str, slug: str) -> None:
    refusal = unfit(replace(machine, memory_mib=memory, arch=arch), image)
    assert (refusal.slug if refusal else "") == slug
    if refusal:
        assert "node7" in refusal.message and image.short in refusal.message and refusal.hint


def test_a_tight_one_is_told(image: Image, machine: Machine) -> None:
    """What the system calls its memory is less than what is built in, so between the two nobody knows."""
    least = memory_least(image)
    assert "wants about 318" in tight(replace(machine, memory_mib=least), image)
    assert tight(replace(machine, memory_mib=320), image) == tight(machine, image) == ""
    assert "wants about 382" in tight(replace(machine, memory_mib=320, facts={"firmware": "efi"}), image)
