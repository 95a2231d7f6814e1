"""Who holds a port that we wanted: read from /proc, so that the error can name it."""

from __future__ import annotations

from pathlib import Path, PurePath

from pxeserver.errors import Refused

_HINTS = {
    "dhcp": (
        "name the interfaces to answer on (--interface), or listen without taking the port (--dhcp raw), "
        "or let that server do it (--dhcp off prints the lines for it)"
    ),
    "dhcp6": "name the interfaces to answer on (--interface), or leave dhcp6.mode off",
    "tftp": "stop it, or choose another port with --tftp-port (firmware only asks port 69)",
    "http": "stop it, or choose another port with --http-port",
    "dns": "name the interfaces to answer on (--interface), or set dns.port",
    "metadata": "stop it, or set metadata.port (LinuxKit's metadata package only asks port 80)",
    "admin": "stop it, or choose another address with --admin",
}


def port_taken(protocol: str, port: int, what: str) -> Refused:
    """The error for a port that is in use; `what` is the listener that wanted it (a key of the hints)."""
    holder = holder_of(protocol, port)
    return Refused(
        "port-taken",
        f"{protocol} port {port} ({what}) is taken by {holder or 'another process'}",
        hint=_HINTS[what],
    )


def holder_of(protocol: str, port: int, proc: Path = Path("/proc")) -> str:
    """'dnsmasq (pid 812)' for the process that has a socket on `port` ("udp" or "tcp"), "" if it cannot be seen."""
    inodes = _inodes(protocol, port, proc)
    if not inodes:
        return ""
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if any(_link(fd) in inodes for fd in (folder / "fd").iterdir()):
                return f"{_program(folder)} (pid {folder.name})"
        except OSError:  # gone meanwhile, or another user's
            continue
    return ""


def _link(fd: Path) -> str:
    """Where a descriptor leads; "" when it was closed meanwhile."""
    try:
        return str(fd.readlink())
    except OSError:
        return ""


def _program(folder: Path) -> str:
    """What a process runs; for a Python program its own name, not the interpreter's."""
    comm = (folder / "comm").read_text().strip()
    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
    if not comm.startswith("python"):
        return comm
    if words[:1] == ["-m"]:
        words = words[1:]
    return PurePath(words[0]).name if words and words[0] else comm


def _inodes(protocol: str, port: int, proc: Path) -> set[str]:
    """The 'socket:[N]' links of the sockets bound to `port`; for tcp the listening ones."""
    found = set()
    for table in (protocol, protocol + "6"):
        try:
            rows = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            cells = row.split()
            if int(cells[1].rpartition(":")[2], 16) == port and (protocol == "udp" or cells[3] == "0A"):
                found.add(f"socket:[{cells[9]}]")
    return found
