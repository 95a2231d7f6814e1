"""A booted system's question for its server, as `find-server` of the base images asks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pxeserver.boot import find
from pxeserver.boot.answer import Arrival
from pxeserver.wire import dhcp

OWN, SYSTEM, RELAY = "10.9.0.1", "10.8.0.77", "10.8.0.254"
URL = "http://255.255.255.255:65535/boot/" + "T" * 62
INFORM = dhcp.Packet(
    op=dhcp.BOOTREQUEST,
    xid=b"\xb6\xdb\x6e\x1f",
    chaddr=bytes.fromhex("0ed68b00011d"),
    options=((53, b"\x08"), (60, b"pxeserver")),
    flags=dhcp.BROADCAST,
    ciaddr=SYSTEM,
)
ARRIVAL = Arrival(OWN, 2, 67, SYSTEM, 40123)


def test_only_our_own_class_asks_and_only_who_has_an_address() -> None:
    assert find.asks(INFORM)
    for other in (b"PXEClient", b"udhcp 1.35.0", b"pxeserver-2"):
        assert not find.asks(replace(INFORM, options=((53, b"\x08"), (60, other))))
    for message in (dhcp.DISCOVER, dhcp.REQUEST, dhcp.RELEASE):
        assert not find.asks(replace(INFORM, options=((53, bytes([message])), (60, b"pxeserver"))))


def test_the_answer_has_the_url_its_class_and_no_address() -> None:
    reply = find.tell(INFORM, ARRIVAL, URL)
    assert (reply.address, reply.port) == (SYSTEM, 68)  # whatever port it was asked from
    got = dhcp.parse(reply.payload)
    assert (got.message, got.xid, got.chaddr) == (dhcp.ACK, INFORM.xid, INFORM.chaddr)
    assert (got.yiaddr, got.siaddr, got.option(dhcp.OPT_SERVER_ID)) == ("0.0.0.0", OWN, bytes((10, 9, 0, 1)))
    assert got.option(dhcp.OPT_VENDOR_CLASS) == b"pxeserver"
    assert got.option(51) is None  # an ACK to an INFORM has no lease time
    assert got.file.decode() == URL


@pytest.mark.parametrize("flags", [0, dhcp.BROADCAST])
def test_a_relay_gets_back_what_is_its_own_and_is_made_to_broadcast(flags: int) -> None:
    options = (*INFORM.options, (82, b"\x01\x04eth7"))
    asked = replace(INFORM, options=options, giaddr=RELAY, hops=1, flags=flags)
    reply = find.tell(asked, ARRIVAL._replace(peer_ip=RELAY, peer_port=67), URL)
    assert (reply.address, reply.port) == (RELAY, 67)
    got = dhcp.parse(reply.payload)
    assert (got.giaddr, got.ciaddr, got.hops, got.flags) == (RELAY, SYSTEM, 1, dhcp.BROADCAST)
    assert got.options[-1] == (82, b"\x01\x04eth7")


def test_without_an_address_everybody_is_told() -> None:
    reply = find.tell(replace(INFORM, ciaddr="0.0.0.0"), ARRIVAL, URL)
    assert (reply.address, reply.port) == ("255.255.255.255", 68)
