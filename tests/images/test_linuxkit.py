"""Recorded LinuxKit builds: strict makes the very bytes; without it the differences are those of docs/linuxkit.md."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import recordedlab
from recordedlab import Line, Recording

TOP = Path(__file__).parent.parent.parent
DOC = TOP / "docs" / "linuxkit.md"
RECORDED = recordedlab.recordings()
CASES = sorted({r.file.parent.name for r in RECORDED})
recorded = pytest.mark.skipif(not RECORDED, reason=recordedlab.WHY_NOT)
# | `name` | LinuxKit | here | why | shown by |
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|(?:[^|]*\|){3} ([^|]+) \|$", re.M)
BY_RECORDING = "recorded builds"
# LinuxKit's bytes have files below a folder that becomes a link and a folder again; its recorded trees do not have them
REPLACED = ("11-tree-flatten/init-tar", "11-tree-flatten/init-initrd")


def listed() -> dict[str, str]:
    return dict(ROW.findall(DOC.read_text()))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@recorded
@pytest.mark.parametrize("case", CASES)
def test_a_strict_build_gives_the_recorded_bytes(case: str, data: Path, tmp_path: Path) -> None:
    for recording in (r for r in RECORDED if r.file.parent.name == case):
        done = recordedlab.build(recording, tmp_path / recording.file.stem, data, "--strict")
        if recording.refused:
            assert done.code != 0, recording.label
            assert not done.made, "nothing half made is left"
            assert names_the_field(recording, done.err), done.err
            continue
        assert (done.code, done.err) == (0, "".join(f"wrote {x}\n" for x in written(done.err))), recording.label
        assert done.made == set(recording.body["outputs"]), recording.label
        for name, want in recording.body["outputs"].items():
            made = (done.folder / name).read_bytes()
            if recording.label in REPLACED and "tree" in want:
                assert recordedlab.last_of_each(want["kind"], made) == want["tree"], recording.label
                assert recordedlab.tree_of(want["kind"], made, {}) == want["tree"], recording.label
                continue
            if "raw_sha256" in want:
                made = made if want["kind"] == "tar" else recordedlab.one_archive(made)
            assert hashlib.sha256(made).hexdigest() == want.get("raw_sha256", want.get("sha256")), recording.label


def written(err: str) -> list[str]:
    return re.findall(r"^wrote (.*)$", err, re.M)


def names_the_field(recording: Recording, err: str) -> bool:
    """FILE:LINE:COLUMN: FIELD: ...; but flags, a text that is no YAML and a spec that is not there have no field."""
    if recording.file.stem.startswith("cli-"):
        return err.startswith("error[")
    place = r"^error\[[a-z-]+\]: [a-z0-9-]+\.yml:\d+:\d+: "
    return re.match(place + ("" if "error[yaml-syntax]" in err else r"[\w.\[\]]+: "), err) is not None


@dataclass
class Facts:
    """What the layers of the recorded base images hold that LinuxKit treats by accident; paths inside an image."""

    opaque: set[str] = field(default_factory=set)
    readded: set[str] = field(default_factory=set)
    twice: set[str] = field(default_factory=set)
    implied: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)


MUST_EXIST = ("dev", "dev/pts", "dev/shm", "etc", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys")


@pytest.fixture(scope="module")
def facts() -> Facts:
    found = Facts()
    have: dict[str, set[str]] = {}
    for image, names in recordedlab.layers():
        here = set(names)
        have.setdefault(image, set()).update(here)
        found.twice |= {n for n in here if names.count(n) > 1}
        for name in here:
            top, base = posixpath.split(name)
            if base == ".wh..wh..opq":
                found.opaque.add(top)
            elif base.startswith(".wh.") and posixpath.join(top, base.removeprefix(".wh.")) in here:
                found.readded.add(posixpath.join(top, base.removeprefix(".wh.")))
    for names_of in have.values():
        found.own |= names_of & set(MUST_EXIST)
        found.implied |= {a for n in names_of for a in above(n) if a not in names_of}
    return found


def above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


@recorded
def test_the_differences_of_a_build_are_the_listed_deviations(data: Path, facts: Facts, tmp_path: Path) -> None:
    """Every difference has a name in the list, and every name that the list calls recorded is seen."""
    names = listed()
    seen: set[str] = set()
    for recording in RECORDED:
        done = recordedlab.build(recording, tmp_path / recording.label.replace("/", "-"), data)
        found = list(differences(recording, done, facts))
        assert not [text for name, text in found if name not in names], recording.label
        seen |= {name for name, _ in found}
    assert seen == {name for name, shown in names.items() if shown == BY_RECORDING}


def differences(recording: Recording, done: recordedlab.Run, facts: Facts) -> Iterator[tuple[str, str]]:
    """(name of the deviation or "", what differs)."""
    if recording.refused != bool(done.code):
        yield verdict(recording, done), f"{recording.label}: LinuxKit said {recording.said[-300:]}; we {done.err}"
        return
    if done.code:
        return
    if done.made != set(recording.body["outputs"]):
        yield "", f"files {sorted(done.made)}"
    for name, want in recording.body["outputs"].items():
        made = (done.folder / name).read_bytes()
        if "tree" in want:
            texts: dict[str, bytes] = {}
            tree = recordedlab.tree_of(want["kind"], made, texts)
            for path in sorted(tree.keys() | want["tree"].keys()):
                before, now = want["tree"].get(path), tree.get(path)
                if before != now:
                    old = recording.texts / path
                    text = (old.read_bytes(), texts[path]) if path in texts and old.is_file() else None
                    yield deviation(path, before, now, text, facts), f"{recording.label} {path}: {before} {now}"
        elif "sha256" in want and hashlib.sha256(made).hexdigest() != want["sha256"]:
            yield "", f"{recording.label} {name}"


def verdict(recording: Recording, done: recordedlab.Run) -> str:
    if done.code:
        return "trust" if "error[trust-no-key]" in done.err else ""
    patterns = {
        "form-of-2017": r"property (system|daemon|outputs|network_mode|oom_score_adj) is|init: Invalid type.*string",
        "all-and-more": "unknown capability: all",
        "linked-files": "archive/tar: write too long",
        "oci-of-one": r"panic: runtime error: index out of range \[0\]",
        "read-only-options": "is read-only, but attempting to write into container read-write",
    }
    return next((name for name, pattern in patterns.items() if re.search(pattern, recording.said)), "")


def deviation(path: str, want: Line | None, got: Line | None, texts: tuple[bytes, bytes] | None, facts: Facts) -> str:
    if path == ".pxeserver" or path.startswith(".pxeserver/"):
        return "marks"
    if path == "initrd.img":
        return "archives"  # of a tar of kernel and initrd: its trees are compared as an initrd's
    if texts is not None and path.endswith("/config.json"):
        return config(*map(json.loads, texts))
    inner = re.sub(r"^containers/(?:onboot|onshutdown|services|volumes)/[^/]+/(?:lower|rootfs)/", "", path)
    if want and not got and any(a in facts.opaque for a in above(inner)):
        return "opaque-folders"
    if got and not want and any(a in facts.readded for a in (*above(inner), inner)):
        return "removed-and-added"
    if want and got and inner in facts.twice:
        return "last-of-twice"
    if got and not want and got[0] == "d" and inner in facts.implied:
        return "folders-first"
    if want and got and inner in facts.own and want[1:4] in (["0755", 0, 0], ["0644", 0, 0]):
        return "own-folders"
    return ""


def config(want: Any, got: Any) -> str:
    """What of a config.json differs."""
    kept = list(pointers(want, got))
    if all(re.match(r"/linux/(resources|uidMappings|gidMappings)/", w) for w in kept):
        return "dropped-fields"
    if all(re.match(r"/mounts/\d+/source$", w) for w in kept):
        return "volumes-in-mounts"
    fewer = {"binds": got["mounts"], "capabilities": got["process"]["capabilities"]}
    more = all(m in fewer["binds"] for m in want["mounts"]) and all(
        set(want["process"]["capabilities"].get(k, ())) <= set(v) for k, v in fewer["capabilities"].items()
    )
    return "additions" if more and all(re.match("/(mounts|process/capabilities)", w) for w in kept) else ""


def pointers(want: Any, got: Any, at: str = "") -> Iterator[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        for key in want.keys() | got.keys():
            yield from pointers(want.get(key), got.get(key), f"{at}/{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for i, (a, b) in enumerate(zip(want, got, strict=True)):
            yield from pointers(a, b, f"{at}/{i}")
    elif want != got:
        yield at


def test_every_other_deviation_is_shown_by_a_test_that_exists() -> None:
    names = listed()
    assert names, "the list is a table"
    missing = []
    for name, shown in names.items():
        if shown == BY_RECORDING:
            continue
        file, _, test = shown.strip("`").partition("::")
        if not (TOP / file).is_file() or f"def {test}(" not in (TOP / file).read_text():
            missing.append(f"{name}: {shown}")
    assert missing == []
