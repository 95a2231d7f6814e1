"""@pkg: templates, in real git work trees."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit import loader, packages


class Repo:
    def __init__(self, top: Path) -> None:
        self.top = top
        self.write("pkg/tool/build.yml", "image: tool\n")
        self.write("pkg/tool/Dockerfile", "FROM scratch\n")
        self.write("pkg/own/build.yml", "image: own\norg: example\nextra-sources: ['../tool:/src']\n")
        self.git("init", "-q")
        self.commit()

    def write(self, name: str, text: str) -> None:
        file = self.top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.top), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-q", "-m", "x")

    def tree(self, folder: str) -> str:
        return self.git("rev-parse", f"HEAD:{folder}")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return Repo(tmp_path)


def test_the_tag_is_the_tree_hash(repo: Repo) -> None:
    tool = repo.tree("pkg/tool")
    assert packages.package(repo.top / "pkg/tool") == f"docker.io/linuxkit/tool:{tool}"
    both = hashlib.sha1((repo.tree("pkg/own") + tool).encode()).hexdigest()
    assert packages.package(repo.top / "pkg" / "tool" / ".." / "own") == f"docker.io/example/own:{both}"


def test_the_top_of_the_work_tree_has_the_tree_of_its_commit(repo: Repo) -> None:
    repo.write("build.yml", "image: top\n")
    repo.commit()
    assert packages.package(repo.top) == f"docker.io/linuxkit/top:{repo.git('rev-parse', 'HEAD^{tree}')}"


def test_a_changed_work_tree_is_dirty(repo: Repo) -> None:
    tool = repo.tree("pkg/tool")
    repo.write("pkg/tool/Dockerfile", "FROM x\n")
    content = hashlib.sha256(b"FROM x\nimage: tool\n").hexdigest()[:7]
    assert packages.package(repo.top / "pkg/tool") == f"docker.io/linuxkit/tool:{tool}-dirty-{content}"
    repo.write("pkg/tool/Dockerfile", "FROM scratch\n")
    repo.write("pkg/tool/new", "n")
    content = hashlib.sha256(b"FROM scratch\nimage: tool\nn").hexdigest()[:7]
    assert packages.package(repo.top / "pkg/tool") == f"docker.io/linuxkit/tool:{tool}-dirty-{content}"
    assert "-dirty" not in packages.package(repo.top / "pkg/own")


def test_any_text_of_a_local_spec_is_resolved(repo: Repo, load: Callable[..., loader.Loaded]) -> None:
    text = "init: ['@pkg:./pkg/tool', '@other']\nfiles: [{path: a, contents: '@pkg:pkg/tool'}]\n".replace(
        "'@other'", "x"
    )
    wanted = f"docker.io/linuxkit/tool:{repo.tree('pkg/tool')}"
    for strict in (False, True):
        loaded = load(text, folder=repo.top, strict=strict)
        assert loaded.spec.init == (wanted, "x") and loaded.spec.files[0].contents == wanted
        assert loaded.warnings == ()
    with pytest.raises(UsageError, match="names no image"):
        load(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pkg/none", "No such file"),
        ("pkg", "build.yml"),
        ("new", "is not in git"),
        ("bad", "names no image"),
        ("\0", "null"),
    ],
)
def test_what_cannot_be_resolved_stays_with_a_reason(repo: Repo, text: str, why: str) -> None:
    repo.write("new/build.yml", "image: new\n")
    repo.write("bad/build.yml", "- x\n")
    data, notes = packages.resolve({"a": [f"@pkg:{text}"], "b": "@x", "c": 1}, repo.top)
    assert data == {"a": [f"@pkg:{text}"], "b": "@x", "c": 1}
    assert len(notes) == 1 and why in notes[0]


def test_outside_of_git_nothing_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "build.yml").write_text("image: x\n")
    data, notes = packages.resolve("@pkg:x", tmp_path)
    assert data == "@pkg:x" and "not a git repository" in notes[0]
