"""Is this host ready to boot machines? One check per thing that goes wrong in practice, each with what to do."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import tftpy
from dnslib import DNSError, DNSRecord

from pxeserver import __version__
from pxeserver.boot import grub
from pxeserver.config import Config
from pxeserver.images import uki
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.local.doctor_dhcp import Offer, ask
from pxeserver.local.interfaces import Interface, read_interfaces, serving
from pxeserver.local.loaders import STANDARD, LoaderSet
from pxeserver.local.ports import holder_of

LOW_SPACE, NO_SPACE = 2 << 30, 256 << 20
_STA_UNSYNC = 0x0040
# no clock of a running host stands before the release of what runs on it
_NOT_BEFORE = 1_764_000_000


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fix` is empty when nothing is to be done."""

    name: str
    status: Status
    text: str
    fix: str = ""


def examine(config: Config, *, discover: bool = False) -> Iterator[Check]:
    """Every check in turn; `discover` also asks each wire which DHCP servers answer (root, 3 s per interface)."""
    interfaces = read_interfaces()
    ours = serving(interfaces, config.server.interfaces)
    yield from check_interfaces(config, list(interfaces.values()), ours)
    running = False
    for check in check_ports(config, holder_of):
        running = running or (check.name.startswith("udp") and check.status == Status.OK and "pxeserver" in check.text)
        yield check
    loaders = LoaderSet(config.data / "loaders")
    yield from check_loaders(config, loaders)
    secure = any(x.name in grub.LOADERS and x.state != "missing" for x in loaders.list())
    if secure:
        yield from check_signatures(Store(config.data / "store"))
    if running:
        yield from check_tftp(config, loaders, ours)
        yield from check_dns(config, ours)
    yield from check_data(config.data)
    yield check_clock(time.time(), _clock_synchronised())
    if discover:
        own = {str(a.ip) for i in interfaces.values() for a in i.addresses}
        for interface in ours:
            offers = ask(interface.name)
            yield from check_offers(interface.name, offers, own)
            if secure:
                yield from check_next_server(interface, offers)


def check_interfaces(config: Config, found: Sequence[Interface], ours: Sequence[Interface]) -> Iterator[Check]:
    """Named interfaces exist, are up and have an address to tell machines."""
    names = {i.name for i in found}
    for name in config.server.interfaces:
        if name not in names:
            yield Check(
                "interface", Status.FAIL, f"{name} does not exist", f"server.interfaces: {', '.join(sorted(names))}"
            )
    if not ours:
        yield Check("interface", Status.FAIL, "no interface is up", "ip link set IFACE up")
    for interface in ours:
        addresses = ", ".join(str(a) for a in interface.addresses)
        if not interface.up:
            yield Check("interface", Status.FAIL, f"{interface.name} is down", f"ip link set {interface.name} up")
        elif not addresses:
            yield Check(
                *("interface", Status.WARN, f"{interface.name} has no IPv4 address: machines there get no answer"),
                "give it one, or name the others in server.interfaces",
            )
        else:
            yield Check("interface", Status.OK, f"{interface.name} {addresses}")


def check_ports(config: Config, holder: Callable[[str, int], str]) -> Iterator[Check]:
    """Each port is free, or ours. `holder` says who has a port."""
    wanted = [("udp", config.tftp.port, "TFTP", "tftp.port"), ("tcp", config.http.port, "boot HTTP", "http.port")]
    wanted.append(("tcp", config.admin.port, "pages and API", "admin.listen"))
    if config.dns.enabled:
        wanted += [("udp", config.dns.port, "DNS", "dns.port"), ("tcp", config.dns.port, "DNS", "dns.port")]
    if config.metadata.enabled:
        wanted.append(("tcp", config.metadata.port, "metadata", "metadata.port"))
    if config.dhcp.mode == "proxy":
        wanted[:0] = [("udp", config.dhcp.port, "proxyDHCP", ""), ("udp", config.dhcp.pxe_port, "PXE", "")]
    if config.dhcp6.mode == "proxy":
        wanted.append(("udp", config.dhcp6.port, "DHCPv6", "dhcp6.mode: off"))
    for protocol, port, what, key in wanted:
        who = holder(protocol, port)
        name = f"{protocol} {port}"
        if not who:
            yield Check(name, Status.OK, f"free for {what}")
        elif "pxeserver" in who:
            yield Check(name, Status.OK, f"{what}: {who}")
        else:
            other = f"set {key}" if key else "let that server say it: dhcp.mode: off prints the lines for it"
            yield Check(name, Status.FAIL, f"{what} cannot have it: {who} does", f"stop it, or {other}")


