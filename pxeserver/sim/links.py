"""How a simulated machine reaches DHCP: on the wire with its own MAC, or from behind a relay that is simulated too."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from pxeserver.errors import PxeServerError, Refused, UsageError
from pxeserver.local.ports import holder_of
from pxeserver.mac import Mac, mac_to_bytes
from pxeserver.sim import packets
from pxeserver.sim.effects import Peer
from pxeserver.sim.offers import NOWHERE
from pxeserver.wire import dhcp, ip
from pxeserver.wire.reader import WireError

_ETH_P_IP = 0x0800
_SOL_PACKET, _ADD_MEMBERSHIP, _PROMISC = 263, 1, 1
_EVERYONE = b"\xff" * 6
SITE = "192.0.2.1"  # the DHCP server that a relay makes up (RFC 5737)
_SITE_PORT = ("255.255.255.255", 68)
Hear = Callable[[bytes, Peer], None]
Note = Callable[[str], None]


class Link(Protocol):
    """DHCP to everybody, what comes back to port 68, and the address to speak from afterwards.

    `start` is told who hears the answers, and whom to tell what a person should know.
    """

    def start(self, hear: Hear, note: Note) -> None: ...
    def broadcast(self, payload: bytes) -> None: ...
    def use(self, address: str, server: str) -> str: ...
    def close(self) -> None: ...


def _answer(packet: dhcp.Packet, address: str, server: str) -> bytes:
    """What a DHCP server that has one address to give says to DISCOVER and REQUEST."""
    message = dhcp.OFFER if packet.message == dhcp.DISCOVER else dhcp.ACK
    options = (
        (dhcp.OPT_MESSAGE_TYPE, bytes((message,))),
        (dhcp.OPT_SERVER_ID, socket.inet_aton(server)),
        (51, (3600).to_bytes(4, "big")),
        (1, socket.inet_aton("255.255.255.0")),
    )
    return dhcp.Packet(dhcp.BOOTREPLY, packet.xid, packet.chaddr, options, yiaddr=address).pack()


def _server_of(packet: dhcp.Packet) -> str:
    raw = packet.option(dhcp.OPT_SERVER_ID)
    return socket.inet_ntoa(raw) if raw is not None and len(raw) == 4 else ""


class Relay:
    """A relay agent at `own`, port 67, that forwards to one boot server, and a DHCP server of its own that gives
    each machine the address `own`. For machines that boot one after the other, or have a relay each."""

    def __init__(self, own: str, server: str) -> None:
        self.own, self.server = own, server
        self._circuit = b"\1\6sim-67"
        self._sock = _bound(own)
        self._hear: Hear | None = None
        self._note: Note = lambda text: None

    def start(self, hear: Hear, note: Note) -> None:
        self._hear, self._note = hear, note
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def use(self, address: str, server: str) -> str:
        self._note(f"takes no lease: {address} was made up by the simulated relay")
        return address

    def broadcast(self, payload: bytes) -> None:
        packet = dhcp.parse(payload)
        options = (*packet.options, (dhcp.OPT_RELAY, self._circuit))
        relayed = replace(packet, giaddr=self.own, hops=packet.hops + 1, options=options)
        _send(self._sock, relayed.pack(), (self.server, 67))
        if packet.message == dhcp.DISCOVER or (packet.message == dhcp.REQUEST and _server_of(packet) == SITE):
            raw = _answer(packet, self.own, SITE)
            asyncio.get_running_loop().call_soon(self._heard, raw, (SITE, 67))

    def _heard(self, raw: bytes, peer: Peer) -> None:
        if self._hear is not None:
            self._hear(raw, peer)

    def _readable(self) -> None:
        """Only what names this relay is passed on, without the relay's own option (RFC 3046)."""
        try:
            raw, peer = self._sock.recvfrom(4096)
            packet = dhcp.parse(raw)
        except (OSError, WireError):
            return
        if packet.giaddr != self.own or packet.option(dhcp.OPT_RELAY) != self._circuit:
            return
        rest = tuple(option for option in packet.options if option[0] != dhcp.OPT_RELAY)
        self._heard(replace(packet, options=rest).pack(), (peer[0], 67))


