"""The tar writer, read back by the standard library."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from pxeserver.images.entry import BLOCK, FIFO, FILE, HARDLINK, Entry, folder, symlink, text
from pxeserver.images.tarwrite import TarWriter


def written(*entries: Entry, records: dict[str, str] | None = None) -> tarfile.TarFile:
    out = io.BytesIO()
    tar = TarWriter(out)
    for entry in entries:
        tar.add(entry, records)
    tar.finish()
    assert len(out.getvalue()) % 512 == 0
    return tarfile.open(fileobj=io.BytesIO(out.getvalue()))


def test_every_kind_comes_back() -> None:
    archive = written(
        folder("d", 0o1777),
        text("d/f", b"hello", 0o4755, uid=3, gid=4),
        symlink("d/l", "../x"),
        Entry("d/h", HARDLINK, link="d/f"),
        Entry("d/b", BLOCK, 0o660, major=8, minor=1),
        Entry("d/p", FIFO),
    )
    found = {m.name: m for m in archive}
    assert [m.type for m in found.values()] == [b"5", b"0", b"2", b"1", b"4", b"6"]
    assert (found["d"].mode, found["d/f"].mode, found["d/f"].uid, found["d/f"].gid) == (0o1777, 0o4755, 3, 4)
    reader = archive.extractfile("d/f")
    assert reader is not None
    assert reader.read() == b"hello"
    assert (found["d/l"].linkname, found["d/h"].linkname) == ("../x", "d/f")
    assert (found["d/b"].devmajor, found["d/b"].devminor) == (8, 1)
    assert found["d/f"].mtime == 1492533000


def test_what_does_not_fit_stands_in_pax_records() -> None:
    entry = Entry("n" * 300, FILE, uid=1 << 33, gid=5, mtime=-1, pax={"SCHILY.xattr.user.a": "b", "uname": "u" * 40})
    (member,) = written(entry, symlink("l", "t" * 200), records={"LINUXKIT.location": "init[0]"}).getmembers()[:1]
    assert (member.name, member.uid, member.mtime, member.uname) == ("n" * 300, 1 << 33, -1, "u" * 40)
    assert member.pax_headers["SCHILY.xattr.user.a"] == "b"
    assert member.pax_headers["LINUXKIT.location"] == "init[0]"


@given(
    st.text(st.characters(min_codepoint=33, exclude_categories=("Cs",)), min_size=1, max_size=200).filter(
        lambda n: not n.endswith("/") and "//" not in n
    ),
    st.integers(0, 1 << 40),
    st.binary(max_size=700),
)
def test_names_owners_and_contents_round_trip(name: str, uid: int, data: bytes) -> None:
    archive = written(text(name, data, uid=uid))
    (member,) = archive.getmembers()
    reader = archive.extractfile(member)
    assert reader is not None
    assert (member.name, member.uid, reader.read()) == (name, uid, data)