def check_loaders(config: Config, loaders: LoaderSet) -> Iterator[Check]:
    """The configured loaders are there and as recorded."""
    have = {x.name: x for x in loaders.list()}
    for name in dict.fromkeys((config.boot.bios_loader, config.boot.efi_loader)):
        loader = have.get(name)
        fix = "pxeserver loaders fetch" if name in STANDARD else "pxeserver loaders add FILE"
        if name in grub.LOADERS:
            fix = "pxeserver loaders fetch --secure-boot"
        if loader is None or loader.state == "missing":
            yield Check("loader", Status.FAIL, f"{name} is missing", fix)
        elif loader.state == "changed":
            yield Check("loader", Status.FAIL, f"{name} is not what was recorded ({loader.origin})", fix)
        else:
            version = f" {loader.version}" if loader.version else ""
            yield Check("loader", Status.OK, f"{name}{version}, {loader.kind} {loader.arch}, {loader.state}")


def check_tftp(config: Config, loaders: LoaderSet, ours: Sequence[Interface]) -> Iterator[Check]:
    """Fetch the BIOS loader from each of our addresses with a client that is not ours, and compare."""
    name = config.boot.bios_loader
    want = {x.name: x.sha256 for x in loaders.list() if x.state != "missing"}.get(name)
    if want is None:
        return
    for address in (str(i.addresses[0].ip) for i in ours if i.addresses):
        try:
            data = tftp_get(address, config.tftp.port, name)
        except (tftpy.TftpException, OSError) as error:
            yield Check("tftp", Status.FAIL, f"{name} from {address}: {error}", "see the log of pxeserver serve")
            continue
        if hashlib.sha256(data).hexdigest() == want:
            yield Check("tftp", Status.OK, f"{name} from {address}, {len(data)} bytes")
        else:
            yield Check("tftp", Status.FAIL, f"{name} from {address} is another file", "another server has that port?")


def check_dns(config: Config, ours: Sequence[Interface]) -> Iterator[Check]:
    """Our own name, asked for at each of our addresses, is that address."""
    if not config.dns.enabled:
        return
    name = f"{config.dns.name}.{config.dns.domain}"
    for address in (str(i.addresses[0].ip) for i in ours if i.addresses):
        want = address if config.server.advertise == "auto" else config.server.advertise
        try:
            raw = DNSRecord.question(name).send(address, config.dns.port, timeout=3)
            found = [str(rr.rdata) for rr in DNSRecord.parse(raw).rr]
        except (OSError, DNSError) as error:
            yield Check("dns", Status.FAIL, f"{name} from {address}: {error}", "see the log of pxeserver serve")
            continue
        if found == [want]:
            yield Check("dns", Status.OK, f"{name} from {address} is {want}")
        else:
            text = f"{name} from {address} is {', '.join(found) or 'nothing'}, not {want}"
            yield Check("dns", Status.FAIL, text, "another server has that port?")


def tftp_get(address: str, port: int, name: str) -> bytes:
    """A file by tftpy's client. TftpException or OSError when it does not come."""
    logging.getLogger("tftpy").setLevel(logging.CRITICAL)  # the check itself says what went wrong
    with tempfile.TemporaryDirectory(prefix="pxeserver-doctor-") as folder:
        into = Path(folder) / "file"
        client = tftpy.TftpClient(address, port, options={"blksize": 1468})
        with contextlib.redirect_stdout(io.StringIO()):
            client.download(name, str(into), timeout=3, retries=2)
        return into.read_bytes()


