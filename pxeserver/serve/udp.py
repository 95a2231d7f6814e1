"""UDP sockets that know where a datagram came in and can answer from there (IP_PKTINFO, ip(7); RFC 3542 for IPv6)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pxeserver.errors import Refused, UsageError
from pxeserver.local.ports import port_taken

IP_PKTINFO = 8
IPV6_PKTINFO = 50
SO_RCVBUFFORCE = 33
SOL_UDP, UDP_SEGMENT = 17, 103
SEGMENTS_MAX, UDP_MAX = 64, 65000  # of one call: datagrams, bytes
_INFO = struct.Struct("=I4s4s")  # struct in_pktinfo: ifindex, our address, destination address of the header
_SEGMENT = struct.Struct("=H")
_INFO6 = struct.Struct("=16sI")  # struct in6_pktinfo: our address, ifindex
_SPACE = socket.CMSG_SPACE(_INFO6.size)  # the larger of the two
RECEIVE_BUFFER = 16 << 20  # 10,000 DISCOVERs at once; the default 208 KiB loses two of three of 5,000


class Datagram(NamedTuple):
    """One datagram and its arrival: `own` is our address that it was sent to (for a broadcast, the interface's).

    Link-local addresses stand without their scope: `ifindex` is it.
    """

    data: bytes
    peer: tuple[str, int]
    ifindex: int
    own: str


Answer = tuple[bytes, tuple[str, int], int, str]  # payload, peer, ifindex and our address, as `send` takes them


def receive(sock: socket.socket, size: int = 2048) -> Datagram | None:
    """The next datagram, or None when there is none left to read."""
    try:
        data, control, _, peer = sock.recvmsg(size, _SPACE)
    except OSError:  # nothing left, or a pending error of the interface: both end this round
        return None
    return Datagram(data, peer if len(peer) == 2 else peer[:2], *arrival(control))


def arrival(control: list[tuple[int, int, bytes]]) -> tuple[int, str]:
    """(ifindex, our address) out of what recvmsg gave besides; (0, "") if it is not there."""
    for message in control:
        if (found := _arrival(message)) is not None:
            return found
    return 0, ""


@lru_cache(maxsize=256)  # a machine's datagrams all come in the same way
def _arrival(message: tuple[int, int, bytes]) -> tuple[int, str] | None:
    level, kind, value = message
    if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(value) >= _INFO.size:
        return _INFO.unpack_from(value)[0], socket.inet_ntoa(value[4:8])
    if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO and len(value) >= _INFO6.size:
        own, ifindex = _INFO6.unpack_from(value)
        return ifindex, socket.inet_ntop(socket.AF_INET6, own)
    return None


def has_ipv6() -> bool:
    """False where the kernel was built, or started, without IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC).close()
    except OSError:
        return False
    return True


def sockaddr(address: tuple[str, int], ifindex: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What the kernel wants to be told; a link-local IPv6 address means something on its interface only."""
    host, port = address
    if ":" not in host:
        return host, port
    return host, port, 0, ifindex if host.startswith("fe80:") else 0


def send(sock: socket.socket, data: bytes, peer: tuple[str, int], ifindex: int, own: str) -> bool:
    """Send from the address `own` out of `ifindex` (0: by the routing table). False if the kernel refused."""
    ipv6 = ":" in peer[0]
    try:
        sock.sendmsg((data,), _departure(ifindex, own, ipv6), 0, sockaddr(peer, ifindex) if ipv6 else peer)
    except OSError:
        return False
    return True


def send_alike(sock: socket.socket, datagrams: Sequence[bytes], peer: tuple[str, int], ifindex: int, own: str) -> bool:
    """Datagrams of one size to one IPv4 address by one call: the kernel cuts them up (UDP_SEGMENT, udp(7)).

    At most SEGMENTS_MAX, and UDP_MAX bytes. False if the kernel refused, as it does where a device makes no checksums.
    """
    size = (SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(len(datagrams[0])))
    try:
        sock.sendmsg(datagrams, (*_departure(ifindex, own, False), size), 0, peer)
    except OSError:
        return False
    return True


@lru_cache(maxsize=256)
def _departure(ifindex: int, own: str, ipv6: bool) -> tuple[tuple[int, int, bytes], ...]:
    if ipv6:
        info6 = _INFO6.pack(socket.inet_pton(socket.AF_INET6, own or "::"), ifindex)
        return ((socket.IPPROTO_IPV6, IPV6_PKTINFO, info6),)
    info = _INFO.pack(ifindex, socket.inet_aton(own or "0.0.0.0"), b"\0\0\0\0")
    return ((socket.IPPROTO_IP, IP_PKTINFO, info),)


def listen(port: int, *, what: str, device: str = "", address: str = "", share: bool = False) -> socket.socket:
    """A non-blocking UDP socket on `port` with arrival information and a large receive buffer.

    `address` "" is every IPv4 address, "::" every IPv6 one and no IPv4 one.
    `share` lets another program bind the port afterwards (a DHCP server that starts later is not disturbed), but a
    port that is taken already is refused: two sockets on one port steal each other's unicasts.
    Raises Refused("port-taken") naming the holder, Refused("port-denied"), UsageError("no-interface").
    """
    if share and port:
        _bound(port, what, device, address, share=False).close()
    return _bound(port, what, device, address, share=share)


def _bound(port: int, what: str, device: str, address: str, *, share: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _enlarge(sock)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken("udp", port, what) from None
        if error.errno == errno.ENODEV:
            raise UsageError("no-interface", f'no interface "{device}"', hint="`ip -br link` lists them") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refused(
                "port-denied",
                f"may not listen on udp port {port} ({what})",
                hint="start it as root, or by the systemd unit, or choose ports above 1023",
            ) from None
        raise
    return sock


def _enlarge(sock: socket.socket) -> None:
    """The forced buffer needs CAP_NET_ADMIN; without it take what net.core.rmem_max allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
