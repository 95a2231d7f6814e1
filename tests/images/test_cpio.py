"""The cpio writer: the header's bytes, and what a second reader makes of whole archives."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagelab import Node, cpio_entries

from pxeserver.errors import PxeServerError
from pxeserver.images.cpio import CpioWriter, relative
from pxeserver.images.entry import CHAR, FIFO, FILE, HARDLINK, Entry, folder, symlink, text


def written(*entries: Entry) -> bytes:
    out = io.BytesIO()
    cpio = CpioWriter(out)
    for entry in entries:
        cpio.add(entry)
    cpio.finish()
    return out.getvalue()


def test_the_bytes_of_a_small_archive() -> None:
    want = (
        b"070701000002d1000041ed0000000000000000000000020000000f"
        b"00000000000000030000000100000000000000000000000200000000d\0"
        b"070701000002d2000081a40000000100000002000000010000000f"
        b"00000005000000030000000100000000000000000000000400000000d/f\0\0\0hello\0\0\0"
        b"070701000002d300000000000000000000000000000001000000000000000000000003"
        b"0000000100000000000000000000000b00000000TRAILER!!!\0\0\0\0"
    )
    got = written(folder("d")._replace(mtime=15), text("d/f", b"hello", uid=1, gid=2, mtime=15))
    assert got == want


def test_every_kind_comes_back() -> None:
    found = dict(
        cpio_entries(
            written(
                folder("d/", 0o1777),
                symlink("d/l", "../é"),
                Entry("d/sub/h", HARDLINK, 0o644, link="a/b"),
                Entry("d/c", CHAR, 0o666, major=1, minor=3),
                Entry("d/p", FIFO, 0o600),
                text("d/s", b"", 0o6755, uid=0xFFFFFFFF),
            )
        )
    )
    assert found == {
        "d/": Node("d", 0o1777, mtime=1492533000),
        "d/l": Node("l", 0o777, data="../é".encode(), mtime=1492533000),
        "d/sub/h": Node("l", 0o644, data=b"../../a/b", mtime=1492533000),
        "d/c": Node("c", 0o666, device=(1, 3), mtime=1492533000),
        "d/p": Node("p", 0o600, mtime=1492533000),
        "d/s": Node("f", 0o6755, uid=0xFFFFFFFF, mtime=1492533000),
    }


@given(st.lists(st.tuples(st.text(st.characters(min_codepoint=33), min_size=1), st.binary(max_size=99)), max_size=5))
def test_archives_can_stand_one_after_another(files: list[tuple[str, bytes]]) -> None:
    files = [(n, d) for n, d in files if n != "TRAILER!!!" and "\0" not in n]
    one = written(*(text(n, d) for n, d in files))
    assert len(one) % 4 == 0
    assert [(n, node.data) for n, node in cpio_entries(one + one)] == files * 2


@pytest.mark.parametrize(
    ("name", "target", "link"),
    [("a", "b", "b"), ("x/a", "x/b", "b"), ("x/y/a", "b", "../../b"), ("p/./a", "p/./b", "b"), ("p/a", "p/q/b", "q/b")],
)
def test_hard_links_become_relative_symlinks(name: str, target: str, link: str) -> None:
    assert relative(name, target) == link


def test_a_file_that_shrinks_while_it_is_read_is_an_error() -> None:
    with pytest.raises(PxeServerError, match="became shorter"):
        written(Entry("f", FILE, size=10, open=lambda: io.BytesIO(b"short")))


def test_a_file_beyond_4_gib_is_refused() -> None:
    with pytest.raises(PxeServerError) as caught:
        written(Entry("f", FILE, size=1 << 32, open=lambda: io.BytesIO()))
    assert caught.value.slug == "cpio-too-large"


def test_times_before_1970_and_after_2106_stay_in_their_field() -> None:
    found = cpio_entries(written(text("a", b"", mtime=-5), text("b", b"", mtime=1 << 40)))
    assert [n.mtime for _, n in found] == [0, 0xFFFFFFFF]
