"""Asking the distribution for packages through a private apt state: no root, no change to the system's own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pxeserver.errors import NotFound, PxeServerError, Unreachable
from pxeserver.local.bases import sources
from pxeserver.local.bases.lock import Package

FRESH_SECONDS = 24 * 3600  # how long the package lists are trusted before they are fetched again
_HELPER = "/usr/lib/apt/apt-helper"
_BATCH = 8  # packages per download call: progress moves, and apt still pipelines


@dataclass(frozen=True, slots=True)
class Record:
    """What the archive says about a package's newest version."""

    name: str
    version: str
    section: str
    depends: tuple[str, ...]  # the first alternative of each
    sha256: str
    size: int


class Apt:
    """`folder` keeps lists and cached packages. `components` are asked for besides those that the system enables.

    `suite` "" = the system's own release, else another suite of the same mirror. `arch` "" = this host's, else another
    one as Debian spells it: its packages are only unpacked, never run.
    """

    def __init__(self, folder: Path, components: Sequence[str] = (), suite: str = "", arch: str = "") -> None:
        folder = folder.absolute()  # apt puts a relative one below its own
        self._components = tuple(components)
        self._suite = suite
        self.arch = arch or host_arch()
        self._state = folder / ("apt" if self.arch == host_arch() else f"apt-{arch}")
        self._packages = folder / "packages"

    def refresh(self, *, force: bool = False) -> None:
        """Fetch the package lists when they are old, missing, or for other sources.

        Unreachable "mirror-failed"; the lists from before, if any (`listed`), can still be used then.
        """
        wanted = sources.own(components=self._components, suite=self._suite)
        folder = self._state / "sources.d"
        for path in (folder, self._state / "lists/partial", self._state / "cache/archives/partial", self._packages):
            path.mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        self._conf.write_text(_CONF % {"arch": self.arch})
        stamp = self._state / "refreshed"
        same = {p.name: p.read_text() for p in folder.iterdir()} == wanted
        if not force and same and stamp.is_file() and time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
            return
        stamp.unlink(missing_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, text in wanted.items():
            (folder / name).write_text(text)
        self._run("apt-get", "-qq", "update")
        stamp.touch()

    def listed(self) -> bool:
        """There are package lists, of whatever age."""
        return any((self._state / "lists").glob("*Packages*"))

    def records(self, names: Iterable[str]) -> dict[str, Record]:
        """Everything there is to know for closing over these names: they, what they depend on, and so on."""
        found: dict[str, Record] = {}
        asked: set[str] = set()
        first = todo = set(names)
        while todo:
            asked |= todo
            text = self._run("apt-cache", "show", "--no-all-versions", "--quiet=2", *sorted(todo), fails=False)
            new = {r.name: r for r in parse_records(text)}
            found |= new
            asked_for = (r for r in new.values() if r.name in first or comes_along(r))
            todo = {d for r in asked_for for d in r.depends} - asked
        return found

    def packages(self, records: Iterable[Record]) -> tuple[Package, ...]:
        """The same as Packages, with the address that each can be had from."""
        records = sorted(records, key=lambda r: r.name)
        if not records:
            return ()
        uris = self._run("apt-get", "download", "--print-uris", *(f"{r.name}={r.version}" for r in records))
        urls = parse_uris(uris)
        return tuple(Package(r.name, r.version, self.arch, r.sha256, r.size, urls[r.name]) for r in records)

    def path(self, package: Package) -> Path:
        """Where a fetched package is."""
        return self._packages / f"{package.sha256}.deb"

    def fetch(self, packages: Iterable[Package], advance: Callable[[int], None] = lambda _: None) -> None:
        """Bring what is not cached. Unreachable "mirror-failed" when the archive does not have it (any more)."""
        self._packages.mkdir(parents=True, exist_ok=True)
        missing = [p for p in dict.fromkeys(packages) if not self._cached(p)]
        missing.sort(key=lambda p: -p.size)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            partial = {p: self._packages / f"{p.sha256}.{os.getpid()}.part" for p in batch}
            words = [w for p in batch for w in (p.url, str(partial[p]), f"SHA256:{p.sha256}")]
            try:
                self._run(_HELPER, "-qq", "download-file", *words)
                for package, part in partial.items():
                    if _sha256(part) != package.sha256:
                        raise PxeServerError("package-broken", f"{package.url} is not the recorded package")
                    part.rename(self.path(package))
                    advance(package.size)
            finally:
                for part in partial.values():
                    part.unlink(missing_ok=True)

    def _cached(self, package: Package) -> bool:
        path = self.path(package)
        return path.is_file() and path.stat().st_size == package.size and _sha256(path) == package.sha256

    @property
    def _conf(self) -> Path:
        return self._state / "apt.conf"

    def _run(self, program: str, *words: str, fails: bool = True) -> str:
        settings = {
            "Dir::State": self._state,
            "Dir::State::lists": self._state / "lists",
            "Dir::State::status": self._state / "status",
            "Dir::Cache": self._state / "cache",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self._state / "sources.d",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        return run([program, "-c", str(self._conf), *options, *words], fails=fails)


# Read after the system's own configuration, whose proxies and mirrors hold; its hooks and pins are not for us.
_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "%(arch)s";
APT::Architectures { "%(arch)s"; };
APT::Sandbox::User "root";
APT::Get::List-Cleanup "true";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


def parse_records(text: str) -> Iterable[Record]:
    """The stanzas that `apt-cache show` prints (deb-control(5)); those without a file in the archive are left out."""
    for block in re.split(r"\n{2,}", text):
        fields = dict(re.findall(r"(?m)^([A-Za-z0-9-]+): ?(.*)$", block))
        if {"Package", "Version", "SHA256", "Size"} <= fields.keys():
            groups = ",".join(fields.get(name, "") for name in ("Pre-Depends", "Depends")).split(",")
            firsts = (re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", group) for group in groups)
            yield Record(
                name=fields["Package"],
                version=fields["Version"],
                section=fields.get("Section", ""),
                depends=tuple(dict.fromkeys(f[1] for f in firsts if f)),
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
            )


def parse_uris(text: str) -> dict[str, str]:
    """Package name -> URL, from `apt-get download --print-uris`: 'URL' NAME_VERSION_ARCH.deb SIZE HASH."""
    return {found[1]: found[0] for found in re.findall(r"(?m)^'([^']+)' ([^_\s]+)_\S+", text)}


def comes_along(record: Record) -> bool:
    """Of what a package depends on we take libraries and, from one kernel package to the next, the kernel."""
    return record.section.rpartition("/")[2] in ("libs", "oldlibs") or record.name.startswith("linux-image-")


def closure(names: Sequence[str], records: Mapping[str, Record]) -> tuple[Record, ...]:
    """These packages with the libraries and kernels that they depend on; nothing else of theirs is wanted.

    NotFound "package-not-found" for a name of `names` that the archive does not have.
    """
    found: dict[str, Record] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        record = records.get(name)
        if record is None:
            raise NotFound(
                "package-not-found",
                f'the distribution has no package "{name}"',
                hint="see the components in /etc/apt/sources.list, or name one: --component non-free-firmware",
            )
        if name not in found:
            found[name] = record
            todo += [d for d in record.depends if d in records and comes_along(records[d])]
    return tuple(found[name] for name in sorted(found))


@cache
def host_arch() -> str:
    """This host's architecture as Debian spells it: amd64, arm64; Go spells these two the same."""
    return run(["dpkg", "--print-architecture"]).strip()


def run(argv: list[str], *, fails: bool = True) -> str:
    """Standard output of one of the distribution's programs; Unreachable "mirror-failed" when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        hint = "base images are made on Debian, or a system like it, with apt"
        raise PxeServerError("no-packages", f"{argv[0]} is not on this host", hint=hint) from None
    if done.returncode and fails:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise Unreachable("mirror-failed", f"{Path(argv[0]).name}: {' '.join(errors[:2]).strip()}")
    return done.stdout


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
