"""One HTTP exchange as values: a whole request, the response to it, and what became of that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl

from pxeserver.serve.httpwire import Head
from pxeserver.serve.openfiles import OpenFile

_FIELDS_MAX = 100


class Request(NamedTuple):
    """A whole request and the connection's two ends ("10.0.0.5", our own "10.0.0.1"; "" on a Unix socket)."""

    head: Head
    body: bytes
    peer: str
    own: str
    port: int = 0  # our own
    via: str = ""  # the proxy that passed it on

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path

    @property
    def query(self) -> dict[str, str]:
        """The query's last value of each name."""
        return _fields(self.head.query)

    @property
    def form(self) -> dict[str, str]:
        """The body read as a form."""
        return _fields(self.body.decode("utf-8", "replace"))


def _fields(text: str) -> dict[str, str]:
    """The last value of each name. More fields than anything that boots sends say nothing."""
    if not text or text.count("&") >= _FIELDS_MAX:
        return {}
    return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))


class Sent(NamedTuple):
    """What became of a response's body."""

    first: int  # offset of the first byte within the file
    sent: int  # bytes that went out
    wanted: int  # bytes that should have
    size: int  # of the whole file or body
    seconds: float

    @property
    def to_the_end(self) -> bool:
        """Everything wanted was sent, and the last byte of the file is part of it."""
        return self.sent == self.wanted and self.first + self.wanted == self.size


class Response(NamedTuple):
    """What a handler gives: `body`, or `file` (by sendfile; closed afterwards), or `stream` (until the peer leaves)."""

    status: int = 200
    body: bytes = b""
    type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()
    file: OpenFile | None = None
    etag: str = ""  # without quotes; only for files
    stream: AsyncGenerator[bytes, None] | None = None
    sent: Callable[[Sent], None] | None = None  # told once the body is out, or cut short


# A plain function answers at once and is cheapest; what an awaitable one gives is waited for, one per connection.
Handler = Callable[[Request], Response | Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer and all of them may take; seconds and bytes."""

    connections: int = 4000
    per_peer: int = 256
    first: float = 15.0  # until a request's head is whole
    idle: float = 75.0  # between requests of one connection
    stall: float = 60.0  # a body that does not move at all
    body: int = 1 << 20
