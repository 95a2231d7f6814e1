"""`@pkg:FOLDER` in a spec: the full reference of the LinuxKit package that is kept in that folder of a git tree.

The name comes from the folder's build.yml, the tag is the git tree hash of the folder at HEAD, with
`-dirty-<7 hex>` behind it when the work tree differs, so it is the tag that `linuxkit pkg build` gave the image.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

from pxeserver import yamlpos
from pxeserver.errors import PxeServerError
from pxeserver.linuxkit import reference

PREFIX = "@pkg:"
_TREE = re.compile(r"[0-7]{6} [^ ]+ ([0-9a-f]{40})\t")


class _Unresolved(Exception):
    """Why a template stays as it is."""


def resolve(data: Any, folder: Path) -> tuple[Any, list[str]]:
    """`data` with every resolvable template replaced, and one sentence for each that is not. Folders are relative to
    `folder`, the one of the spec file."""
    notes: list[str] = []

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, str) or not value.startswith(PREFIX):
            return value
        try:
            return package(folder / value.removeprefix(PREFIX))
        except _Unresolved as why:
            notes.append(f'"{value}" is left as it is: {why}')
            return value

    return walk(data), notes


def package(folder: Path) -> str:
    """docker.io/ORG/IMAGE:HASH of the package in `folder`."""
    try:
        path = folder.resolve(strict=True)
        doc = yamlpos.parse((path / "build.yml").read_bytes(), str(path / "build.yml"))
    except (OSError, ValueError, PxeServerError) as error:
        raise _Unresolved(str(error)) from None
    info = doc.data if isinstance(doc.data, dict) else {}
    image, org = info.get("image"), info.get("org", "linuxkit")
    if not isinstance(image, str) or not image or not isinstance(org, str):
        raise _Unresolved(f"{doc.file} names no image")
    return reference.expand(f"{org}/{image}:{_hash(path, info.get('extra-sources') or [])}")


def _hash(path: Path, extra: Any) -> str:
    found = _tree(path)
    sources = [str(source).partition(":")[0] for source in extra] if isinstance(extra, list) else []
    if sources:
        trees = [_tree((path / source).resolve()) for source in sources]
        found = hashlib.sha1("".join((found, *trees)).encode(), usedforsecurity=False).hexdigest()
    return f"{found}-dirty-{_content(path)[:7]}" if _dirty(path) else found


def _tree(path: Path) -> str:
    """Tree hash of `path` at HEAD; of the whole commit when it is the top of the work tree."""
    if Path(_git(path, "rev-parse", "--show-toplevel").strip()) == path:
        return _git(path, "rev-parse", "HEAD^{tree}").strip()
    match = _TREE.match(_git(path, "ls-tree", "--full-tree", "HEAD", "--", str(path)))
    if match is None:
        raise _Unresolved(f"{path} is not in git")
    return match.group(1)


def _dirty(path: Path) -> bool:
    """Whether tracked files differ from HEAD or untracked ones are there."""
    if _git(path, "ls-files", "--exclude-standard", "--others", "--", str(path)):
        return True
    return bool(_git(path, "diff", "--no-ext-diff", "--name-only", "HEAD", "--", str(path)))


def _content(path: Path) -> str:
    """Hash of the regular files, tracked ones first; what cannot be read is left out."""
    digest = hashlib.sha256()
    for arguments in (("ls-files",), ("ls-files", "--exclude-standard", "--others")):
        for name in _git(path, *arguments).splitlines():
            file = path / name
            if file.is_file() and not file.is_symlink():
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unresolved(f"git: {error}") from None
    if done.returncode != 0:
        raise _Unresolved(f"git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape")
