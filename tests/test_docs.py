"""Documents that cannot rot: every slug, verb and key that the code knows is explained, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pxeserver.boot.diagnose import FIXES

TOP = Path(__file__).resolve().parent.parent
ERRORS = {"PxeServerError", "UsageError", "NotFound", "Refused", "Unreachable", "Partial", "TimedOut", "Cause"}
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@lru_cache
def _slugs_in_code() -> dict[str, str]:
    """slug -> file, from every constructor of ours called with a literal first argument."""
    found: dict[str, str] = {}
    for file in sorted((TOP / "pxeserver").rglob("*.py")):
        for call in _calls(ast.parse(file.read_text())):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in ERRORS and call.args and isinstance(call.args[0], ast.Constant):
                found[str(call.args[0].value)] = str(file.relative_to(TOP))
            for word in call.keywords:
                if name in ERRORS and word.arg == "slug" and isinstance(word.value, ast.Constant):
                    found[str(word.value.value)] = str(file.relative_to(TOP))
    return found


def test_every_slug_is_explained_in_docs_errors() -> None:
    explained = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (TOP / "docs/errors.md").read_text(), re.M))
    code = _slugs_in_code()
    assert {slug: file for slug, file in code.items() if slug not in explained} == {}
    # slugs may be put together at run time (<prefix>-unknown-key); what is explained must still occur in the code
    sources = "\n".join(f.read_text() for f in (TOP / "pxeserver").rglob("*.py"))
    tails = ("-unknown-key", "-missing", "-type", "-value", "-name", "-form")
    assert [s for s in explained if s not in sources and not s.endswith(tails)] == []


def test_slugs_are_spelled_alike() -> None:
    assert [s for s in _slugs_in_code() if not SLUG.fullmatch(s)] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for file in [TOP / "README.md", TOP / "CHANGELOG.md", *(TOP / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", file.read_text()):
            if not (file.parent / target).exists():
                broken.append(f"{file.relative_to(TOP)} -> {target}")
    assert broken == []


def test_documents_name_files_that_exist() -> None:
    missing = []
    for file in [TOP / "README.md", *(TOP / "docs").glob("*.md")]:
        for name in re.findall(
            r"`((?:pxeserver|templates|config|tests|docs|systemd|bench)/[\w./-]+\.\w+)`", file.read_text()
        ):
            if not (TOP / name).exists():
                missing.append(f"{file.relative_to(TOP)}: {name}")
    assert missing == []


def test_every_cause_is_explained_with_its_fix() -> None:
    explained = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (TOP / "docs/errors.md").read_text(), re.M))
    assert set(FIXES) - explained == set()
