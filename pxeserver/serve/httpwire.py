"""HTTP/1.1 as bytes and values (RFC 9110, 9112): the request head with limits, ranges, the response head. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote

HEAD_MAX = 16 << 10  # bytes of request line and headers
HEADERS_MAX = 100
TARGET_MAX = 8 << 10
_KNOWN_MAX = 1 << 10  # heads and header blocks up to this size are remembered

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")
_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*")


class BadRequest(Exception):
    """What was received is no request we read; answered with `status`, then the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. `path` is decoded, with repeated slashes made one; header names are lower case."""

    method: str
    target: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep_alive: bool
    old: bool  # HTTP/1.0: to be told that the connection stays
    length: int  # of the body


def parse_head(raw: bytes) -> Head:
    """`raw` ends with the empty line. Raises BadRequest; every limit is checked here but HEAD_MAX."""
    return (_known_head if len(raw) <= _KNOWN_MAX else _parse_head)(raw)


def _parse_head(raw: bytes) -> Head:
    line, _, block = raw.decode("latin-1").strip("\r\n").partition("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise BadRequest(400, "malformed request line")
    method, target, version = words
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400, "only HTTP/1.1 is spoken here")
    if len(target) > TARGET_MAX:
        raise BadRequest(414, "the address is too long")
    headers, length = (_known_headers if len(block) <= _KNOWN_MAX else _parse_headers)(block)
    wanted = headers.get("connection", "").lower()
    keep_alive = "close" not in wanted and (version == "HTTP/1.1" or "keep-alive" in wanted)
    path, query = _split_target(target)
    return Head(method, target, path, query, headers, keep_alive, version == "HTTP/1.0", length)


# a machine that waits asks the same every few seconds
_known_head = lru_cache(maxsize=4096)(_parse_head)


def _parse_headers(block: str) -> tuple[Mapping[str, str], int]:
    """The headers, and the length of the body that they announce."""
    lines = block.split("\r\n") if block else []
    if len(lines) > HEADERS_MAX:
        raise BadRequest(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # a space before the colon or a folded line is how requests are smuggled past a proxy: refused
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequest(400, "malformed header")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and headers.get(name, value) != value:
            raise BadRequest(400, "two lengths")
        headers[name] = f"{headers[name]}, {value}" if name in headers and name != "content-length" else value
    return MappingProxyType(headers), _body_length(headers)


# a rack of machines sends the same few blocks over and over
_known_headers = lru_cache(maxsize=256)(_parse_headers)


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "send the body with a Content-Length")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(400, "malformed Content-Length")
    return int(text)


def _split_target(target: str) -> tuple[str, str]:
    if not target.startswith("/"):  # absolute form, as to a proxy
        scheme, mark, rest = target.partition("://")
        if target != "*" and (not mark or scheme.lower() not in ("http", "https")):
            raise BadRequest(400, "malformed address")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    if "%" in path or not path.isascii():
        path = unquote(path.encode("latin-1").decode("utf-8", "replace"), errors="replace")
    if "\0" in path:
        raise BadRequest(400, "malformed address")
    return re.sub("/{2,}", "/", path) if "//" in path else path, query


class Range(NamedTuple):
    """`length` bytes from `first`."""

    first: int
    length: int


def parse_range(text: str, size: int) -> Range | None:
    """One byte range of a file of `size` bytes; None to send the whole file (no range, several, or not understood).

    Raises BadRequest(416) when nothing of it lies within the file.
    """
    match = _RANGE.fullmatch(text)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":  # the last N bytes
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        end = min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
        length = end - start + 1
    if length <= 0 or start >= size:
        raise BadRequest(416, "no such range")
    return Range(start, length)


class Selected(NamedTuple):
    """What a request for a file gets: status, further headers, and `length` bytes from `first`; `text` for a person."""

    status: int
    headers: tuple[tuple[str, str], ...]
    first: int = 0
    length: int = 0
    text: str = ""


def select_part(head: Head, size: int, etag: str, status: int = 200) -> Selected:
    """Which part of a file of `size` bytes is asked for (RFC 9110, 13 and 14). `etag` without quotes, "" for none."""
    asked = head.headers
    return _select(asked.get("if-none-match", ""), asked.get("range"), asked.get("if-range"), size, etag, status)


@lru_cache(maxsize=256)  # a rack of machines asks for the same parts of the same files
def _select(known: str, wanted: str | None, same: str | None, size: int, etag: str, status: int) -> Selected:
    quoted = f'"{etag}"' if etag else ""
    headers: tuple[tuple[str, str], ...] = (("Accept-Ranges", "bytes"),)
    if quoted:
        headers = (*headers, ("ETag", quoted))
        if quoted in known:
            return Selected(304, headers)
    if wanted is not None and same in (None, quoted):
        try:
            part = parse_range(wanted, size)
        except BadRequest as bad:
            return Selected(bad.status, (*headers, ("Content-Range", f"bytes */{size}")), text=bad.text)
        if part is not None:
            first, last = part.first, part.first + part.length - 1
            return Selected(206, (*headers, ("Content-Range", f"bytes {first}-{last}/{size}")), first, part.length)
    return Selected(status, headers, 0, size)


def pack_head(status: int, headers: Iterable[tuple[str, str]], now: float) -> bytes:
    """Status line and headers, with the date; a line break in a value cannot get out."""
    return _opening(status, int(now)) + _pack_headers(tuple(headers))


@lru_cache(maxsize=256)  # only few differ: in length, mostly
def _pack_headers(headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [""]
    for name, value in headers:
        line = f"{name}: {value}"
        lines.append(line if line.isprintable() else line.replace("\r", " ").replace("\n", " "))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


@lru_cache(maxsize=32)
def _opening(status: int, second: int) -> bytes:
    """What all responses of a second begin with."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(second, usegmt=True)}\r\nServer: pxeserver".encode()
