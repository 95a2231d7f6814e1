"""The distribution's own suites out of apt's configuration, so that nothing from a third party gets into an image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pxeserver.errors import NotFound

ETC = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")


def codename(os_release: str) -> str:
    """VERSION_CODENAME of an os-release(5) file, "" when it has none."""
    found = re.search(r'(?m)^VERSION_CODENAME="?([a-z]+)"?$', os_release)
    return found[1] if found else ""


def own(
    etc: Path = ETC, os_release: Path = OS_RELEASE, components: Sequence[str] = (), suite: str = ""
) -> dict[str, str]:
    """File name -> text for a private sources.list.d: the entries for this release's suites that carry `main`.

    `components` are added to each; `suite` takes the place of the release's main one, and of the others nothing is
    taken. Without a release that apt knows, every entry with `main` is taken. NotFound "mirror-unknown" when nothing
    is left.
    """
    name = codename(os_release.read_text()) if os_release.is_file() else ""
    theirs = {name} if suite else {name, f"{name}-updates", f"{name}-security", f"{name}/updates"}
    for suites in (theirs if name else None, None):
        lines = [x for file in _files(etc, ".list") for x in _one_line(file.read_text(), suites, suite, components)]
        blocks = [x for file in _files(etc, ".sources") for x in _deb822(file.read_text(), suites, suite, components)]
        found = {"own.list": "\n".join(lines), "own.sources": "\n\n".join(blocks)}
        found = {file: text + "\n" for file, text in found.items() if text}
        if found:
            return found
    raise NotFound("mirror-unknown", f'apt has no source for "{name}" main', hint="see /etc/apt/sources.list")


def _files(etc: Path, suffix: str) -> Iterable[Path]:
    top = etc / "sources.list"
    if suffix == ".list" and top.is_file():
        yield top
    yield from sorted((etc / "sources.list.d").glob("*" + suffix))


def _one_line(text: str, suites: set[str] | None, instead: str, more: Sequence[str]) -> Iterable[str]:
    """`deb [options] uri suite component...` (sources.list(5), one-line style)."""
    for line in text.splitlines():
        found = re.fullmatch(r"\s*deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]+?)\s*(#.*)?", line)
        if found and _fits([found[3]], found[4].split(), suites):
            yield f"deb {found[1] or ''}{found[2]} {instead or found[3]} {_join(found[4].split(), more)}"


def _deb822(text: str, suites: set[str] | None, instead: str, more: Sequence[str]) -> Iterable[str]:
    """Stanzas of `Field: value` (sources.list(5), deb822 style); values may go on in indented lines."""
    for block in re.split(r"\n\s*\n", text):
        kept = "\n".join(x for x in block.splitlines() if not x.startswith("#"))
        fields = {k.lower(): v for k, v in re.findall(r"(?m)^([A-Za-z-]+):[ \t]*((?:.*)(?:\n[ \t].*)*)", kept)}
        wanted = [s for s in fields.get("suites", "").split() if suites is None or s in suites]
        components = fields.get("components", "").split()
        if (
            fields.get("enabled", "yes").strip().lower() not in ("no", "false", "0")
            and "deb" in fields.get("types", "").split()
            and _fits(wanted, components, None)
        ):
            fields |= {"types": "deb", "suites": instead or " ".join(wanted), "components": _join(components, more)}
            yield "\n".join(f"{name.title()}: {value}" for name, value in fields.items())


def _fits(found: Sequence[str], components: Sequence[str], suites: set[str] | None) -> bool:
    return bool(found) and "main" in components and (suites is None or bool(set(found) & suites))


def _join(components: Sequence[str], more: Sequence[str]) -> str:
    return " ".join(dict.fromkeys([*components, *more]))
