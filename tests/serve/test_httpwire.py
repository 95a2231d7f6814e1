"""Request heads: what is read, what is refused; ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.serve.httpwire import BadRequest, Range, pack_head, parse_head, parse_range


def head(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


def test_a_request_as_ipxe_sends_it() -> None:
    raw = head("GET /boot//abc/script.ipxe?mac=52:54:00:12:34:56 HTTP/1.1\nHost: 10.0.0.1:8080\nConnection: keep-alive")
    got = parse_head(raw)
    assert (got.method, got.path, got.query) == ("GET", "/boot/abc/script.ipxe", "mac=52:54:00:12:34:56")
    assert got.headers == {"host": "10.0.0.1:8080", "connection": "keep-alive"}
    assert got.keep_alive and got.length == 0


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("GET / HTTP/1.1", True),
        ("GET / HTTP/1.1\nConnection: close", False),
        ("GET / HTTP/1.0", False),
        ("GET / HTTP/1.0\nConnection: Keep-Alive", True),
    ],
)
def test_keep_alive_by_version_and_header(text: str, keep: bool) -> None:
    assert parse_head(head(text)).keep_alive is keep


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a%20b", "/a b"),
        ("/%2e%2e/x", "/../x"),
        ("http://host:8080//x/y?q=1", "/x/y"),
        ("http://host", "/"),
        ("/%C3%BC", "/ü"),
        ("/%ff", "/\ufffd"),
        ("/a#b", "/a"),
    ],
)
def test_the_path_is_decoded_once(target: str, path: str) -> None:
    assert parse_head(head(f"GET {target} HTTP/1.1")).path == path


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("G T / HTTP/1.1", 400),
        ("GET x HTTP/1.1", 400),
        ("GET ftp://x/ HTTP/1.1", 400),
        ("GET /%00 HTTP/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / SSH-2", 400),
        (f"GET /{'x' * 9000} HTTP/1.1", 414),
        ("GET / HTTP/1.1\nHost : x", 400),
        ("GET / HTTP/1.1\n folded", 400),
        ("GET / HTTP/1.1\nA: b\x00c", 400),
        ("GET / HTTP/1.1\nA: b\rc", 400),
        ("GET / HTTP/1.1\n" + "\n".join(f"h{i}: x" for i in range(101)), 431),
        ("POST / HTTP/1.1\nContent-Length: -1", 400),
        ("POST / HTTP/1.1\nContent-Length: 1e3", 400),
        ("POST / HTTP/1.1\nContent-Length: 3, 3", 400),
        ("POST / HTTP/1.1\nContent-Length: 3\nContent-Length: 4", 400),
        ("POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 3", 411),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head(text))
    assert caught.value.status == status


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_a_bad_request(raw: bytes) -> None:
    try:
        got = parse_head(raw + b"\r\n\r\n")
    except BadRequest as bad:
        assert 400 <= bad.status < 600
    else:
        assert got.length >= 0
        assert "\0" not in got.path


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("bytes=0-0", Range(0, 1)),
        ("bytes=10-", Range(10, 90)),
        ("bytes=10-19", Range(10, 10)),
        ("bytes=90-500", Range(90, 10)),
        ("bytes=-5", Range(95, 5)),
        ("bytes=-500", Range(0, 100)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges_of_a_hundred_bytes(text: str, want: Range | None) -> None:
    assert parse_range(text, 100) == want


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_a_range_outside_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_range(text, 100)
    assert caught.value.status == 416


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 1000))
def test_a_range_never_leaves_the_file(text: str, size: int) -> None:
    try:
        got = parse_range(text, size)
    except BadRequest:
        return
    assert got is None or (got.first >= 0 and got.length > 0 and got.first + got.length <= size)


def test_a_header_value_cannot_add_a_header() -> None:
    raw = pack_head(200, [("ETag", "a\r\nSet-Cookie: x")], 0.0)
    assert raw.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT",
        b"Server: pxeserver",
        b"ETag: a  Set-Cookie: x",
        b"",
        b"",
    ]
