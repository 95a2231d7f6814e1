"""Whose word about a machine's address is believed."""

from __future__ import annotations

import pytest

from pxeserver.serve.exchange import Request
from pxeserver.serve.httpwire import parse_head
from pxeserver.serve.proxies import networks, seen_through

PROXIES = networks(["10.0.0.9", "10.1.0.0/16", "fd00::9"])


def seen(peer: str, **headers: str) -> tuple[str, str, str]:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = parse_head(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
    got = seen_through(Request(head, b"", peer, "127.0.0.1", 8080), PROXIES)
    return got.peer, got.own, got.via


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ("10.2.0.5", "10.2.0.5"),
        ("1.1.1.1, 10.2.0.5", "10.2.0.5"),  # what the machine itself claims stands before
        ("1.1.1.1, 10.2.0.5, 10.1.3.4", "10.2.0.5"),  # a proxy behind a proxy
        ("10.1.3.4", "10.1.3.4"),
        ("", "10.0.0.9"),
        ("unknown", "10.0.0.9"),
        ("10.2.0.5, x", "10.0.0.9"),
        ("fd00::5", "fd00::5"),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(forwarded: str, peer: str) -> None:
    assert seen("10.0.0.9", X_Forwarded_For=forwarded, Host="10.0.0.1") == (peer, "10.0.0.1", "10.0.0.9")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[fd00::1]:80", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("boot.example:80", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_address_that_was_asked_is_that_of_the_host_header(host: str, own: str) -> None:
    assert seen("fd00::9", X_Forwarded_For="10.2.0.5", Host=host)[1] == own


@pytest.mark.parametrize("peer", ["10.2.0.5", "10.0.0.8", "", "fd00::8"])
def test_anybody_else_is_who_it_is(peer: str) -> None:
    assert seen(peer, X_Forwarded_For="10.2.0.7", Host="10.0.0.1") == (peer, "127.0.0.1", "")
