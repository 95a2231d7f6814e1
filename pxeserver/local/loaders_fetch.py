"""Where the standard loaders come from: the distribution's package `ipxe`, on this host or from its mirror."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pxeserver.errors import NotFound
from pxeserver.local.bases import sources
from pxeserver.local.bases.apt import Apt, closure, run
from pxeserver.local.bases.deb import unpack
from pxeserver.local.loaders import STANDARD, Loader, LoaderSet

PACKAGE = "ipxe"
# Loader -> package, file of it: what Microsoft and the distribution signed, shim under the name that firmware is given,
# GRUB (the one that boots over a network) under the one that shim looks for.
SIGNED = {
    "shimx64.efi": ("shim-signed", "usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"),
}
_ROOT = Path("/")


def ensure(data: Path) -> tuple[Loader, ...]:
    """Bring the standard loaders that `data`/loaders lacks; those brought. Others are left as they are."""
    have = {x.name for x in LoaderSet(data / "loaders").list() if x.state != "missing"}
    return () if have >= set(STANDARD) else fetch(data, only=lambda name: name not in have)


def fetch(data: Path, suite: str = "", only: Callable[[str], bool] = lambda _: True) -> tuple[Loader, ...]:
    """Put the standard loaders into `data`/loaders, in place of those there; the loaders that were put.

    Without a `suite` they come from the installed package if there is one, else from the system's own suite; with
    one, from that suite of the same mirror. Nothing is installed. Unreachable "mirror-failed" when apt cannot get it.
    """
    return _fetch(data, suite, PACKAGE, {name: f"usr/lib/ipxe/{name}" for name in STANDARD if only(name)})


def fetch_signed(data: Path, suite: str = "") -> tuple[Loader, ...]:
    """The same for `SIGNED`, what starts with Secure Boot on and boots a kernel that the distribution signed."""
    packages = {name: _fetch(data, suite, package, {name: path}) for name, (package, path) in SIGNED.items()}
    return tuple(loader for found in packages.values() for loader in found)


def _fetch(data: Path, suite: str, package: str, wanted: Mapping[str, str]) -> tuple[Loader, ...]:
    """`wanted`: name of the loader -> path in the package."""
    if not suite and all((_ROOT / path).exists() for path in wanted.values()):
        version = run(["dpkg-query", "--show", "--showformat=${Version}", package])
        origin = f"package {package}, installed"
        files = {name: (_ROOT / path).read_bytes() for name, path in wanted.items()}
    else:
        version, files = _unpacked(data, suite, package, wanted)
        origin = f"package {package} of {suite or sources.codename(sources.OS_RELEASE.read_text())}"
    loaders = LoaderSet(data / "loaders")
    return tuple(loaders.add(content, name, version=version, origin=origin) for name, content in files.items())


def _unpacked(data: Path, suite: str, name: str, wanted: Mapping[str, str]) -> tuple[str, dict[str, bytes]]:
    """(version, name -> content) out of the mirror's package `name`."""
    apt = Apt(data / "cache" / f"suite-{suite}" if suite else data / "cache", suite=suite)
    apt.refresh()
    records = {r.name: r for r in closure([name], apt.records([name]))}
    (package,) = apt.packages([records[name]])
    apt.fetch([package])
    with tempfile.TemporaryDirectory(prefix="loaders-", dir=data / "cache") as temporary:
        tree = unpack([apt.path(package)], Path(temporary))
        found = {loader: tree.disk.get(tree.resolve(path)) for loader, path in wanted.items()}
        if missing := [loader for loader, path in found.items() if path is None]:
            raise NotFound("loader-not-packaged", f"{name} {package.version} has no {', '.join(missing)}")
        return package.version, {loader: path.read_bytes() for loader, path in found.items() if path is not None}
