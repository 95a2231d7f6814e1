"""Listening stream sockets: TCP and Unix, with errors that say who has the port."""

from __future__ import annotations

import errno
import logging
import socket
from pathlib import Path

from pxeserver.errors import Refused, UsageError
from pxeserver.local.ports import port_taken

log = logging.getLogger("pxeserver.boot")

_BACKLOG = 4096  # a rack that powers on at once; the kernel clamps it to net.core.somaxconn


def tcp(host: str, port: int, what: str, device: str = "") -> socket.socket:
    """A non-blocking TCP listener; `host` "" is every IPv4 address, "::" every IPv6 one and no IPv4 one.

    Refused("port-taken"), UsageError("not-ours").
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken("tcp", port, what) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                "not-ours", f"{host} is not an address of this host", hint="`ip -br address` lists them"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refused(
                "port-denied",
                f"may not listen on tcp port {port} ({what})",
                hint="start it as root, or by the systemd unit, or choose a port above 1023",
            ) from None
        raise
    return sock


def congestion_control(sock: socket.socket, name: str) -> None:
    """By which connections of this listener send; what the kernel has not leaves them the host's, with a warning."""
    if not name:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        has = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        log.warning("http.congestion_control: no %s here (%s); it stays %s", name, error.strerror, has)


def unix(path: Path) -> socket.socket:
    """A non-blocking Unix listener for this user and its group; replaces a dead one, never a living one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(str(path))
        path.chmod(0o660)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise Refused(
            "socket-denied",
            f"may not listen on {path}: {error.strerror}",
            hint="choose another path for admin.socket, or start it as root",
        ) from None
    return sock


def _remove_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            return
    raise Refused(
        "already-running",
        f"a pxeserver listens on {path} already",
        hint="stop it, or give this one its own --data and admin.socket",
    )


def remove(path: Path) -> None:
    """Take a Unix socket away. Left in a folder where we may no longer write, it does no harm."""
    try:
        path.unlink()
    except OSError:
        pass
