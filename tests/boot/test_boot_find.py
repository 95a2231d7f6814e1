"""A booted system's question for its server, as klibc's ipconfig asks it."""

from __future__ import annotations

from dataclasses import replace

from pxeserver.boot import find
from pxeserver.boot.answer import Arrival
from pxeserver.wire import dhcp

OWN = "10.9.0.1"
URL = "http://255.255.255.255:65535/boot/" + "T" * 62
PARAMETERS = (55, bytes((1, 3, 6, 12, 15, 17, 26, 28, 40, 119, 121)))
DISCOVER = dhcp.Packet(
    op=dhcp.BOOTREQUEST,
    xid=b"\xb6\xdb\x6e\x1f",
    chaddr=bytes.fromhex("0ed68b00011d"),
    options=((53, b"\1"), PARAMETERS, (60, b"pxeserver")),
    flags=dhcp.BROADCAST,
)
REQUEST = replace(
    DISCOVER,
    options=((53, b"\3"), (54, bytes((10, 9, 0, 1))), (50, bytes(4)), PARAMETERS, (60, b"pxeserver")),
)
ARRIVAL = Arrival(OWN, 2, 4011, "0.0.0.0", 4012)


def test_only_our_own_class_asks() -> None:
    assert find.asks(DISCOVER) and find.asks(REQUEST)
    for other in (b"PXEClient", b"udhcp 1.35.0", b"pxeserver-2"):
        assert not find.asks(replace(DISCOVER, options=((53, b"\1"), (60, other))))


def test_the_whole_exchange_gives_the_url_and_no_address() -> None:
    for asked, kind in ((DISCOVER, dhcp.OFFER), (REQUEST, dhcp.ACK)):
        reply = find.tell(asked, ARRIVAL, URL)
        assert reply is not None
        assert (reply.address, reply.port) == ("255.255.255.255", 4012)
        got = dhcp.parse(reply.payload)
        assert (got.message, got.xid, got.chaddr) == (kind, DISCOVER.xid, DISCOVER.chaddr)
        assert (got.yiaddr, got.siaddr, got.option(dhcp.OPT_SERVER_ID)) == ("0.0.0.0", OWN, bytes((10, 9, 0, 1)))
        assert got.file.decode() == URL


def test_a_request_that_means_another_server_is_left_to_it() -> None:
    assert find.tell(REQUEST, ARRIVAL._replace(own_ip="10.9.0.2"), URL) is None
    assert find.tell(replace(DISCOVER, options=((53, b"\7"), (60, b"pxeserver"))), ARRIVAL, URL) is None
