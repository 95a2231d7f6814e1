"""A virtual machine with the distribution's own kernel, for what the kernel of the host may not have (802.1Q).

Its root file system is the initrd: this Python, this program with what it needs, the tests, and the tools named.
"""

from __future__ import annotations

import io
import lzma
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement

TOP = Path(__file__).resolve().parents[2]
UNUSED = {"site-packages", "dist-packages", "test", "tests", "tkinter", "idlelib", "ensurepip"}
TOOLS = ("busybox", "ip", "bridge", "dnsmasq", "setpriv")
INIT = """\
#!{busybox} sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export PYTHONPATH={path} LC_ALL=C.UTF-8
{busybox} --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
for module in /modules/*; do insmod "$module"; done
ip link set lo up
{python} -m {module} /result
cat /result >/dev/ttyS1
sync
poweroff -f
"""


def needed(name: str, found: dict[str, Distribution] | None = None) -> dict[str, Distribution]:
    """A distribution and all that it requires, by name."""
    found = {} if found is None else found
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key not in found:
        found[key] = distribution(name)
        for line in found[key].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


def files() -> set[Path]:
    """The guest's files, which stand at the same places as here."""
    found = {TOP / name for name in ("pxeserver", "templates", "config", "tests")}
    found = {path for folder in found for path in folder.rglob("*")}
    for dist in needed("pxeserver").values():
        found |= {Path(str(dist.locate_file(file))) for file in dist.files or ()}
    library = Path(sysconfig.get_path("stdlib"))
    found |= {path for path in library.rglob("*") if not UNUSED & set(path.relative_to(library).parts[:-1])}
    found |= {Path(cache_from_source(path)) for path in found if path.suffix == ".py"}  # compiling takes its time
    tools = {Path(shutil.which(tool) or tool) for tool in TOOLS} | {Path(sys.executable).resolve()}
    found |= tools | libraries(tools | {path for path in found if ".so" in path.name})
    return {path for path in found if path.is_file() and path.suffix != ".a"}


def libraries(programs: Iterable[Path]) -> set[Path]:
    words = ["ldd", *map(str, sorted(programs))]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE)}


def modules(kernel_tar: tarfile.TarFile, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """(name, content) of kernel modules in the order of loading, each after those that it needs."""
    listed = next(member for member in kernel_tar if member.name.endswith("/modules.dep"))
    table = kernel_tar.extractfile(listed)
    assert table is not None
    needs = dict(line.split(":", 1) for line in table.read().decode().splitlines())
    order: list[str] = []
    for name in names:
        path = next(path for path in needs if re.search(rf"/{name}\.ko\b", path))
        order += [one for one in (*reversed(needs[path].split()), path) if one not in order]
    loaded = []
    for path in order:
        content = kernel_tar.extractfile(f"{listed.name.rpartition('/')[0]}/{path}")
        assert content is not None
        raw = content.read()
        loaded.append((Path(path).name.partition(".")[0], lzma.decompress(raw) if path.endswith(".xz") else raw))
    return loaded


def write_initrd(to: Path, stage: Path, kernel_tar: bytes, module: str) -> None:
    """The guest's root in two cpio archives: what stands here, then what is made for it."""
    with tarfile.open(fileobj=io.BytesIO(kernel_tar)) as archive:
        wanted = modules(archive, ("veth", "bridge", "8021q"))
    for folder in ("bin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "lab", "modules"):
        (stage / folder).mkdir(parents=True)
    for at, (name, content) in enumerate(wanted):
        (stage / "modules" / f"{at:02}-{name}.ko").write_bytes(content)
    (stage / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (stage / "etc/group").write_text("root:x:0:\n")
    path = ":".join((str(TOP), str(TOP / "tests"), sysconfig.get_path("purelib")))
    python = Path(sys.executable).resolve()
    busybox = shutil.which("busybox")
    (stage / "init").write_text(INIT.format(busybox=busybox, path=path, python=python, module=module))
    (stage / "init").chmod(0o755)
    own = {Path("/") / path.relative_to(stage) for path in stage.rglob("*")}
    with to.open("wb") as out:
        archive_of(Path("/"), files(), out)
        archive_of(stage, {stage / path.relative_to("/") for path in own}, out)


def archive_of(root: Path, paths: set[Path], out: io.BufferedWriter) -> None:
    """Files with their folders, as the kernel unpacks them."""
    names = {path.relative_to(root) for path in paths}
    names |= {parent for name in names for parent in name.parents if parent != Path()}
    listed = "".join(f"{name}\n" for name in sorted(names))
    words = ["busybox", "cpio", "-o", "-H", "newc", "-L"]
    subprocess.run(words, input=listed.encode(), cwd=root, stdout=out, stderr=subprocess.DEVNULL, check=True)
