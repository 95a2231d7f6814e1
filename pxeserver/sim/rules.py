"""Which answers each firmware takes, and what it does with them: data and pure functions.

Sources: EDK2 NetworkPkg (UefiPxeBcDxe, Dhcp4Dxe, HttpBootDxe), iPXE src/net/udp/dhcp.c, U-Boot net/bootp.c, the
Raspberry Pi's documentation, PXE 2.1; docs/simulators.md has the table that these rules were measured against.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from pxeserver.sim.offers import Offer
from pxeserver.wire import dhcp

OFFERS_MAX = 16  # EDK2 keeps no more
DIRECT = 8  # bit of 43.6: do not look for boot servers, take the file of this offer
NO_BROADCAST = 1
PI_WORDS = b"Raspberry Pi Boot"
_DISCOVERY = frozenset({6, 7, 8, 9, 10})  # sub-options of 43 that make a PXE 1.0 offer
_MTFTP = frozenset({1, 2, 3, 4, 5})

_NO_ADDRESS = "no DHCP server has offered an address"
_NO_PROXY = "an address, but nothing about booting"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the firmware does with the offers heard so far.

    wait: goes on listening, or sends DISCOVER again. stop: gives up. load: fetches `file` from `server`. ask: sends
    REQUEST to each of `servers` on port 4011 until one tells a file. item: the same, naming the menu's `item`; "" in
    `servers` is a broadcast to port 67. `lease` is the offer whose address it takes first; `why` is for a person.
    """

    do: Literal["wait", "stop", "load", "ask", "item"]
    why: str
    lease: Offer | None = None
    server: str = ""
    file: str = ""
    servers: tuple[str, ...] = ()
    item: bytes = b""


class Rules(Protocol):
    """One kind of firmware. `offers` in the order in which they came, `elapsed` seconds since the first DISCOVER."""

    @property
    def eager(self) -> bool:
        """True if it chooses at every packet, false if only when its timer runs out."""

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice: ...

    def take(self, answer: Offer, asked: str) -> Choice:
        """What it makes of an answer to REQUEST that came back after asking `asked`."""


def _described(offer: Offer) -> str:
    return f"offer of {offer.server_id or offer.siaddr or offer.sender}"


def _menu(offer: Offer) -> tuple[tuple[str, ...], bytes]:
    """Whom to ask for the first item of the menu: the listed servers, else everybody."""
    item = offer.first_item
    servers = offer.servers_of(item)
    return (servers if servers or offer.control & NO_BROADCAST else ("",)), item


@dataclass(frozen=True, slots=True)
class Ipxe:
    """iPXE: goes on at once with an address and an offer that says PXEClient, waits `proxy_wait` for the latter."""

    proxy_wait: float = 2.0
    eager: bool = True

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice:
        lease = next((o for o in reversed(offers) if o.address and o.port == 67), None)
        proxy = next((o for o in reversed(offers) if o.pxe), None)
        if lease is None:
            return Choice("wait", _NO_ADDRESS)
        if proxy is None:
            if elapsed <= self.proxy_wait:
                return Choice("wait", _NO_PROXY)
            if lease.file and lease.siaddr:
                return Choice("load", "the DHCP server itself names a file", lease, lease.siaddr, lease.file)
            other = next((o for o in offers if not o.address), None)
            missing = f"the {_described(other)} has no PXEClient in option 60" if other is not None else _NO_PROXY
            return Choice("stop", missing, lease)
        if self._has_options(proxy):
            return self._go(proxy, lease)
        return Choice(
            "ask",
            f"the {_described(proxy)} has no siaddr with a file",
            lease,
            servers=(proxy.server_id or proxy.siaddr or proxy.sender,),
        )

    @staticmethod
    def _has_options(offer: Offer) -> bool:
        return bool((offer.siaddr and offer.file) or offer.first_item)

    @staticmethod
    def _go(offer: Offer, lease: Offer | None) -> Choice:
        if offer.first_item and not (offer.control & DIRECT and offer.file):
            servers, item = _menu(offer)
            return Choice("item", f"the {_described(offer)} has a menu", lease, servers=servers, item=item)
        return Choice("load", f"the {_described(offer)} has siaddr and file", lease, offer.siaddr, offer.file)

    def take(self, answer: Offer, asked: str) -> Choice:
        if answer.port not in (4011, 67) or (answer.port == 67 and asked):
            return Choice("wait", f"the answer came from port {answer.port}, not 4011")
        if answer.packet.message not in (dhcp.OFFER, dhcp.ACK):
            return Choice("wait", "the answer is neither OFFER nor ACK")
        if asked and (answer.server_id or answer.siaddr or answer.sender) != asked:
            return Choice("wait", f"the answer is of {answer.server_id or answer.siaddr}, asked was {asked}")
        if not (answer.siaddr and answer.file):
            return Choice("wait", "the answer has no siaddr with a file")
        return Choice("load", "port 4011 told the file", None, answer.siaddr, answer.file)


