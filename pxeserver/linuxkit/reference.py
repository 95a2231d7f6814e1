"""Names of base images: `tiny`, `lab/tiny:1`, `reg.example:5000/a/b@sha256:...`, and the one full spelling of each.

As LinuxKit does, a name without a tag stays without one: the registry is asked for `latest`, but what is recorded
and looked up is the name as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pxeserver.errors import UsageError, Where

DEFAULT_DOMAIN = "docker.io"

_DOMAIN = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")  # OCI distribution specification, <name>
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A full name taken apart; `tag` and `digest` are "" when not given, and the digest decides if both are."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.domain}/{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """domain/path: what a repository is known by."""
        return f"{self.domain}/{self.path}"


def expand(ref: str) -> str:
    """The full spelling: `x` -> docker.io/library/x, `a/x` -> docker.io/a/x, `host/x` as it is. Checks nothing."""
    first, slash, rest = ref.partition("/")
    if not slash:
        return f"{DEFAULT_DOMAIN}/library/{ref}"
    if "/" not in rest and not _is_domain(first):
        return f"{DEFAULT_DOMAIN}/{ref}"
    return ref


def _is_domain(first: str) -> bool:
    """Whether the first part of a name is a registry: only then does it look like a host."""
    return "." in first or ":" in first or first == "localhost"


def parse(ref: str, where: Where | None = None) -> Reference:
    """The parts of `ref`, expanded; UsageError "bad-reference" with `where` when it names no image."""
    domain, slash, rest = expand(ref).partition("/")
    if not _is_domain(domain):
        domain, rest = DEFAULT_DOMAIN, domain + slash + rest
    name, at, digest = rest.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon:
        path, tag = name, ""
    fault = _fault(ref, domain, path)
    if colon and not _TAG.fullmatch(tag):
        fault = f'"{tag}" is no tag'
    elif at and not _DIGEST.fullmatch(digest):
        fault = f'"{digest}" is no digest'
    if fault:
        shown = ref if len(ref) <= 200 else ref[:200] + "..."
        raise UsageError("bad-reference", f'"{shown}" names no image: {fault}', hint=_hint(ref), where=where)
    return Reference(domain, path, tag, digest)


def _fault(ref: str, domain: str, path: str) -> str:
    if not ref:
        return "it is empty"
    if not _DOMAIN.fullmatch(domain):
        return f'"{domain}" is no registry'
    for part in path.split("/"):
        if not _PART.fullmatch(part):
            may = f'"{part}" may hold small letters and digits, with dots, dashes and underscores between them, only'
            return may if part else "an empty part"
    return "it is longer than 255 characters" if len(path) > 255 else ""


def _hint(ref: str) -> str:
    if ref.startswith("@pkg:"):
        return "that package could not be found: it needs a build.yml with an image, in a git work tree"
    if "://" in ref:
        return "leave out " + ref.partition("://")[0] + "://"
    return "write it in small letters" if ref != ref.lower() and "@" not in ref else "NAME[:TAG][@DIGEST]"
