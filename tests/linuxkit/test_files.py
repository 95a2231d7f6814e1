"""The files section: items, their parents, sources and faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit.entries import Plan, TreeEntry

Planned = Callable[..., Plan]


def tree(made: Plan) -> list[str]:
    """'path kind mode uid:gid', one line an entry."""
    return [f"{e.path} {e.kind} {e.mode:04o} {e.uid}:{e.gid}" for e in made.entries if isinstance(e, TreeEntry)]


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        ("{path: a, contents: x}", ["a file 0600 0:0"]),
        ("{path: /a, contents: x}", ["a file 0600 0:0"]),
        ("{path: d, directory: true}", ["d dir 0700 0:0"]),
        ("{path: a/b/c, contents: x}", ["a dir 0700 0:0", "a/b dir 0700 0:0", "a/b/c file 0600 0:0"]),
        ("{path: a/b, contents: x, mode: '0644'}", ["a dir 0755 0:0", "a/b file 0644 0:0"]),
        ("{path: a/b, contents: x, mode: '0060'}", ["a dir 0070 0:0", "a/b file 0060 0:0"]),
        ("{path: a/b, contents: x, mode: '0000'}", ["a dir 0000 0:0", "a/b file 0000 0:0"]),
        ("{path: a/b, contents: x, mode: '4755'}", ["a dir 4755 0:0", "a/b file 4755 0:0"]),
        ("{path: a/b, contents: x, mode: '100644'}", ["a dir 0755 0:0", "a/b file 0644 0:0"]),
        ("{path: a/b, contents: x, uid: 3, gid: s}", ["a dir 0700 3:100", "a/b file 0600 3:100"]),
        ("{path: a/l, symlink: /t, mode: '0777'}", ["a dir 0777 0:0", "a/l symlink 0777 0:0"]),
        ("{path: a/b, contents: x}, {path: a/c, contents: y, mode: '0644'}",
         ["a dir 0700 0:0", "a/b file 0600 0:0", "a/c file 0644 0:0"]),
        ("{path: a, directory: true, mode: '0750'}, {path: a/c, contents: y}",
         ["a dir 0750 0:0", "a/c file 0600 0:0"]),
        ("{path: a, contents: x}, {path: a, contents: y}", ["a file 0600 0:0", "a file 0600 0:0"]),
        ("{path: ./d/x, contents: x}", ["d dir 0700 0:0", "./d/x file 0600 0:0"]),
        ("{path: a//b/../c, contents: x}", ["a dir 0700 0:0", "a//b/../c file 0600 0:0"]),
        ("{path: //a/b, contents: x}", ["a dir 0700 0:0", "/a/b file 0600 0:0"]),
        ("{path: a/x, source: missing, optional: true}, {path: b, contents: ''}", ["b file 0600 0:0"]),
    ],
)  # fmt: skip
def test_entries(planned: Planned, items: str, wanted: list[str]) -> None:
    text = f"services: [{{name: s, image: x}}]\nfiles: [{items}]"
    assert tree(planned(text)) == tree(planned(text, strict=True)) == wanted


def test_content_is_text_bytes_or_a_file(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = (
        'files:\n  - {path: a, contents: "é\\n"}\n  - {path: b, contents: !!binary aP8=}\n  - {path: c, source: d/x}\n'
        "  - {path: d, source: ~/x}\n  - {path: e, source: /abs}\n  - {path: f, source: opt, optional: true}\n"
    )

    def found(**kw: Any) -> list[Any]:
        return [e.source if e.content is None else e.content for e in planned(text, **kw).entries]

    absolute = [Path("/home/me/x"), Path("/abs")]
    assert found(folder=tmp_path) == ["é\n".encode(), b"h\xff", tmp_path / "d/x", *absolute, tmp_path / "opt"]
    assert found(folder=tmp_path, strict=True)[2:] == [Path("d/x"), *absolute, Path("opt")]
    assert found()[2:] == [Path("d/x"), *absolute, Path("opt")]


@pytest.mark.parametrize(
    ("item", "slug", "place", "words"),
    [
        ("{contents: x}", "bad-file", "files[0].path", "needs a path"),
        ("{path: /, contents: x}", "bad-file", "files[0].path", "needs a path"),
        ("{path: x}", "bad-file", "files[0].path", '"x"'),
        ("{path: x, optional: true}", "bad-file", "files[0].path", '"x"'),
        ("{path: x, source: a, contents: b}", "bad-file", "files[0].source", "contents and source"),
        ("{path: x, metadata: yaml, contents: b}", "bad-file", "files[0].metadata", "contents and metadata"),
        ("{path: x, metadata: yaml, source: b}", "bad-file", "files[0].metadata", "source and metadata"),
        ("{path: x, metadata: toml}", "bad-file", "files[0].metadata", "toml"),
        ("{path: x, symlink: y, source: b}", "bad-file", "files[0].source", "symlink and source"),
        ("{path: x, directory: true, source: b}", "bad-file", "files[0].source", "directory and source"),
        ("{path: x, directory: true, contents: ''}", "bad-file", "files[0].contents", "directory"),
        ("{path: x, contents: y, mode: '0889'}", "bad-mode", "files[0].mode", '"0889"'),
        ("{path: x, contents: y, mode: rw}", "bad-mode", "files[0].mode", '"rw"'),
        ("{path: x, contents: y, uid: nobody}", "unknown-id", "files[0].uid", '"nobody"'),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_bad_item_is_named(planned: Planned, item: str, slug: str, place: str, words: str, strict: bool) -> None:
    with pytest.raises(UsageError) as caught:
        planned(f"files: [{item}]", strict=strict)
    assert caught.value.slug == slug and place in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        ("{path: etc/x, contents: x}", ['files[0]: "etc/x" makes the folder /etc 0700']),
        ("{path: usr/lib/x, contents: x, mode: '0640'}", ["/usr 0750", "/usr/lib 0750"]),
        ("{path: etc/x, contents: x, mode: '0644'}", []),
        ("{path: etc, directory: true, mode: '0755'}, {path: etc/x, contents: x}", []),
        ("{path: own/x, contents: x}", []),
        ("{path: var/x, contents: x, mode: '0644'}", ["hidden at run time by the tmpfs on /var"]),
        ("{path: var/x, directory: true, mode: '0755'}", []),
        ("{path: x, symlink: y, contents: z}", ['files[0].contents: "x" is a symlink']),
        ("{path: x, contents: y, optional: true}", ["optional does nothing"]),
        ("{path: ../x, contents: y}", ['"../x" leaves the tree']),
    ],
)
def test_surprises_are_warnings(planned: Planned, items: str, wanted: list[str]) -> None:
    warnings = planned(f"files: [{items}]").warnings
    assert len(warnings) == len(wanted)
    assert all(w in warning for w, warning in zip(wanted, warnings, strict=True))
    assert planned(f"files: [{items}]", strict=True).warnings == ()