@dataclass(frozen=True, slots=True)
class Edk2:
    """EDK2's PXE: collects offers until its timer (4, 8, 16, 32 s) runs out, then takes the best pair.

    `drops_pxe10`: trees before 2017-04 lose every proxy offer with discovery sub-options in 43 (tianocore/edk2#6944).
    """

    drops_pxe10: bool = False
    eager: bool = False

    def kind(self, offer: Offer) -> str:
        """dhcp-pxe10, dhcp-binl, dhcp-only, proxy-pxe10, proxy-binl; or "lost: why"."""
        if not offer.server_id:
            return "lost: no option 54"
        codes = frozenset(offer.vendor) if offer.pxe else frozenset()
        what = "pxe10" if codes & _DISCOVERY else "mtftp" if codes & _MTFTP else "binl" if offer.pxe else "only"
        if what == "mtftp":
            return "lost: option 43 speaks of MTFTP"
        if offer.address:
            return f"dhcp-{what}"
        if what == "only":
            return "lost: no PXEClient in option 60"
        if what == "pxe10" and self.drops_pxe10:
            return "lost: this firmware drops proxy offers with option 43"
        return f"proxy-{what}"

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice:
        kinds = [(self.kind(offer), offer) for offer in offers[:OFFERS_MAX]]

        def first(kind: str) -> Offer | None:
            return next((offer for name, offer in kinds if name == kind), None)

        main = first("dhcp-pxe10")
        if main is not None:
            return self._pxe10(main, main)
        plain, proxy = first("dhcp-only"), first("proxy-pxe10")
        if plain is not None and proxy is not None:
            return self._pxe10(proxy, plain)
        main = first("dhcp-binl")
        if main is not None:
            return self._binl([main], main)
        binl = [offer for name, offer in kinds if name == "proxy-binl"]
        if plain is not None and binl:
            return self._binl(binl, plain)
        if plain is None:
            return Choice("wait", _NO_ADDRESS)
        lost = [f"the {_described(o)} is {k}" for k, o in kinds if k.startswith("lost")]
        if plain.file and all(offer.address for offer in offers):
            return self._load(plain, plain, "the DHCP server itself names a file")
        return Choice("wait", "; ".join(lost) or _NO_PROXY, plain)

    def _pxe10(self, offer: Offer, lease: Offer) -> Choice:
        if offer.first_item and not offer.control & DIRECT:
            servers, item = _menu(offer)
            return Choice("item", f"the {_described(offer)} has a menu", lease, servers=servers, item=item)
        if not offer.file:
            return Choice("wait", f"the {_described(offer)} says to take its file, and has none", lease)
        return self._load(offer, lease, f"the {_described(offer)} says to take its file")

    @staticmethod
    def _binl(offers: Sequence[Offer], lease: Offer) -> Choice:
        servers = tuple(offer.siaddr or offer.server_id for offer in offers)
        return Choice("ask", f"the {_described(offers[0])} has no option 43: port 4011", lease, servers=servers)

    @staticmethod
    def _load(offer: Offer, lease: Offer | None, why: str) -> Choice:
        """The boot server is the first of the list in 43.8, else siaddr, else option 54."""
        listed = offer.servers_of(offer.first_item) if offer.first_item else ()
        server = listed[0] if listed else offer.siaddr or offer.server_id
        if not server:
            return Choice("wait", f"the {_described(offer)} names no server", lease)
        return Choice("load", why, lease, server, offer.file)

    def take(self, answer: Offer, asked: str) -> Choice:
        if not answer.file:
            return Choice("wait", "the answer on port 4011 has no file")
        return self._load(answer, None, "port 4011 told the file")


