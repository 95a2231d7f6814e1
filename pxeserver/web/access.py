"""Who may speak to the admin side: the host itself, or whoever has the token; never a web page from elsewhere.

A browser on the host can be made to send requests to 127.0.0.1 by any page it shows. Two checks stop that: the Host
header must name us (DNS rebinding makes a foreign name point at 127.0.0.1, but cannot hide that name), and a write that
comes from a page must come from a page of ours (Origin, Sec-Fetch-Site).
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request

from pxeserver.config import Config
from pxeserver.errors import PxeServerError

UNIX_PEER = "unix"  # REMOTE_ADDR of a request by the Unix socket: the file's mode has decided already
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Denied(PxeServerError):
    """This sender may not do this."""

    exit_code, http_status = 4, 403


class TokenNeeded(Denied):
    """The token is missing or wrong; a browser asks for it (any user name, the token as password)."""

    http_status = 401


def guard(app: Flask, config: Config) -> None:
    """Check every request of `app` before any view sees it."""

    def check() -> None:
        peer = request.remote_addr or ""
        if peer == UNIX_PEER:
            return
        if request.method not in SAFE:
            _check_origin()
        if _loopback(peer):
            _check_host()
        else:
            _check_token(config.admin.token)

    app.before_request(check)


def _loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _check_host() -> None:
    """An address or localhost: what a rebound foreign name cannot be."""
    name = _host_name(request.host)
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Denied(
            "host-not-allowed",
            f'the Host header says "{name}", which is not this server\'s',
            hint="use its address, as in http://127.0.0.1:8081",
        ) from None


def _check_origin() -> None:
    """A browser says where the page came from that makes it write; other clients say nothing."""
    site = request.headers.get("Sec-Fetch-Site", "")
    origin = request.headers.get("Origin", "")
    if site in ("cross-site", "same-site") or (origin and urlsplit(origin).netloc != request.host):
        raise Denied("origin-not-allowed", f"a page of {origin or 'another site'} may not change anything here")


def _check_token(token: str) -> None:
    given = ""
    if request.authorization is not None:
        given = request.authorization.token or request.authorization.password or ""
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise TokenNeeded(
            "token-needed",
            "this server wants a token from other hosts" if token else "this server takes nothing from other hosts",
            hint="Authorization: Bearer TOKEN, or pxeserver --token" if token else "set admin.token",
        )


def _host_name(host: str) -> str:
    """'[::1]:8081' -> '::1', 'name:80' -> 'name'."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
