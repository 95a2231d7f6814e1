"""Every output that boots is booted by its firmware, from its files alone, until its service serves its page."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pxeserver.local import netlab

BOOT_SECONDS = 600  # in software emulation, on a loaded host
# format -> (what `run` is told after the name of the files, a line of the console that only this way of booting shows)
OUTPUTS = {
    "kernel+squashfs": ("", b"early: root is /dev/sda"),
    "kernel+erofs": ("", b"early: root is /dev/sda"),
    "kernel+iso": ("", b"early: root is /dev/sr0"),
    "iso-bios": (".iso", b"early: root is /dev/sr0"),
    "iso-efi": ("-efi.iso", b"early: root is /dev/sr0"),
    "raw-bios": ("-bios.img", b"SYSLINUX"),
    "raw-efi": ("-efi.img", b"BdsDxe: starting"),
    "qcow2-efi": ("-efi.qcow2", b"BdsDxe: starting"),
    "uki": (".efi", b"EFI stub"),
    "tar-kernel-initrd": ("-initrd.tar", b"Trying to unpack rootfs image as initramfs"),
}

# The contents of `raw-bios` in another container: that the firmware reads it, as far as the kernel's first lines, is
# what they add. As on BIOS machines of old, what boots is the disk's own loader.
CONVERTED = {"qcow2-bios": ".qcow2", "vhd": ".vhd", "dynamic-vhd": ".vhd", "vmdk": ".vmdk"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("form", OUTPUTS)
def test_an_output_boots_to_up(built: Path, tmp_path: Path, form: str) -> None:
    ending, sign = OUTPUTS[form]
    program = [sys.executable, "-m", "pxeserver", "--data", str(built)]
    export = ["images", "export", "web", "-f", form, "--dir", str(tmp_path), "--name", "m"]
    subprocess.run([*program, *export], check=True, capture_output=True)
    port, console = free_port(), tmp_path / "console"
    argv = [*program, "run", f"{tmp_path}/m{ending}", "--accel", "tcg", "--publish", f"{port}:80"]

    def page() -> bytes:
        assert process.poll() is None, console.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3) as answer:
                return bytes(answer.read())
        except OSError:
            return b""

    with (
        console.open("wb") as out,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as process,
    ):
        try:
            assert b"<" in netlab.wait_until(page, BOOT_SECONDS, f"the page of {form}")
            netlab.wait_until(lambda: b"pxeserver: up" in console.read_bytes(), 60, f"up of {form}")
        except Exception as error:
            pytest.fail(f"{error}\n{console.read_text(errors='replace')[-3000:]}", pytrace=False)
        finally:
            netlab.stop(process)
    assert sign in console.read_bytes()


@pytest.mark.parametrize("form", CONVERTED)
def test_a_converted_disk_boots_its_kernel(built: Path, tmp_path: Path, form: str) -> None:
    program = [sys.executable, "-m", "pxeserver", "--data", str(built)]
    export = ["images", "export", "web", "-f", form, "--dir", str(tmp_path), "--name", "m"]
    subprocess.run([*program, *export], check=True, capture_output=True)
    console = tmp_path / "console"
    argv = [*program, "run", f"{tmp_path}/m{CONVERTED[form]}", "--accel", "tcg"]
    with (
        console.open("wb") as out,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as process,
    ):
        try:
            unpacking = b"Trying to unpack rootfs image as initramfs"
            netlab.wait_until(lambda: unpacking in console.read_bytes(), BOOT_SECONDS, f"the kernel of {form}")
        except Exception as error:
            pytest.fail(f"{error}\n{console.read_text(errors='replace')[-3000:]}", pytrace=False)
        finally:
            netlab.stop(process)
    assert b"SYSLINUX" in console.read_bytes()
