"""Reading specs from wherever a person keeps them: a file, standard input, a URL."""

from __future__ import annotations

import platform
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from pxeserver.errors import NotFound, Unreachable
from pxeserver.linuxkit.loader import SpecSource

_LIMIT = 16 << 20  # bytes of a spec behind a URL
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}


def host_arch() -> str:
    """This host's architecture as Go spells it."""
    machine = platform.machine()
    return _ARCHES.get(machine, machine)


def read(text: str, stdin: BinaryIO) -> SpecSource:
    """The spec that `text` names: a path, "-", or an http(s) URL. NotFound "spec-not-found", Unreachable "spec-url"."""
    if text == "-":
        return SpecSource("-", stdin.read())
    if urlsplit(text).scheme in ("http", "https"):
        return SpecSource(text, _fetched(text))
    path = Path(text)
    try:
        return SpecSource(text, path.read_bytes(), path.absolute().parent)
    except OSError as error:
        raise NotFound(
            "spec-not-found", f"cannot open spec {text}: {error.strerror}", hint="pxeserver specs ls"
        ) from None


def exists(text: str) -> bool:
    """Whether `text` says itself where the spec is, rather than being the name of a known one."""
    return text == "-" or "://" in text or Path(text).exists()


def image_name(text: str) -> str:
    """What an image of this spec is called unless told otherwise: the base name without its extension."""
    if text == "-":
        return "moby"  # as LinuxKit calls it
    path = urlsplit(text).path if urlsplit(text).scheme in ("http", "https") else text
    name = PurePosixPath(path).name
    return name.rpartition(".")[0] if "." in name else name


def _fetched(url: str) -> bytes:
    import httpx

    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30) as answer:
            answer.raise_for_status()
            data = b""
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > _LIMIT:
                    raise Unreachable("spec-url", f"{url} has more than {_LIMIT >> 20} MiB: that is no spec")
            return data
    except httpx.HTTPError as error:
        raise Unreachable(
            "spec-url", f"cannot read {url}: {str(error).partition(chr(10))[0] or type(error).__name__}"
        ) from None
