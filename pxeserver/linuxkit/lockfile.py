"""SPEC.lock: the digest of every base image that a spec names, in a file beside the spec.

version: 1
images:
  docker.io/linuxkit/kernel:5.10.92: sha256:...      of the index where there is one, so for every architecture
  docker.io/pxeserver/init: {amd64: sha256:..., arm64: sha256:...}      separate images under one name
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pxeserver import yamlpos
from pxeserver.checked import Part
from pxeserver.errors import UsageError
from pxeserver.linuxkit.loader import SpecSource

Pin = str | Mapping[str, str]  # a digest, or Go architecture -> digest
SUFFIX = ".lock"

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/:@-]*[A-Za-z0-9]")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _File(Part):
    version: Literal[1]
    images: dict[str, str | dict[str, str]]


@dataclass(frozen=True, slots=True)
class Lock:
    """`images` by expanded reference; `file` for people."""

    file: str
    images: Mapping[str, Pin] = field(default_factory=dict)

    def digest(self, ref: str, arch: str) -> str:
        """What `ref` is locked to for `arch`; "" when it is not."""
        pin = self.images.get(ref, "")
        return pin if isinstance(pin, str) else pin.get(arch, "")


def path_of(source: SpecSource) -> Path | None:
    """Where the lock of a spec is kept; None for a spec that is no file."""
    return None if source.folder is None else source.folder / (Path(source.name).name + SUFFIX)


def render(name: str, images: Mapping[str, Pin]) -> bytes:
    """The file for the spec file `name`: sorted, the same for the same digests whoever writes it."""
    lines = [
        f"# The base images of {name}, each pinned to its digest. It belongs beside the spec, under version control.",
        f"#   pxeserver specs lock {name}        writes it anew",
        f"#   pxeserver build --locked {name}    refuses any other image",
        "version: 1",
        "images:" if images else "images: {}",
    ]
    for ref in sorted(images):
        pin = images[ref]
        value = pin if isinstance(pin, str) else "{" + ", ".join(f"{_key(a)}: {pin[a]}" for a in sorted(pin)) + "}"
        lines.append(f"  {_key(ref)}: {value}")
    return ("\n".join(lines) + "\n").encode()


def _key(text: str) -> str:
    """In quotes where YAML would read a number (386) or a list ([::1]:5000/x)."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def parse(text: bytes, file: str) -> Lock:
    """UsageError "spec-lock-*" with the place of what makes no sense."""
    doc = yamlpos.parse(text, file)
    if not isinstance(doc.data, dict):
        raise UsageError("spec-lock-type", "a lock file is a map of version and images", where=doc.where(()))
    found = yamlpos.validate(_File, doc, slug="spec-lock")
    for ref, pin in found.images.items():
        for arch, digest in ({"": pin} if isinstance(pin, str) else pin).items():
            if not _DIGEST.fullmatch(digest):
                where = doc.where(("images", ref, arch) if arch else ("images", ref))
                raise UsageError(
                    "spec-lock-value", f'"{digest}" is no digest', hint="sha256:<64 hex digits>", where=where
                )
    return Lock(file, found.images)
