"""The configuration file: typed, whole or not at all, every fault with file, line and nearest key.

Precedence: command-line flag > environment (PXESERVER_<SECTION>_<KEY>) > file > default.
config/pxeserver.yaml is this table with comments; a test compares the two.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from pxeserver import yamlpos
from pxeserver.checked import After, Between, Part, field, fields
from pxeserver.errors import NotFound, UsageError
from pxeserver.model import Policy

DEFAULT_FILE = Path("/etc/pxeserver/pxeserver.yaml")
DEFAULT_DATA = Path("/var/lib/pxeserver")

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def upstream(text: str) -> tuple[str, int]:
    """'10.0.0.1', '10.0.0.1:5353', '[fd00::1]:53' or 'fd00::1' -> (address, port). ValueError for anything else."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else port if not rest else "?"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text}: the port must be 1 to 65535")
    return str(ipaddress.ip_address(host)), int(port)


def _ip(value: str) -> str:
    if value != "auto":
        ipaddress.IPv4Address(value)
    return value


def _ip6(value: str) -> str:
    if value == "auto":
        return value
    address = ipaddress.IPv6Address(value)
    if address.is_link_local:
        raise ValueError("a link-local address means nothing in a URL")
    return str(address)


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _location(value: str) -> str:
    if value and not re.fullmatch(r"/[A-Za-z0-9._~/-]*/", value):
        raise ValueError("the location must begin and end with a slash, as /pxeserver-files/")
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    ipaddress.ip_address(host.strip("[]"))
    if not 0 <= int(port) <= 65535:
        raise ValueError("the port must be 0 to 65535")
    return value


def _domain(value: str) -> str:
    if len(value) > 200 or not all(map(_LABEL.fullmatch, value.strip(".").split("."))):
        raise ValueError("must be a domain name: letters, digits and - between dots")
    return value.strip(".")


