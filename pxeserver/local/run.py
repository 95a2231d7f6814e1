"""Boot an image in a QEMU of this host, by its kernel or its firmware; its serial console on the terminal."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pxeserver.errors import UsageError
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.local import bootable, netlab, qemu
from pxeserver.local.bootable import Bootable

KVM = Path("/dev/kvm")
# A kernel under a working KVM says its first line well within a second.
KVM_PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Publish:
    """A TCP port of the guest that this host's loopback offers."""

    host: int
    guest: int


def parse_publish(text: str) -> Publish:
    """'8080:80' or '8080:80/tcp'; UsageError "bad-publish" otherwise."""
    ports, _, protocol = text.partition("/")
    host, _, guest = ports.partition(":")
    if protocol not in ("", "tcp") or not all(x.isdigit() and 0 < int(x) < 65536 for x in (host, guest)):
        raise UsageError("bad-publish", f'"{text}" publishes nothing', hint="HOST:GUEST, as in 8080:80")
    return Publish(int(host), int(guest))


def find_image(text: str, data: Path) -> Bootable:
    """What a path or prefix names (see `bootable`), else a built image by its name in the catalogue.

    NotFound as the catalogue says it, unless `text` looks like a path: then "image-files-missing".
    """
    found = bootable.find(text)
    if found is not None:
        return found
    if "/" in text:
        raise bootable.missing(text)
    store = Store(data / "store")
    image = Catalogue(store).get(text)
    kernel = qemu.Kernel(store.blob_path(image.kernel.digest), store.blob_path(image.initrd.digest), image.cmdline)
    return Bootable(image.short, kernel)


def kvm_works(kernel: Path | None) -> bool:
    """Whether KVM starts this kernel here, or the firmware. The device proves nothing: some only pretend."""
    if not KVM.exists():
        return False
    hardware = qemu.Hardware(memory_mib=512, accel="kvm")
    probe = qemu.Kernel(kernel.resolve(), None, "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1") if kernel else None
    sign = b"Linux version" if kernel else b"SeaBIOS"
    with tempfile.TemporaryDirectory(prefix="pxeserver-kvm-") as temporary:
        log = Path(temporary) / "serial"
        argv = qemu.command(
            hardware,
            netdev="user",
            serial=["-serial", f"file:{log}", "-no-reboot"],
            folder=Path(temporary),
            kernel=probe,
        )
        process = subprocess.Popen(
            argv,
            cwd=temporary,  # a QEMU that aborts may leave a core file
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + KVM_PATIENCE
            while time.monotonic() < end:
                if log.exists() and sign in log.read_bytes():
                    return True
                if process.poll() is not None:
                    return False
                time.sleep(0.05)
            return False
        finally:
            netlab.stop(process)


def run(image: Bootable, hardware: qemu.Hardware, publish: tuple[Publish, ...], say: Callable[[str], None]) -> int:
    """Run the machine until it is off; QEMU's exit status. `hardware.accel` "" = KVM if it works, else TCG.

    The terminal is the serial console (Ctrl-A X ends the machine, Ctrl-A C is QEMU's monitor).
    """
    netlab.need_tools(qemu.TOOLS | {"setpriv": "util-linux"})
    with tempfile.TemporaryDirectory(prefix="pxeserver-run-") as temporary:
        if image.archive is not None:
            image = replace(image, kernel=bootable.unpack(image.archive, Path(temporary)))
        return _run(image, hardware, publish, say, Path(temporary))


def _run(
    image: Bootable, hardware: qemu.Hardware, publish: tuple[Publish, ...], say: Callable[[str], None], folder: Path
) -> int:
    if not hardware.accel:
        plain = image.kernel if image.firmware != "uefi" else None
        works = kvm_works(plain.kernel if plain else None)
        if not works:
            say("KVM starts no machine here: running in software (TCG), about ten times slower")
        hardware = replace(hardware, accel="kvm" if works else "tcg")
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{p.host}-:{p.guest}" for p in publish)
    argv = qemu.command(
        hardware,
        netdev=f"user{forwards}",
        serial=["-serial", "mon:stdio", "-no-reboot"],
        folder=folder,
        kernel=image.kernel,
        drive=image.drive,
    )
    # should we be killed, the machine goes too
    return subprocess.run(["setpriv", "--pdeathsig", "TERM", *argv], check=False).returncode
