"""Recorded LinuxKit builds: running a build the same way, and reading what either of them made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import posixpath
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pxeserver.cli.main import cli
from pxeserver.images import compress
from pxeserver.images.pgzip import onearchive

ROOT = Path(os.environ.get("PXESERVER_CONFORMANCE", "/nonexistent"))
IMAGES = ROOT / "images"
WHY_NOT = "PXESERVER_CONFORMANCE names no folder of recorded LinuxKit builds (they are no part of the source tree)"
Line = list[Any]  # type, mode, uid, gid, and what belongs to the type


@dataclass(frozen=True)
class Recording:
    """One recorded run of LinuxKit."""

    file: Path
    body: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.file.parent.name}/{self.file.stem}"

    @property
    def inputs(self) -> Path:
        return self.file.parent / "in"

    @property
    def texts(self) -> Path:
        """The generated JSON files, as they were."""
        return self.file.parent / f"{self.body['run']}.text"

    @property
    def refused(self) -> bool:
        return bool(self.body["rc"])

    @property
    def said(self) -> str:
        return "\n".join([*(self.body.get("stdout") or []), *(self.body.get("stderr") or [])])


def recordings() -> list[Recording]:
    return [Recording(file, json.loads(file.read_bytes())) for file in sorted(ROOT.glob("cases/*/*.json"))]


@dataclass(frozen=True)
class Run:
    """What our build did, in `folder`."""

    code: int
    err: str
    folder: Path
    made: frozenset[str]


def build(recording: Recording, folder: Path, data: Path, *flags: str) -> Run:
    """The recorded arguments in a copy of the inputs; `data` may be shared, so that segments are made once."""
    shutil.copytree(recording.inputs, folder, symlinks=True)
    arguments = recording.body["argv"][2:]
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag == "--dir":
            (folder / value).mkdir(parents=True, exist_ok=True)
    before = _files(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        command = ["--data", str(data), "build", "-q", f"--source=oci:{IMAGES}", *flags, *arguments]
        done = CliRunner().invoke(cli, command, input=b"", catch_exceptions=False)
    finally:
        os.chdir(here)
    return Run(done.exit_code, done.stderr, folder, frozenset(_files(folder) - before))


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink()}


def one_archive(initrd: bytes) -> bytes:
    """The uncompressed initrd as the one archive that LinuxKit writes."""
    return b"".join(onearchive.joined(compress.opened(io.BufferedReader(io.BytesIO(initrd)))))


def tree_of(kind: str, data: bytes, texts: dict[str, bytes]) -> dict[str, Line]:
    """path -> line of an archive; the last entry counts, and what is no folder (any more) has nothing below it.

    `texts` gets the content of JSON files.
    """
    tree: dict[str, Line] = {}
    for path, line, content in _cpio(one_archive(data)) if kind.endswith("cpio") else _tar(data):
        if line[0] != "d" and tree.get(path, line)[0] == "d":
            tree = {p: x for p, x in tree.items() if not p.startswith(f"{path}/")}
        tree[path] = line
        if line[0] == "f" and path.endswith(".json"):
            texts[path] = content
    return tree


def last_of_each(kind: str, data: bytes) -> dict[str, Line]:
    """path -> line of its last entry in an archive, whatever becomes of the folders above it."""
    return {p: line for p, line, _ in (_cpio(one_archive(data)) if kind.endswith("cpio") else _tar(data))}


def _tar(data: bytes) -> Iterator[tuple[str, Line, bytes]]:
    kinds = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c"}
    kinds |= {tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for item in tar:
            kind = kinds.get(item.type, "f")
            file = tar.extractfile(item) if kind == "f" else None
            content = file.read() if file else b""
            numbers = (item.devmajor, item.devminor)
            yield (
                _clean(item.name),
                _line(kind, item.mode, item.uid, item.gid, content, item.linkname, numbers),
                content,
            )


def _cpio(data: bytes) -> Iterator[tuple[str, Line, bytes]]:
    kinds = {0o04: "d", 0o10: "f", 0o12: "l", 0o02: "c", 0o06: "b", 0o01: "p"}
    at = 0
    while True:
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, uid, gid, size, name_size = (numbers[i] for i in (1, 2, 3, 6, 11))
        name = os.fsdecode(data[at + 110 : at + 109 + name_size])
        if name == "TRAILER!!!":
            return
        start = -(-(at + 110 + name_size) // 4) * 4
        content = data[start : start + size]
        at = -(-(start + size) // 4) * 4
        line = _line(kinds[mode >> 12], mode, uid, gid, content, os.fsdecode(content), (numbers[9], numbers[10]))
        yield _clean(name), line, content


def _line(kind: str, mode: int, uid: int, gid: int, content: bytes, link: str, numbers: tuple[int, int]) -> Line:
    line: Line = [kind, f"{mode & 0o7777:04o}", uid, gid]
    if kind == "f":
        return [*line, len(content), hashlib.sha256(content).hexdigest()]
    if kind in "lh":
        return [*line, link]
    return [*line, *numbers] if kind in "cb" else line


def _clean(name: str) -> str:
    return posixpath.normpath(name or ".").lstrip("/") or "."


def _blob(digest: str) -> Any:
    return json.loads((IMAGES / "blobs" / digest.replace(":", "/")).read_bytes())


def layers() -> Iterator[tuple[str, list[str]]]:
    """Image -> the names in one of its layers, for every layer of every recorded base image."""
    for entry in json.loads((IMAGES / "index.json").read_bytes())["manifests"]:
        manifest = _blob(entry["digest"])
        if "manifests" in manifest:
            manifest = _blob(manifest["manifests"][0]["digest"])
        for layer in manifest["layers"]:
            data = (IMAGES / "blobs" / layer["digest"].replace(":", "/")).read_bytes()
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                yield entry["annotations"]["org.opencontainers.image.ref.name"], [_clean(m.name) for m in tar]