def _send(sock: socket.socket, payload: bytes, to: Peer) -> None:
    """A datagram that cannot be sent is a lost one."""
    try:
        sock.sendto(payload, to)
    except OSError:
        pass


def _bound(own: str) -> socket.socket:
    """Port 67 of one address; beside a server that has the port of all of them and shares it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((own, 67))
    except OSError as error:
        sock.close()
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refused("not-root", "posing as a relay takes port 67, which needs root", hint="sudo") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError("not-ours", f"{own} is not an address of this host") from None
        holder = holder_of("udp", 67) or "another process"
        raise Refused(
            "port-taken",
            f"udp port 67 of {own} is taken by {holder}",
            hint="run it on another host of the network: pxeserver simulate --interface NAME",
        ) from None
    return sock


class Wire:
    """Frames of the machine's own MAC on an interface. Without `lease` no address is taken from the site's DHCP server:
    its offer is heard, the REQUEST stays here, and the machine speaks from this host's address."""

    def __init__(self, interface: str, mac: Mac, own: str, *, lease: bool) -> None:
        self.interface, self.mac, self.own, self.lease = interface, mac_to_bytes(mac), own, lease
        self._note: Note = lambda text: None
        self._leased: tuple[str, str] | None = None
        self._hear: Hear | None = None
        try:
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except PermissionError:
            raise Refused("not-root", "speaking with a MAC of its own needs root", hint="sudo") from None
        try:
            self._sock.bind((interface, _ETH_P_IP))
            index = socket.if_nametoindex(interface)
            self._sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("iHH8s", index, _PROMISC, 0, b""))
        except OSError:
            self._sock.close()
            raise UsageError("no-interface", f'no interface "{interface}"', hint="`ip -br link` lists them") from None

    def start(self, hear: Hear, note: Note) -> None:
        self._hear, self._note = hear, note
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        if self._leased is not None:
            address, server = self._leased
            released = packets.release(packets.Card.of(self.mac.hex(":")), random.randbytes(4), address, server)
            self._frame(ip.pack(released, (address, 68), ("255.255.255.255", 67)))
            _ip("address", "del", f"{address}/32", "dev", self.interface)
            self._note(f"gives {address} back to {server}")
        self._sock.close()

    def broadcast(self, payload: bytes) -> None:
        packet = dhcp.parse(payload)
        if packet.message == dhcp.REQUEST and packet.ciaddr == NOWHERE and not self.lease:
            wanted = socket.inet_ntoa(packet.option(packets.REQUESTED_ADDRESS) or bytes(4))
            raw = _answer(packet, wanted, _server_of(packet) or SITE)
            asyncio.get_running_loop().call_soon(self._heard, raw, (_server_of(packet) or SITE, 67))
            return
        self._frame(ip.pack(payload, (NOWHERE, 68), ("255.255.255.255", 67)))

    def use(self, address: str, server: str) -> str:
        if not self.lease:
            self._note(f"takes no lease: {address} was offered by {server}; goes on as {self.own}, this host's own")
            return self.own
        if self._leased is None:
            self._note(f"takes a lease: {address} from {server}, for {self.mac.hex(':')}, until the end of this run")
            _ip("address", "add", f"{address}/32", "dev", self.interface)
            self._leased = (address, server)
        return address

    def _frame(self, packet: bytes) -> None:
        try:
            self._sock.send(_EVERYONE + self.mac + _ETH_P_IP.to_bytes(2, "big") + packet)
        except OSError:
            pass

    def _heard(self, raw: bytes, peer: Peer) -> None:
        if self._hear is not None:
            self._hear(raw, peer)

    def _readable(self) -> None:
        try:
            frame = self._sock.recv(65535)
        except OSError:
            return
        if frame[:6] not in (_EVERYONE, self.mac) or frame[6:12] == self.mac or frame[12:14] != b"\x08\0":
            return
        found = ip.unpack(frame[14:])
        if found is not None and found[2][1] == 68:
            self._heard(found[0], found[1])


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PxeServerError("ip-failed", f"ip {' '.join(words)}: {done.stderr.strip()}")
