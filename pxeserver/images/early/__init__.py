"""An early initrd for images whose root is a disk or CD, when their kernel has the drivers for that as modules.

LinuxKit's own kernels have them built in, and mount root= themselves; distributions' kernels need help. It holds a
static busybox, the modules with what they depend on, and the script `init` beside this file. The image's microcode
comes before it.
"""

from __future__ import annotations

import gzip
import lzma
import platform
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import zstandard

from pxeserver.errors import PxeServerError, Refused
from pxeserver.images import compress, elf
from pxeserver.images.cpio import CpioWriter
from pxeserver.images.entry import Entry, folder, symlink, text
from pxeserver.images.initrd import Assembled
from pxeserver.images.rootfs import RootTree
from pxeserver.images.store import Store
from pxeserver.images.writers import copy

_SCRIPT = Path(__file__).with_name("init")
# What a root on a disk takes. A kernel that has one of them as a module needs an early initrd.
_FILE_SYSTEMS = ("squashfs", "erofs", "isofs")
_NEEDED = ("scsi_mod", "sd_mod", "sr_mod", "virtio_blk", "virtio_scsi", "virtio_pci", "ahci", "ata_piix", "nvme")
# What helps besides: other disks, and what the kernel asks for by other names than those of its dependencies.
_MORE = (
    *("usb_storage", "uas", "xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "virtio_mmio", "ata_generic"),
    *("hv_storvsc", "hv_vmbus", "vmw_pvscsi", "xen_blkfront", "mptspi", "mptsas", "megaraid_sas", "mpt3sas"),
    *("mmc_block", "sdhci_pci", "sdhci_acpi", "crc32c_generic", "crc32c_intel", "crc32c_arm64", "cdrom", "loop"),
)
_ENDINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}
_MODULE = re.compile(r"(.+\.ko)(\.gz|\.xz|\.zst|)")
_FOLDERS = ("bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "sbin", "sys", "tmp")


def needed(tree: RootTree) -> bool:
    """Whether the image's kernel has drivers for a root on a disk as modules only."""
    dep = tree.indexes.get(f"{_modules(tree)}/modules.dep", b"")
    return any(_name(path) in (*_FILE_SYSTEMS, *_NEEDED) for path in _dependencies(dep))


def write(out: BinaryIO, made: Assembled, tree: RootTree, store: Store) -> bool:
    """Microcode and, where it is needed, the early initrd. False when there is nothing to write."""
    if made.ucode is not None:
        with store.open_blob(made.initrd.digest) as file:
            copy(file, out, made.ucode.size, "the microcode")
    if not needed(tree):
        return made.ucode is not None
    compressor = compress.compressor("gzip", out)
    cpio = CpioWriter(compressor)
    for entry in _entries(tree, made.arch):
        cpio.add(entry)
    cpio.finish()
    compressor.finish()
    return True


def _modules(tree: RootTree) -> str:
    """The folder of the kernel's modules in the tree, "" = it has none."""
    return max((posixpath.dirname(path) for path in tree.indexes if path.endswith("/modules.dep")), default="")


def _entries(tree: RootTree, arch: str) -> Iterator[Entry]:
    top = _modules(tree)
    home = f"lib/modules/{posixpath.basename(top)}"
    known = _dependencies(tree.indexes[f"{top}/modules.dep"])
    files = {path: found for path in _closure(known) if (found := tree.find(f"{top}/{path}"))}
    busybox = tree.find("bin/busybox")
    contents = tree.read([*files.values(), *([busybox] if busybox else [])])
    yield from map(folder, _FOLDERS)
    yield text("bin/busybox", _busybox(contents.get(busybox or "", b""), arch), 0o755)
    for name in ("sh", *_APPLETS):
        yield symlink(f"bin/{name}", "busybox")
    yield symlink("sbin/modprobe", "../bin/busybox")  # the kernel asks for some modules itself
    names = sorted(_name(path) for path in files)
    script = _SCRIPT.read_text().replace("@MODULES@", " ".join(n for n in names if n in _AT_ONCE))
    yield text("init", script.encode(), 0o755)
    done: set[str] = set()
    for path in sorted(files):
        plain = _MODULE.fullmatch(path)
        assert plain is not None
        for parent in _above(f"{home}/{plain[1]}"):
            if parent not in done:
                done.add(parent)
                yield folder(parent)
        yield text(f"{home}/{plain[1]}", _unpacked(contents[files[path]], plain[2], path))
    yield text(f"{home}/modules.dep", _dep_file({p: [d for d in known[p] if d in files] for p in sorted(files)}))
    aliases = tree.indexes.get(f"{top}/modules.alias", b"")
    yield text(f"{home}/modules.alias", _aliases(aliases, set(names)))


_APPLETS = (
    *("cat", "echo", "findfs", "mkdir", "modprobe", "mount", "mv", "printf", "sleep", "sort", "switch_root", "tr"),
    *("umount", "uniq", "xargs", "ls", "dmesg"),
)
# loaded though no device asks for them
_AT_ONCE = (*_FILE_SYSTEMS, "sd_mod", "sr_mod", "crc32c_generic")


def _above(path: str) -> list[str]:
    words = path.split("/")[:-1]
    return ["/".join(words[: n + 1]) for n in range(2, len(words))]


def _name(path: str) -> str:
    """kernel/fs/isofs/isofs.ko.xz -> isofs; the kernel takes - and _ for the same."""
    return posixpath.basename(path).partition(".ko")[0].replace("-", "_")


def _dependencies(dep: bytes) -> dict[str, list[str]]:
    """modules.dep: each module's path -> those it needs, all the way down."""
    found = {}
    for line in dep.decode("utf-8", "replace").splitlines():
        path, colon, rest = line.partition(":")
        if colon and _MODULE.fullmatch(path):
            found[path] = rest.split()
    return found


def _closure(known: Mapping[str, list[str]]) -> list[str]:
    wanted = {*_FILE_SYSTEMS, *_NEEDED, *_MORE}
    first = [path for path in known if _name(path) in wanted]
    return sorted({*first, *(dep for path in first for dep in known[path] if dep in known)})


def _dep_file(known: Mapping[str, list[str]]) -> bytes:
    plain = {path: _MODULE.fullmatch(path) for path in known}
    names = {path: found[1] for path, found in plain.items() if found}
    return "".join(f"{names[p]}:{''.join(f' {names[d]}' for d in deps)}\n" for p, deps in known.items()).encode()


def _aliases(alias: bytes, names: set[str]) -> bytes:
    lines = alias.decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(line for line in lines if line.split()[-1:] and _name(line.split()[-1]) in names).encode()


def _unpacked(data: bytes, ending: str, path: str) -> bytes:
    """busybox hands a compressed module to the kernel as it is, which not every kernel takes."""
    try:
        if ending == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return _ENDINGS[ending](data)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise PxeServerError("module-broken", f"the module {path} cannot be unpacked: {error}") from None


def _busybox(own: bytes, arch: str) -> bytes:
    """A static one: the image's own, else this host's where that is for the same processors."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(own)
        file.flush()
        if _static(Path(file.name)):
            return own
    host = shutil.which("busybox")
    if host and {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine()) == arch and _static(Path(host)):
        return Path(host).read_bytes()
    raise Refused(
        "early-no-busybox",
        "the kernel has its drivers for disks as modules, and nothing here could load them: no static busybox",
        hint="init image pxeserver/init has one, or apt-get install busybox-static; LinuxKit's kernels need none",
    )


def _static(path: Path) -> bool:
    try:
        needs = elf.needs(path)
    except ValueError:
        return False
    return needs is not None and not needs.interpreter and not needs.libraries
