"""House rules that a reader relies on: imports go down only, modules and functions stay small, cli/ alone prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pxeserver"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "data" not in p.relative_to(PACKAGE).parts[:1])
# Top to bottom, as docs/architecture.md lists them. What is no room is the foundation, below all.
ROOMS = ("cli", "web", "serve", "local", "fleet", "images", "boot", "linuxkit", "wire")
FOUNDATION = {"checked", "errors", "model", "mac", "yamlpos", "config", "resources", "serial", "tools", "units", "when"}
LINES_MAX, FUNCTION_MAX = 400, 60


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0] if parts and parts[0] in (*ROOMS, "sim") else "foundation"


def level(room: str) -> float:
    """Higher may import lower; sim/ stands between serve/ and local/."""
    if room == "sim":
        return level("serve") - 0.5
    return len(ROOMS) - ROOMS.index(room) if room in ROOMS else 0


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every import of our own, late ones in functions too, as the path below pxeserver/."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(("pxeserver", *package[: len(package) - node.level + 1], base)).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "pxeserver" and rest:
                yield node.lineno, tuple(rest)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    room = room_of(parts)
    if room == "foundation" and parts[0] == "__main__.py":
        return  # the entry point hands over to the command line
    tree = ast.parse(path.read_text())
    wrong = [
        f"{name_of(path)}:{line} imports {'.'.join(target)}"
        for line, target in imports(tree, parts[:-1])
        if room_of(target) != room and level(room_of(target)) >= level(room)
    ]
    assert not wrong


def test_every_folder_is_a_known_room() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name not in ("__pycache__", "data")}
    assert rooms <= {*ROOMS, "sim"}
    files = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert files <= FOUNDATION


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_MAX
    ]
    assert not long


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p.relative_to(PACKAGE).parts) != "cli"], ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))
