"""What the listeners look at: which interface has an address of ours, also after it has changed."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config
from pxeserver.local.interfaces import Interface
from pxeserver.serve.site import Site


def card(index: int, name: str, *addresses: str, six: str = "") -> Interface:
    return Interface(
        index,
        name,
        up=True,
        loopback=False,
        addresses=tuple(IPv4Interface(address) for address in addresses),
        addresses6=(IPv6Interface(six),) if six else (),
    )


def test_the_interface_of_an_address_follows_the_interfaces() -> None:
    site = Site(Config(), load_quirks())
    assert site.named("10.0.0.1") == ""
    site.interfaces = {
        2: card(2, "eth0", "10.0.0.1/24", "10.1.0.1/24", six="fd00::1/64"),
        3: card(3, "eth1", "10.0.0.1/24"),
    }
    assert [site.named(own) for own in ("10.0.0.1", "10.1.0.1", "fd00::1", "10.0.0.9")] == ["eth0", "eth0", "eth0", ""]
    site.interfaces = {3: card(3, "eth1", "10.0.0.1/24")}
    assert [site.named(own) for own in ("10.0.0.1", "10.1.0.1", "fd00::1")] == ["eth1", "", ""]
