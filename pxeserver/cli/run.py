"""`pxeserver run`: an image in a local QEMU."""

from __future__ import annotations

import sys

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import UsageError


@click.command()
@click.argument("image")
@click.option("--bios", "firmware", flag_value="bios", help="BIOS firmware (the default where it can be).")
@click.option("--uefi", "firmware", flag_value="uefi", help="UEFI firmware (OVMF).")
@click.option("--mem", type=click.IntRange(64), default=1024, show_default=True, help="Memory in MiB.")
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True)
@click.option("--publish", multiple=True, metavar="HOST:GUEST", help="Offer a TCP port of the guest on 127.0.0.1.")
@click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True, help="KVM if it works."
)
@pass_context
def run(
    context: Context, image: str, firmware: str | None, mem: int, cpus: int, publish: tuple[str, ...], accel: str
) -> None:
    """Boot IMAGE in a local QEMU: a built image's name, a file that `build -f` wrote, or the prefix of such files.

    Of several files with the prefix the first counts: kernel with initrd, with squashfs, with erofs, with iso; then
    .efi, -efi.iso, .iso, -efi.img, -bios.img, -efi.qcow2, .qcow2, .vhd, .vmdk, -initrd.tar. Nothing is written to them.

    The terminal becomes the serial console; Ctrl-A X ends the machine.
    """
    from pxeserver.local import qemu
    from pxeserver.local import run as local

    found = local.find_image(image, context.config.data)
    if firmware and found.firmware and firmware != found.firmware:
        raise UsageError("run-firmware", f"{found.what} is started by {found.firmware.upper()} only")
    hardware = qemu.Hardware(
        uefi=(firmware or found.firmware) == "uefi",
        memory_mib=mem,
        cpus=cpus,
        rom="",
        accel="" if accel == "auto" else accel,
    )
    sys.exit(local.run(found, hardware, tuple(local.parse_publish(p) for p in publish), out.note))
