"""The tar reader against the standard library's, on archives that it and others write."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagelab import Item, device, file, folder, hardlink, symlink, tar

from pxeserver.errors import PxeServerError
from pxeserver.images import tarread
from pxeserver.images.entry import Entry

_KINDS = {b"0": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}


class Dribble:
    """A stream that gives little at a time, as decompressors may."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, self._most) if size > 0 else self._most)


def read(data: bytes, most: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    return [(e, e.open().read(e.size) if e.open else b"") for e in tarread.entries(Dribble(data, most))]


names = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="/\\"), min_size=1, max_size=80
)
paths = st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, max_size=4).map("/".join)


@st.composite
def items(draw: st.DrawFn) -> Item:
    name, other = draw(paths), draw(paths)
    data = draw(st.binary(max_size=1500))
    owner = {"uid": draw(st.integers(0, 1 << 31)), "gid": draw(st.integers(0, 1 << 31))}
    mode = draw(st.integers(0, 0o7777))
    kind = draw(st.sampled_from("fdlhc"))
    if kind == "f":
        return file(name, data, mode, **owner)
    if kind == "d":
        return folder(name, mode, **owner)
    if kind == "c":
        return device(name, major=draw(st.integers(0, 4095)), minor=draw(st.integers(0, 65535)), **owner)
    return (symlink if kind == "l" else hardlink)(name, other, **owner)


@given(st.lists(items(), max_size=6), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_it_reads_what_the_standard_library_wrote(made: list[Item], form: int, most: int) -> None:
    found = read(tar(made, form), most)
    assert len(found) == len(made)
    for (info, data), (entry, content) in zip(made, found, strict=True):
        assert (entry.name.rstrip("/"), entry.kind) == (info.name, _KINDS[info.type])
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (info.mode, info.uid, info.gid, info.mtime)
        assert content == data
        assert entry.link == info.linkname
        assert (entry.major, entry.minor) == (info.devmajor, info.devminor)


def test_contents_that_nobody_reads_are_passed_over() -> None:
    data = tar([file("a", b"x" * 1000), file("b", b"y" * 513), file("c", b"z")])
    assert [e.name for e in tarread.entries(io.BytesIO(data))] == ["a", "b", "c"]


def test_undecodable_names_survive() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    ((entry, _),) = read(tar([file(name)], tarfile.GNU_FORMAT))
    assert entry.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_global_header_holds_for_all_that_follow() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}) as archive:
        for name in "ab":
            archive.addfile(tarfile.TarInfo(name))
    assert [e.uid for e, _ in read(out.getvalue())] == [77, 77]


def test_what_only_tar_can_keep_is_kept() -> None:
    info, data = file("f", uname="alice", gname="staff")
    info.pax_headers = {"SCHILY.xattr.user.k": "v", "mtime": "1500000000.25", "comment": "no"}
    ((entry, _),) = read(tar([(info, data)]))
    assert dict(entry.pax) == {
        "SCHILY.xattr.user.k": "v",
        "mtime": "1500000000.25",
        "uname": "alice",
        "gname": "staff",
    }
    assert entry.mtime == 1500000000


def test_a_v7_archive_knows_folders_by_the_slash() -> None:
    data = bytearray(tar([file("d/")], tarfile.USTAR_FORMAT))
    data[156], data[257:265] = 0, bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    ((entry, _),) = read(bytes(data))
    assert (entry.name, entry.kind) == ("d/", "d")


def test_old_writers_that_summed_signed_bytes_are_read() -> None:
    data = bytearray(tar([file("caf\u00e9")], tarfile.GNU_FORMAT))
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(b - 256 if b > 127 else b for b in data[:512])
    assert read(bytes(data))[0][0].name == "café"


def whole() -> bytes:
    return tar([file("x" * 120, b"content", uid=1 << 40), folder("d")])


@pytest.mark.parametrize("cut", [100, 511, 513, 700, 1025, 1600, 2000])
def test_a_stream_that_breaks_off_is_an_error(cut: int) -> None:
    assert len(read(whole())) == 2
    with pytest.raises(PxeServerError) as caught:
        read(whole()[:cut])
    assert caught.value.slug == "tar-malformed"


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=20))
def test_damage_is_an_error_or_read_but_never_a_crash(at: int, junk: bytes) -> None:
    data = whole()
    try:
        read(data[:at] + junk + data[at + len(junk) :])
    except PxeServerError as error:
        assert error.slug == "tar-malformed"


def test_sparse_files_are_refused_with_what_to_do() -> None:
    info, data = file("s", b"")
    info.pax_headers = {"GNU.sparse.major": "1"}
    with pytest.raises(PxeServerError, match="sparse") as caught:
        read(tar([(info, data)]))
    assert "--sparse" in caught.value.hint


@pytest.mark.parametrize("records", [{"size": "-1"}, {"path": "a\0b"}, {"linkpath": "\0"}])
def test_headers_that_make_no_sense_are_refused(records: dict[str, str]) -> None:
    info, data = file("s", b"content")
    info.pax_headers = records
    with pytest.raises(PxeServerError, match="makes no sense"):
        read(tar([(info, data)]))


def test_a_header_of_a_negative_size_is_refused_before_it_is_read() -> None:
    block = bytearray(whole()[:512])
    block[124:136] = b"\xff" * 11 + b"\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(PxeServerError, match="makes no sense"):
        read(bytes(block) + bytes(1 << 20))
