"""The exact set of packages that base images were made of: `bases.lock.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pxeserver.errors import NotFound, UsageError

VERSION = 1


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One .deb: what it is, where it was had from, and what its bytes must be."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    url: str

    @property
    def key(self) -> str:
        return f"{self.name}={self.version}"


@dataclass(frozen=True, slots=True)
class Lock:
    """`images`: name -> the packages it is made of. `arch` is Debian's name of the architecture."""

    arch: str
    images: Mapping[str, tuple[Package, ...]] = field(default_factory=dict)

    def with_image(self, name: str, packages: Iterable[Package]) -> Lock:
        return Lock(self.arch, {**self.images, name: tuple(sorted(packages))})

    def text(self) -> str:
        """JSON: `packages` once each, sorted; `images` refer to them by name=version (tools: name=version:arch)."""
        every = sorted({p for packages in self.images.values() for p in packages})
        images = {name: [_key(p, self.arch) for p in self.images[name]] for name in sorted(self.images)}
        body: dict[str, Any] = {
            "version": VERSION,
            "arch": self.arch,
            "images": images,
            "packages": [asdict(p) for p in every],
        }
        return json.dumps(body, indent=1) + "\n"


def _key(package: Package, arch: str) -> str:
    """The images of another architecture are made by this host's tools, whose packages may have the same names."""
    return package.key if package.arch == arch else f"{package.key}:{package.arch}"


def read(file: Path) -> Lock:
    """NotFound "lock-not-found" without the file, UsageError "lock-value" when it is no such record."""
    try:
        body = json.loads(file.read_text())
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']}, expected {VERSION}")
        packages = [Package(**p) for p in body["packages"]]
        known = {_key(p, str(body["arch"])): p for p in packages}
        images = {name: tuple(known[key] for key in keys) for name, keys in body["images"].items()}
        return Lock(str(body["arch"]), images)
    except FileNotFoundError:
        raise NotFound(
            "lock-not-found", f"no file {file}", hint="`pxeserver bases build` writes bases.lock.json"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError("lock-value", f"{file} is not a record of packages: {error}") from None
