"""Whom a request really comes from when a proxy passes it on. Pure.

Only what a configured proxy says is believed: anybody else could claim to be any machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from pxeserver.serve.exchange import Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """`http.proxies`, which config.py has checked."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def trusted(peer: str, proxies: Sequence[Network]) -> bool:
    """True for the address of a proxy."""
    address = _address(peer)
    return address is not None and any(address in network for network in proxies)


def seen_through(request: Request, proxies: Sequence[Network]) -> Request:
    """The request as the machine made it: `peer` is the machine, `own` what it reached, `via` the proxy.

    Of `X-Forwarded-For` the last address that is no proxy of ours counts; those before it are anybody's word. `own` is
    the address in `Host`, where that is one.
    """
    if not proxies or not trusted(request.peer, proxies):
        return request
    peer = request.peer
    for text in reversed(request.head.headers.get("x-forwarded-for", "").split(",")):
        address = _address(text.strip())
        if address is None:
            break
        peer = str(address)
        if not trusted(peer, proxies):
            break
    host = request.head.headers.get("host", "")
    asked = _address(host.strip("[]")) or _address(host.rpartition(":")[0].strip("[]"))
    own = str(asked) if asked is not None else request.own
    return request._replace(peer=peer, own=own, via=request.peer)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
