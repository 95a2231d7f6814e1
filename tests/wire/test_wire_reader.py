"""The reader: never past the end, one error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import PxeServerError
from pxeserver.wire.reader import Reader, WireError


def test_reading_moves_on() -> None:
    reader = Reader(b"\1\0\2ab\0cd")
    assert (reader.u8(), reader.u16(), reader.until_nul(), reader.left) == (1, 2, b"ab", 2)
    assert reader.rest() == b"cd" and reader.left == 0


@pytest.mark.parametrize("read", [Reader.u8, Reader.u16, lambda r: r.take(5), Reader.until_nul])
def test_reading_past_the_end_says_where(read: object) -> None:
    reader = Reader(b"xabc", "thing")
    reader.take(3)
    with pytest.raises(WireError, match="thing"):
        reader.take(2)
    with pytest.raises(WireError) as caught:
        read(Reader(b"", "thing"))  # type: ignore[operator]
    assert isinstance(caught.value, PxeServerError) and caught.value.exit_code == 2


def test_an_open_end_counts_as_a_nul() -> None:
    assert Reader(b"ab").until_nul(open_end=True) == b"ab"


@given(st.binary(max_size=20), st.lists(st.integers(0, 5), max_size=10))
def test_what_is_read_is_what_is_there(data: bytes, counts: list[int]) -> None:
    reader, out = Reader(data), b""
    for count in counts:
        if count > reader.left:
            with pytest.raises(WireError):
                reader.take(count)
        else:
            out += reader.take(count)
    assert out + reader.rest() == data
