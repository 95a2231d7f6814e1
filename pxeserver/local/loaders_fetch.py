"""Where the standard loaders come from: the distribution's package `ipxe`, on this host or from its mirror."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from pxeserver.errors import NotFound, PxeServerError, Unreachable
from pxeserver.local.loaders import STANDARD, Loader, LoaderSet

PACKAGE = "ipxe"
INSTALLED = Path("/usr/lib/ipxe")


def ensure(loaders: LoaderSet) -> tuple[Loader, ...]:
    """Bring the standard loaders that the set lacks; those brought. Others are left as they are."""
    have = {x.name for x in loaders.list() if x.state != "missing"}
    return () if have >= set(STANDARD) else fetch(loaders, only=lambda name: name not in have)


def fetch(loaders: LoaderSet, suite: str = "", only: Callable[[str], bool] = lambda _: True) -> tuple[Loader, ...]:
    """Put the standard loaders into the set, in place of those there; the loaders that were put.

    Without a `suite` they come from the installed package if there is one, else from the system's own suite; with
    one, from that suite of the same mirror. Nothing is installed. Unreachable "mirror-failed" when apt cannot get it.
    """
    if not suite and all((INSTALLED / name).exists() for name in STANDARD):
        return _take(loaders, INSTALLED, _installed_version(), f"package {PACKAGE}, installed", only)
    mirror, own, options = system_mirror()
    suite = suite or own
    with tempfile.TemporaryDirectory(prefix="pxeserver-loaders-") as temporary:
        folder = Path(temporary)
        deb = download(PACKAGE, mirror, suite, options, folder)
        _run(["dpkg-deb", "--extract", str(deb), str(folder / "x")])
        version = _run(["dpkg-deb", "--field", str(deb), "Version"]).strip()
        return _take(loaders, folder / "x/usr/lib/ipxe", version, f"package {PACKAGE} of {suite}", only)


def system_mirror() -> tuple[str, str, str]:
    """(URL, suite, options in brackets) of the system's own packages, from apt's configuration."""
    fields = ("Codename", "Release", "Component", "Repo-URI", "Signed-By")
    text = _run(["apt-get", "indextargets", "Created-By: Packages"])
    targets = []
    for block in text.split("\n\n"):
        found = dict(re.findall(r"(?m)^([A-Za-z-]+): ?(.*)$", block))
        targets.append({name: found.get(name, "") for name in fields})
    release = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text()))
    own = release.get("VERSION_CODENAME", "")
    for target in targets:
        if target["Component"] == "main" and own in (target["Codename"], target["Release"]):
            signed = f"[signed-by={target['Signed-By']}] " if target["Signed-By"].startswith("/") else ""
            return target["Repo-URI"], own, signed
    raise NotFound("mirror-unknown", f'apt has no source for "{own}" main', hint="see /etc/apt/sources.list")


def download(package: str, mirror: str, suite: str, options: str, folder: Path) -> Path:
    """Get a package file from one suite by a private apt configuration that shares nothing but the keys."""
    for name in ("lists/partial", "cache/archives/partial", "none.d"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb {options}{mirror} {suite} main\n")
    settings = {
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": folder / "none.d",
        "Dir::Etc::PreferencesParts": folder / "none.d",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # the folder is ours alone
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "update"], folder)
    _run([*apt, "download", package], folder)
    return next(folder.glob(f"{package}_*.deb"))


def _take(
    loaders: LoaderSet, folder: Path, version: str, origin: str, only: Callable[[str], bool]
) -> tuple[Loader, ...]:
    wanted = [name for name in STANDARD if only(name)]
    # packages link ipxe.efi to another place of theirs, some by an absolute path
    top = folder.parents[2]
    files = {name: _resolve(folder / name, top) for name in wanted}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise NotFound("loader-not-packaged", f"{origin} {version} has no {', '.join(missing)}")
    return tuple(loaders.add(files[name].read_bytes(), name, version=version, origin=origin) for name in wanted)


def _resolve(path: Path, top: Path) -> Path:
    while path.is_symlink():
        path = (
            top / str(path.readlink()).lstrip("/") if path.readlink().is_absolute() else path.parent / path.readlink()
        )
    return path


def _installed_version() -> str:
    return _run(["dpkg-query", "--show", "--showformat=${Version}", PACKAGE]).strip()


def _run(argv: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise PxeServerError(
            "no-packages",
            f"{argv[0]} is not on this host",
            hint="take a loader of your own: pxeserver loaders add FILE",
        ) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise Unreachable("mirror-failed", f"{argv[0]}: {' '.join(errors[:2]).strip()}")
    return done.stdout
