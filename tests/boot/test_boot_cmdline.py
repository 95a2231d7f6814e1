"""The kernel command line: layers, their origins, the limit, and what may not get in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot import cmdline
from pxeserver.boot.cmdline import Part, edit, fault, join, split
from pxeserver.errors import Refused


def lines(base: str, *edits: str) -> str:
    return join(edit([("machine", edits)], base))


@pytest.mark.parametrize(
    ("base", "edits", "want"),
    [
        ("a=1 b=2", (), "a=1 b=2"),
        ("a=1 b=2", ("a=3",), "a=3 b=2"),  # in its old place
        ("a=1 b a=2", ("a=3",), "a=3 b"),  # all of them
        ("quiet", ("quiet",), "quiet"),
        ("quiet", ("debug",), "quiet debug"),
        ("a=1 b", ("-a",), "b"),
        ("a=1 a=2", ("-a=1",), "a=2"),
        ("a=1", ("-z",), "a=1"),
        ("console=tty0", ("console=ttyS0",), "console=tty0 console=ttyS0"),
        ("console=tty0 console=ttyS0", ("console=tty0",), "console=ttyS0 console=tty0"),  # the last is /dev/console
        ("console=tty0", ("-console", "console=ttyS0"), "console=ttyS0"),
        ("", ("a=1 b=2", "-a"), "b=2"),
        ("x", ('dyndbg="file a.c +p; file b.c +p" y',), 'x dyndbg="file a.c +p; file b.c +p" y'),
        ("init -- single", ("-",), "init -- single -"),
        ("a=b=c", ("a=d=e",), "a=d=e"),
    ],
)
def test_edits(base: str, edits: tuple[str, ...], want: str) -> None:
    assert lines(base, *edits) == want


def test_later_layers_win_and_each_part_knows_its_origin() -> None:
    parts = edit(
        [("default", ["a=default", "b=default"]), ("machine", ["b=machine", "-quiet"]), ("--arg", ["c=arg"])],
        "a=image quiet root=/dev/ram0",
    )
    assert parts == (
        Part("a=default", "default"),
        Part("root=/dev/ram0", "image"),
        Part("b=machine", "machine"),
        Part("c=arg", "--arg"),
    )


def test_the_limit_is_what_the_kernel_reads_behind_the_loaders_word() -> None:
    assert len(join([Part("x" * cmdline.LIMIT, "image")])) == 2040
    with pytest.raises(Refused) as caught:
        join([Part("x" * 2039, "image"), Part("y", "machine")])
    assert caught.value.slug == "cmdline-too-long" and "2041 bytes" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "a=1\nb",
        "a=1\rb",
        "a=\0",
        "a=\x7f",
        "a=${net0/ip}",
        'a="x',
        'a="x && y"',
        'a="x || y"',
        'a="x ; y"',
        "#a",
        "a=\\",
    ]
    + ['a="x  y"', "a=grün", 'a="x #y"'],
)
def test_what_ipxe_would_read_as_its_own_syntax_is_refused_with_its_origin(text: str) -> None:
    with pytest.raises(Refused) as caught:
        join([Part("fine", "image"), Part(text, "machine")])
    assert caught.value.slug == "cmdline-bad-value" and "(from machine)" in caught.value.message


@pytest.mark.parametrize("text", ["a=$x", "a=x;y", "a=&&b", "a#b", 'a="x y"', "a={b}", "a=c:\\d", "a=1,2", "a='b'"])
def test_what_only_looks_like_syntax_passes(text: str) -> None:
    assert fault(text) == "" and join([Part(text, "image")]) == text


WORDS = st.lists(
    st.sampled_from(["a=1", "a=2", "b", "-a", "-b", "console=x", "console=y", "-console", "c=3"]), max_size=8
)


@given(WORDS, WORDS)
def test_keys_stand_once_but_for_consoles(base: list[str], edits: list[str]) -> None:
    plain = [word for word in base if not word.startswith("-")]
    parts = edit([("machine", plain), ("--arg", edits)], "")
    keys = [part.key for part in parts if part.key != "console"]
    assert len(keys) == len(set(keys))
    assert len({part.text for part in parts}) == len(parts)
    assert edit([("machine", [part.text for part in parts])], "") == tuple(Part(p.text, "machine") for p in parts)


@given(st.text(max_size=60))
def test_a_line_that_passes_is_one_line_of_plain_words(text: str) -> None:
    try:
        line = join(edit([("machine", [text])], "quiet"))
    except Refused:
        return
    assert line.isascii() and line.isprintable() and "${" not in line
    assert not {"&&", "||", ";"} & set(line.split())


def test_parameters_end_where_the_kernel_ends_them() -> None:
    assert split(' a  b="c d"e\tf="g h') == ["a", 'b="c d"e', 'f="g h']
