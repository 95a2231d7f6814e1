"""Lint rules about what must not be in an image (everybody on the boot network can fetch it), and about pinning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pxeserver.errors import Where
from pxeserver.linuxkit import plan, reference, trust
from pxeserver.linuxkit.lintbase import Problem, Rule, Subject

LOCAL = "docker.io/pxeserver/"  # made on this host by `bases build`, never fetched under this name
_TREE_HASH = re.compile(r"[0-9a-f]{40}(?:-[a-z0-9]+)?")  # LinuxKit's tags say themselves what was built
_FIX = "keep it out of the image: pxeserver machines set NAME --var KEY=VALUE, and a metadata container in onboot"

_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|AGE-SECRET-KEY-1[0-9A-Z]{50,}")
_HASH = re.compile(r"(?<![\w$])\$(?:1|2[abxy]?|5|6|7|y|gy|apr1|argon2(?:i|d|id))\$[./A-Za-z0-9,=$]{16,}")
_TOKENS = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a Docker token", r"\bdckr_pat_[A-Za-z0-9_-]{20,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    ("a Vault token", r"\bhv[sb]\.[A-Za-z0-9_-]{24,}"),
    ("a Tailscale key", r"\btskey-[a-z]+-[A-Za-z0-9-]{10,}"),
    ("a k3s join token", r"\bK10[0-9a-f]{64}::"),
    ("a signed web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
)
_TOKEN = [(what, re.compile(pattern)) for what, pattern in _TOKENS]
_LOGIN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:(?P<value>[^\s/@'\"]+)@")
_DOCKER_LOGIN = re.compile(r'"auths"\s*:.*"(?:auth|identitytoken|password)"\s*:\s*"(?P<value>[^"]+)"', re.DOTALL)
_NAMED = re.compile(
    r"(?i)^-{0,2}(?P<name>[\w.-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key))=(?P<value>.+)$"
)
_NO_SECRET = re.compile(r"(?i)^(?:[/$@<{*].*|true|false|yes|no|none|null|on|off|[01]|)$")

Text = tuple[Where, str, bool]  # place, text, whether it is one setting (NAME=VALUE, a word of a command)


def _texts(subject: Subject) -> Iterator[Text]:
    """Every text of the spec that ends up in the image, files that it names included."""
    loaded = subject.loaded
    for word in subject.arguments:
        yield loaded.place("kernel", "cmdline"), word, True
    for container in subject.containers:
        for field in ("env", "command"):
            for i, word in enumerate(getattr(container.own, field) or ()):
                yield container.place(field, i), word, True
        for key, value in {**(container.own.annotations or {}), **(container.own.sysctl or {})}.items():
            name = "annotations" if key in (container.own.annotations or {}) else "sysctl"
            yield container.place(name, key), f"{key}={value}", True
    for entry in subject.files:
        if entry.kind != "file":
            continue
        key = "source" if entry.source else "contents"
        data = subject.read(entry.source) if entry.source else entry.content
        if data:
            yield loaded.place("files", subject.item(entry), key), data.decode("utf-8", "replace"), False


def _found(subject: Subject, what: Callable[[str, bool], str]) -> Iterator[Problem]:
    """One problem for each text in which `what` sees something; the secret itself is never repeated."""
    for where, text, setting in _texts(subject):
        if name := what(text, setting):
            yield Problem(where, f"{name} would be in the image, which everybody on the boot network can fetch", _FIX)


def _private_key(subject: Subject) -> Iterator[Problem]:
    return _found(subject, lambda text, _: "a private key" if _PRIVATE_KEY.search(text) else "")


def _token(subject: Subject) -> Iterator[Problem]:
    return _found(subject, lambda text, _: next((what for what, rx in _TOKEN if rx.search(text)), ""))


def _hash(subject: Subject) -> Iterator[Problem]:
    return _found(subject, lambda text, _: "a password hash" if _HASH.search(text) else "")


def _password(subject: Subject) -> Iterator[Problem]:
    return _found(subject, _password_in)


def _password_in(text: str, setting: bool) -> str:
    if any(rx.search(text) for _, rx in _TOKEN) or _HASH.search(text) or _PRIVATE_KEY.search(text):
        return ""  # said already, by a better name
    named = _NAMED.match(text) if setting else None
    if named and not _NO_SECRET.match(named["value"]):
        return f"the value of {named['name'].lstrip('-')}"
    login = _LOGIN_URL.search(text)
    if login and not _NO_SECRET.match(login["value"]):
        return "a login within a URL"
    return "a registry login" if _DOCKER_LOGIN.search(text) else ""


def _unpinned(subject: Subject) -> Iterator[Problem]:
    for use in plan.uses(subject.loaded):
        parsed = reference.parse(use.ref)
        pinned = parsed.digest or use.ref in subject.pinned or _TREE_HASH.fullmatch(parsed.tag)
        if pinned or use.ref.startswith(LOCAL):
            continue
        moves = (
            f"the tag {parsed.tag} can be given to another image" if parsed.tag else "without a tag it is the latest"
        )
        base = subject.bases.get(use.ref)
        digest = base.digest if base else "sha256:..."
        file = use.where.file or "SPEC"
        yield Problem(
            use.where,
            f"{use.ref} is not pinned: {moves}, and the same spec builds something else",
            f"pxeserver specs lock {file}, or write {use.ref}@{digest}",
        )


def _trust_unused(subject: Subject) -> Iterator[Problem]:
    refs = {use.ref for use in plan.uses(subject.loaded)}
    for rule in trust.rules(subject.loaded):
        if subject.whole and not any(map(rule.covers, refs)):
            yield Problem(
                rule.where,
                f"{rule} means none of the images of this spec, so it protects nothing",
                "write it as the images are written, without a tag: linuxkit/kernel, or linuxkit for all of them",
            )


RULES = (
    Rule("image-unpinned", "warning", "a base image that is not pinned, by digest or in the lock file", _unpinned),
    Rule("trust-unused", "warning", "a line of trust that means none of the spec's images", _trust_unused),
    Rule("secret-private-key", "error", "a private key in a file, a variable or a command", _private_key),
    Rule("secret-token", "error", "a token of a well-known service", _token),
    Rule("secret-password-hash", "warning", "a password hash, which can be guessed at leisure", _hash),
    Rule("secret-password", "warning", "a password, in a variable, a command, a URL or a registry login", _password),
)
