"""Recorded LinuxKit builds, when PXESERVER_CONFORMANCE names their folder: config.json, runtime.json and files.

The recordings are large and not part of the source tree, so without them there is nothing here to run.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from pathlib import Path
from typing import Any

import pytest

from pxeserver.errors import PxeServerError
from pxeserver.linuxkit import loader, plan
from pxeserver.linuxkit.entries import ContainerEntry, ImageDefaults, Plan, TreeEntry

ROOT = Path(os.environ.get("PXESERVER_CONFORMANCE", "/nonexistent"))
RUNS = sorted(ROOT.glob("cases/*/*.json"))
# What LinuxKit finds wrong with images or flags is not for a plan to see.
NOT_OURS = {
    "03-decompress-kernel/raw", "90-errors/cli-inputtar-pull", "90-errors/cli-o-notstream",
    "90-errors/cli-unknown-format", "90-errors/img-hosts-link-init", "90-errors/img-resolv-link",
    "90-errors/kernel-notar", "90-errors/vol-oci-single",
}  # fmt: skip


def blob(digest: str) -> Any:
    return json.loads((ROOT / "images" / "blobs" / digest.replace(":", "/")).read_bytes())


def image(ref: str) -> ImageDefaults:
    for entry in json.loads((ROOT / "images" / "index.json").read_bytes())["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == ref:
            manifest = blob(entry["digest"])
            if "manifests" in manifest:
                manifest = blob(manifest["manifests"][0]["digest"])
            return ImageDefaults.of(blob(manifest["config"]["digest"]))
    raise PxeServerError("image-missing", ref)


def build(run: dict[str, Any], folder: Path) -> Plan:
    names = [a for a in run["argv"] if a.endswith(".yml") and (folder / a).exists()]
    sources = [loader.SpecSource(name, (folder / name).read_bytes(), folder) for name in names]
    loaded = loader.load(sources, strict=True)
    return plan.plan(loaded, {use.ref: image(use.ref) for use in plan.uses(loaded)})


def compared(entry: TreeEntry) -> list[Any]:
    line: list[Any] = [entry.kind[0] if entry.kind != "symlink" else "l", f"{entry.mode:04o}", entry.uid, entry.gid]
    if entry.kind == "symlink":
        return [*line, entry.target]
    if entry.kind == "dir":
        return line
    content = entry.content if entry.source is None else entry.source.read_bytes()
    assert content is not None
    return [*line, len(content), hashlib.sha256(content).hexdigest()]


if RUNS:

    @pytest.mark.parametrize("file", RUNS, ids=lambda f: f"{f.parent.name}/{f.stem}")
    def test_a_recorded_build(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, folder = json.loads(file.read_bytes()), file.parent / "in"
        monkeypatch.chdir(folder)
        if run["rc"] != 0:
            if f"{file.parent.name}/{file.stem}" not in NOT_OURS:
                with pytest.raises(PxeServerError):
                    build(run, folder)
            return
        made = build(run, folder)
        texts = file.parent / f"{run['run']}.text"
        for entry in made.entries:
            if isinstance(entry, ContainerEntry) and (texts / entry.folder).is_dir():
                assert entry.config_json == (texts / entry.folder / "config.json").read_bytes()
                assert entry.runtime_json == (texts / entry.folder / "runtime.json").read_bytes()
        last = {posixpath.normpath(e.path): e for e in made.entries if isinstance(e, TreeEntry)}
        for output in run["outputs"].values():
            tree = output.get("tree") or {}
            assert {path: compared(e) for path, e in last.items() if tree} == {p: tree[p] for p in last if tree}