def check_data(data: Path) -> Iterator[Check]:
    """The data folder can be written and has room for images."""
    place = next(p for p in (data, *data.parents) if p.exists())
    if not os.access(place, os.W_OK):
        yield Check("data", Status.FAIL, f"{data} may not be written", "run it as the server's user, or --data FOLDER")
        return
    yield Check("data", Status.OK, str(data) if data.exists() else f"{data} will be made")
    free = shutil.disk_usage(place).free
    text = f"{free / (1 << 30):.1f} GiB free at {place}"
    status = Status.FAIL if free < NO_SPACE else Status.WARN if free < LOW_SPACE else Status.OK
    yield Check("disk", status, text, "" if status == Status.OK else "pxeserver images rm, or a larger disk")


def check_clock(now: float, synchronised: bool | None) -> Check:
    """Timelines and certificates need the time; `synchronised` None = the kernel does not say."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _NOT_BEFORE:
        return Check("clock", Status.FAIL, f"{shown} lies before pxeserver {__version__} was made", "set the clock")
    if synchronised is False:
        return Check("clock", Status.WARN, f"{shown}, not synchronised", "run a time service (chrony)")
    return Check("clock", Status.OK, shown)


def check_offers(interface: str, offers: Sequence[Offer], own: set[str]) -> Iterator[Check]:
    """What other DHCP servers tell a booting machine on this wire."""
    name = f"dhcp {interface}"
    others = [o for o in offers if o.server not in own]
    if not any(o.hands_out for o in others):
        yield Check(
            *(name, Status.WARN, "no DHCP server offers an address"),
            "pxeserver hands out none: machines need the site's DHCP server on the same wire",
        )
    for offer in others:
        if offer.says:
            yield Check(
                *(name, Status.WARN, f"{offer.server} {offer.says}"),
                "take its boot options (66, 67, next-server, PXEClient) away: some firmware prefers them to ours",
            )
        else:
            yield Check(name, Status.OK, f"{offer.server} offers {offer.hands_out} and no boot options")


def check_next_server(interface: Interface, offers: Sequence[Offer]) -> Iterator[Check]:
    """A signed GRUB asks the next-server of the site's DHCP for its configuration, whatever a proxy says."""
    own = [str(a.ip) for a in interface.addresses]
    for offer in (o for o in offers if o.hands_out and o.server not in own):
        if own and offer.next_server not in own:
            named = offer.next_server or "no server"
            yield Check(
                *(f"dhcp {interface.name}", Status.WARN, f"{offer.server} names {named} as next-server"),
                f"a signed GRUB asks that one for its configuration: set next-server to {own[0]} there",
            )


def check_signatures(store: Store) -> Iterator[Check]:
    """Kernels of built images that a signed GRUB would refuse."""
    for image in Catalogue(store).list():
        if not store.has(image.kernel.digest):
            continue
        with store.open_blob(image.kernel.digest) as file:
            signed = uki.is_signed(file)
        if not signed:
            yield Check(
                *("secure boot", Status.WARN, f"the kernel of {image.short} is not signed"),
                "with Secure Boot on it boots only as a UKI signed by a key of yours: docs/secure-boot.md",
            )


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)) as far as `status`, and room for the rest."""

    _fields_ = [("modes", ctypes.c_uint), ("longs", ctypes.c_long * 4), ("status", ctypes.c_int)]
    _fields_ += [("rest", ctypes.c_char * 256)]


def _clock_synchronised() -> bool | None:
    """What the kernel was told by a time service; None where there is no such call."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state = _Timex()
    if adjtimex(ctypes.byref(state)) < 0:
        return None
    return not state.status & _STA_UNSYNC