def _name(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError("must be one label: letters, digits and -")
    return value


def _upstream(value: str) -> str:
    upstream(value)
    return value


Port = Annotated[int, Between(0, 65535)]


class Server(Part):
    data: str = str(DEFAULT_DATA)
    interfaces: tuple[str, ...] = ()  # empty: every interface that is up but lo
    advertise: Annotated[str, After(_ip)] = "auto"  # own address for machines; auto = of the interface they came in by
    advertise6: Annotated[str, After(_ip6)] = "auto"  # the same for machines that come by IPv6
    user: str = ""  # dropped to after binding; empty: stay


class Dhcp(Part):
    mode: Literal["proxy", "raw", "off"] = "proxy"  # raw: as proxy, without taking port 67
    port: Port = 67
    pxe_port: Port = 4011
    unknown: Policy = Policy.WAIT


class Dhcp6(Part):
    mode: Literal["proxy", "off"] = "off"  # proxy: answer beside the site's DHCPv6 server
    port: Port = 547


class Tftp(Part):
    port: Port = 69
    blksize_max: Annotated[int, Between(8, 65464)] = 1468
    windowsize_max: Annotated[int, Between(1, 65535)] = 64
    sessions_max: Annotated[int, Between(1)] = 2000
    sessions_per_peer: Annotated[int, Between(1)] = 16


class Http(Part):
    port: Port = 8080
    advertise_port: Port = 0  # the port that machines are told, of a proxy in front; 0: `port`
    proxies: tuple[Annotated[str, After(_network)], ...] = ()  # addresses or networks: X-Forwarded-For is believed
    x_accel: Annotated[str, After(_location)] = ""  # location of a proxy (nginx) that sends the images' files itself
    transfers_max: Annotated[int, Between(1)] = 1000  # machines that load at once; the others wait for their turn
    link_mbit: Annotated[int, Between(0)] = 0  # what a link of ours carries; 0: not known, only transfers_max counts
    congestion_control: str = "cubic"  # of TCP (tcp(7), TCP_CONGESTION); "": the host's

    @property
    def told_port(self) -> int:
        """The port in the URLs that machines are told."""
        return self.advertise_port or self.port


class Admin(Part):
    listen: Annotated[str, After(_listen)] = "127.0.0.1:8081"
    socket: str = "/run/pxeserver/api.sock"
    token: str = ""  # needed when `listen` is not a loopback address

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class Boot(Part):
    bios_loader: str = "undionly.kpxe"
    efi_loader: str = "snponly.efi"
    loaders: Mapping[str, str] = field(default={})  # further families (wire/pxe.py): {arm64: snponly-arm64.efi}
    poll_seconds: Annotated[int, Between(1, 3600)] = 5  # how often a waiting machine asks again
    silence_seconds: Annotated[int, Between(10)] = 300  # a DISCOVER after this long begins a new boot
    stuck_seconds: Annotated[int, Between(10)] = 600  # no new stage for this long: the boot is stuck
    keep_days: Annotated[int, Between(1)] = 90  # events and boots older than this are dropped


class Defaults(Part):
    spec: str = ""  # for dhcp.unknown: default
    cmdline: tuple[str, ...] = ()  # edits for every machine


class Images(Part):
    source: str = ""  # registry, docker, oci:DIR, archive:FILE; empty: the local store, then the registry
    mirrors: tuple[str, ...] = ()  # [REG=]URL
    trust_keys: tuple[str, ...] = ()  # PEM files; a signature by one of them is enough
    compress: Literal["gzip", "zstd", "none"] = "gzip"
    uki_key: str = ""  # PEM: private key by which `images uki` signs for Secure Boot
    uki_cert: str = ""  # PEM: its certificate
    specs: tuple[str, ...] = ()  # folders of specs, searched before the shipped ones
    templates: tuple[str, ...] = ()  # folders of templates, searched first


class Dns(Part):
    enabled: bool = False
    port: Port = 53
    domain: Annotated[str, After(_domain)] = "pxe.internal"  # machines are NAME.domain
    name: Annotated[str, After(_name)] = "pxeserver"  # the boot server's own name in it
    ttl: Annotated[int, Between(0, 86400)] = 60  # seconds
    upstreams: tuple[Annotated[str, After(_upstream)], ...] = ()  # ADDR or ADDR:PORT; empty: other names are refused


class Metadata(Part):
    enabled: bool = False
    port: Port = 80


class Database(Part):
    url: str = ""  # empty: sqlite in the data folder


class Config(Part):
    server: Server = Server()
    dhcp: Dhcp = Dhcp()
    dhcp6: Dhcp6 = Dhcp6()
    tftp: Tftp = Tftp()
    http: Http = Http()
    admin: Admin = Admin()
    boot: Boot = Boot()
    defaults: Defaults = Defaults()
    images: Images = Images()
    dns: Dns = Dns()
    metadata: Metadata = Metadata()
    database: Database = Database()

    @property
    def data(self) -> Path:
        return Path(self.server.data)


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The effective configuration.

    `file` None means the default file if it exists. `flags` maps "section.key" to values that were given (not None).
    Raises NotFound for a file that was named and is not there, UsageError with the place for anything wrong inside.
    """
    doc = yamlpos.Document({}, "")
    if file is not None and not file.is_file():
        raise NotFound("config-not-found", f"no config file {file}", hint="see --config")
    file = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    if file is not None:
        doc = yamlpos.parse(file.read_bytes(), str(file))
    merged: Any = doc.data if doc.data is not None else {}
    if not isinstance(merged, dict):
        raise UsageError("config-type", "the config must be a map of sections", where=doc.where(()))
    merged = {k: dict(v) if isinstance(v, dict) else v for k, v in merged.items()}
    for section, info in fields(Config).items():
        for key in fields(type(info.default)):
            text = environ.get(f"PXESERVER_{section}_{key}".upper())
            if text is not None:
                merged.setdefault(section, {})[key] = yaml.safe_load(text) if text else ""
    for name, value in (flags or {}).items():
        if value is not None:
            section, _, key = name.partition(".")
            merged.setdefault(section, {})[key] = value
    return yamlpos.validate(Config, doc, slug="config", data=merged)


def parse(data: Any) -> Config:
    """The configuration that `plain` made this JSON data of."""
    return yamlpos.validate(Config, yamlpos.Document(data), slug="config")