@dataclass(frozen=True, slots=True)
class Http:
    """EDK2's HTTP boot: wants HTTPClient in option 60 and a URI; a name in it needs DNS from the address's offer."""

    eager: bool = False

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice:
        lease = next((o for o in offers if o.address and o.server_id), None)
        if lease is None:
            return Choice("wait", _NO_ADDRESS)
        whys = []
        for offer in offers[:OFFERS_MAX]:
            why = self._against(offer, lease)
            if not why:
                return Choice("load", f"the {_described(offer)} has a URI", lease, offer.siaddr, offer.file)
            if why != _NO_PROXY:
                whys.append(f"the {_described(offer)} {why}")
        return Choice("wait", "; ".join(whys) or _NO_PROXY, lease)

    @staticmethod
    def _against(offer: Offer, lease: Offer) -> str:
        """Why this offer is of no use, "" if it is."""
        if not offer.http:
            return "has no HTTPClient in option 60" if not offer.address else _NO_PROXY
        if not offer.server_id:
            return "has no option 54"
        if not offer.file.startswith(("http://", "https://")):
            return f'names no URI: "{offer.file}"' if offer.file else "names no URI"
        host = urlsplit(offer.file).hostname or ""
        if _is_name(host) and lease.packet.option(6) is None:
            return f"names {host}, and the DHCP server tells no DNS"
        return ""

    def take(self, answer: Offer, asked: str) -> Choice:
        return Choice("wait", "HTTP boot asks nobody on port 4011")


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Uboot:
    """U-Boot built with SERVERIP_FROM_PROXYDHCP: siaddr and file of a proxy's header, `delay` after the address."""

    delay: float = 0.1
    eager: bool = True

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice:
        lease = next((o for o in offers if o.address and o.port == 67), None)
        if lease is None:
            return Choice("wait", _NO_ADDRESS)
        end = lease.at + self.delay
        proxies = [o for o in offers if not o.address and o.port == 67 and o.at <= end]
        proxy = next((o for o in reversed(proxies) if o.siaddr and o.header_file), None)
        if proxy is not None:
            why = f"the {_described(proxy)} has siaddr and file in its header"
            return Choice("load", why, lease, proxy.siaddr, proxy.header_file)
        if elapsed < end:
            return Choice("wait", _NO_PROXY)
        lacking = f"the {_described(proxies[-1])} lacks siaddr or the header's file" if proxies else _NO_PROXY
        return Choice("stop", lacking, lease)

    def take(self, answer: Offer, asked: str) -> Choice:
        return Choice("wait", "U-Boot asks nobody on port 4011")


@dataclass(frozen=True, slots=True)
class Pi:
    """The Raspberry Pi's boot ROM: an offer whose option 43 has its words; the files' names are its own."""

    eager: bool = True

    def choose(self, offers: Sequence[Offer], elapsed: float) -> Choice:
        lease = next((o for o in offers if o.address), None)
        if lease is None:
            return Choice("wait", _NO_ADDRESS)
        for offer in offers:
            server = offer.siaddr or offer.server_id
            if PI_WORDS in (offer.packet.option(dhcp.OPT_VENDOR_SPECIFIC) or b"") and server:
                return Choice("load", f'the {_described(offer)} says "Raspberry Pi Boot"', lease, server)
        others = [o for o in offers if not o.address]
        lacking = f'the {_described(others[0])} does not say "Raspberry Pi Boot"' if others else _NO_PROXY
        return Choice("wait", lacking, lease)

    def take(self, answer: Offer, asked: str) -> Choice:
        return Choice("wait", "the Pi asks nobody on port 4011")
