"""Where the standard loaders come from: the distribution's package `ipxe`, on this host or from its mirror."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from pxeserver.errors import NotFound
from pxeserver.local.bases import sources
from pxeserver.local.bases.apt import Apt, closure, run
from pxeserver.local.bases.deb import unpack
from pxeserver.local.loaders import STANDARD, Loader, LoaderSet

PACKAGE = "ipxe"
INSTALLED = Path("/usr/lib/ipxe")


def ensure(data: Path) -> tuple[Loader, ...]:
    """Bring the standard loaders that `data`/loaders lacks; those brought. Others are left as they are."""
    have = {x.name for x in LoaderSet(data / "loaders").list() if x.state != "missing"}
    return () if have >= set(STANDARD) else fetch(data, only=lambda name: name not in have)


def fetch(data: Path, suite: str = "", only: Callable[[str], bool] = lambda _: True) -> tuple[Loader, ...]:
    """Put the standard loaders into `data`/loaders, in place of those there; the loaders that were put.

    Without a `suite` they come from the installed package if there is one, else from the system's own suite; with
    one, from that suite of the same mirror. Nothing is installed. Unreachable "mirror-failed" when apt cannot get it.
    """
    wanted = [name for name in STANDARD if only(name)]
    if not suite and all((INSTALLED / name).exists() for name in wanted):
        version = run(["dpkg-query", "--show", "--showformat=${Version}", PACKAGE])
        origin = f"package {PACKAGE}, installed"
        files = {name: (INSTALLED / name).read_bytes() for name in wanted}
    else:
        version, files = _unpacked(data, suite, wanted)
        origin = f"package {PACKAGE} of {suite or sources.codename(sources.OS_RELEASE.read_text())}"
    loaders = LoaderSet(data / "loaders")
    return tuple(loaders.add(content, name, version=version, origin=origin) for name, content in files.items())


def _unpacked(data: Path, suite: str, wanted: list[str]) -> tuple[str, dict[str, bytes]]:
    """(version, name -> content) out of the mirror's package."""
    apt = Apt(data / "cache" / f"suite-{suite}" if suite else data / "cache", suite=suite)
    apt.refresh()
    records = {r.name: r for r in closure([PACKAGE], apt.records([PACKAGE]))}
    (package,) = apt.packages([records[PACKAGE]])
    apt.fetch([package])
    with tempfile.TemporaryDirectory(prefix="loaders-", dir=data / "cache") as temporary:
        tree = unpack([apt.path(package)], Path(temporary))
        found = {name: tree.disk.get(tree.resolve(f"usr/lib/ipxe/{name}")) for name in wanted}
        if missing := [name for name, path in found.items() if path is None]:
            raise NotFound("loader-not-packaged", f"{PACKAGE} {package.version} has no {', '.join(missing)}")
        return package.version, {name: path.read_bytes() for name, path in found.items() if path is not None}
