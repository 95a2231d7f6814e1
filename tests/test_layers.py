"""House rules that a reader relies on: imports go down only, modules and functions stay small, cli/ alone prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "pxeserver"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "data" not in p.relative_to(PACKAGE).parts[:1])
# Top to bottom, as docs/architecture.md lists them. What is no room is the foundation, below all.
ROOMS = ("cli", "web", "serve", "local", "fleet", "images", "boot", "linuxkit", "wire")
FOUNDATION = {"checked", "errors", "model", "mac", "yamlpos", "config", "resources", "serial", "tools", "units", "when"}
LINES_MAX, FUNCTION_MAX = 400, 60


@lru_cache(None)
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


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


def test_imports_go_down_only() -> None:
    wrong = []
    for path in MODULES:
        parts = path.relative_to(PACKAGE).parts
        room = room_of(parts)
        if room == "foundation" and parts[0] == "__main__.py":
            continue  # the entry point hands over to the command line
        wrong += [
            f"{name_of(path)}:{line} imports {'.'.join(target)}"
            for line, target in imports(parsed(path), parts[:-1])
            if room_of(target) != room and level(room_of(target)) >= level(room)
        ]
    assert not wrong


def test_every_folder_is_a_known_room() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name not in ("__pycache__", "data")}
    assert rooms <= {*ROOMS, "sim"}
    files = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert files <= FOUNDATION


def test_modules_stay_small() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in sizes.items() if lines > LINES_MAX} == {}


def test_functions_stay_small() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_MAX
    ]
    assert not long


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if room_of(path.relative_to(PACKAGE).parts) != "cli"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints


def test_every_module_says_what_it_is() -> None:
    assert [name_of(p) for p in MODULES if parsed(p).body and not ast.get_docstring(parsed(p))] == []
