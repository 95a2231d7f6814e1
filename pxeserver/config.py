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
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pxeserver import yamlpos
from pxeserver.errors import NotFound, UsageError
from pxeserver.model import Policy

DEFAULT_FILE = Path("/etc/pxeserver/pxeserver.yaml")
DEFAULT_DATA = Path("/var/lib/pxeserver")

Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Server(Section):
    data: str = str(DEFAULT_DATA)
    interfaces: tuple[str, ...] = Field(default=(), strict=False)  # empty: every interface that is up but lo
    advertise: str = "auto"  # own address given to machines; auto = of the interface the packet came in by
    advertise6: str = "auto"  # the same for machines that come by IPv6
    user: str = ""  # dropped to after binding; empty: stay

    @field_validator("advertise")
    @classmethod
    def _ip(cls, value: str) -> str:
        if value != "auto":
            ipaddress.IPv4Address(value)
        return value

    @field_validator("advertise6")
    @classmethod
    def _ip6(cls, value: str) -> str:
        if value == "auto":
            return value
        address = ipaddress.IPv6Address(value)
        if address.is_link_local:
            raise ValueError("a link-local address means nothing in a URL")
        return str(address)


class Dhcp(Section):
    mode: Literal["proxy", "raw", "off"] = "proxy"  # raw: as proxy, without taking port 67
    port: Port = 67
    pxe_port: Port = 4011
    unknown: Policy = Field(default=Policy.WAIT, strict=False)


class Dhcp6(Section):
    mode: Literal["proxy", "off"] = "off"  # proxy: answer beside the site's DHCPv6 server
    port: Port = 547


class Tftp(Section):
    port: Port = 69
    blksize_max: int = Field(default=1468, ge=8, le=65464)
    windowsize_max: int = Field(default=64, ge=1, le=65535)
    sessions_max: int = Field(default=2000, ge=1)
    sessions_per_peer: int = Field(default=16, ge=1)


class Http(Section):
    port: Port = 8080
    advertise_port: Port = 0  # the port that machines are told, of a proxy in front; 0: `port`
    proxies: tuple[str, ...] = Field(default=(), strict=False)  # addresses or networks: X-Forwarded-For is believed
    x_accel: str = ""  # location of a proxy (nginx) that sends the images' files itself
    transfers_max: int = Field(default=1000, ge=1)  # machines that load at once; the others wait for their turn
    link_mbit: int = Field(default=0, ge=0)  # what a link of ours carries; 0: not known, only transfers_max counts

    @field_validator("proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("x_accel")
    @classmethod
    def _location(cls, value: str) -> str:
        if value and not re.fullmatch(r"/[A-Za-z0-9._~/-]*/", value):
            raise ValueError("the location must begin and end with a slash, as /pxeserver-files/")
        return value

    @property
    def told_port(self) -> int:
        """The port in the URLs that machines are told."""
        return self.advertise_port or self.port


class Admin(Section):
    listen: str = "127.0.0.1:8081"
    socket: str = "/run/pxeserver/api.sock"
    token: str = ""  # needed when `listen` is not a loopback address

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        ipaddress.ip_address(host.strip("[]"))
        if not 0 <= int(port) <= 65535:
            raise ValueError("the port must be 0 to 65535")
        return value

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class Boot(Section):
    bios_loader: str = "undionly.kpxe"
    efi_loader: str = "snponly.efi"
    loaders: dict[str, str] = Field(default_factory=dict)  # further families (wire/pxe.py): {arm64: snponly-arm64.efi}
    poll_seconds: int = Field(default=5, ge=1, le=3600)  # how often a waiting machine asks again
    silence_seconds: int = Field(default=300, ge=10)  # a DISCOVER after this long begins a new boot
    stuck_seconds: int = Field(default=600, ge=10)  # no new stage for this long: the boot is stuck
    keep_days: int = Field(default=90, ge=1)  # events and boots older than this are dropped


class Defaults(Section):
    spec: str = ""  # for dhcp.unknown: default
    cmdline: tuple[str, ...] = Field(default=(), strict=False)  # edits for every machine


class Images(Section):
    source: str = ""  # registry, docker, oci:DIR, archive:FILE; empty: the local store, then the registry
    mirrors: tuple[str, ...] = Field(default=(), strict=False)  # [REG=]URL
    trust_keys: tuple[str, ...] = Field(default=(), strict=False)  # PEM files; a signature by one of them is enough
    compress: Literal["gzip", "zstd", "none"] = "gzip"
    uki_key: str = ""  # PEM: private key by which `images uki` signs for Secure Boot
    uki_cert: str = ""  # PEM: its certificate
    specs: tuple[str, ...] = Field(default=(), strict=False)  # folders of specs, searched before the shipped ones
    templates: tuple[str, ...] = Field(default=(), strict=False)  # folders of templates, searched first


class Dns(Section):
    enabled: bool = False
    port: Port = 53
    domain: str = "pxe.internal"  # machines are NAME.domain
    name: str = "pxeserver"  # the boot server's own name in it
    ttl: int = Field(default=60, ge=0, le=86400)  # seconds
    upstreams: tuple[str, ...] = Field(default=(), strict=False)  # ADDR or ADDR:PORT; empty: other names are refused

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        if len(value) > 200 or not all(map(_LABEL.fullmatch, value.strip(".").split("."))):
            raise ValueError("must be a domain name: letters, digits and - between dots")
        return value.strip(".")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _LABEL.fullmatch(value):
            raise ValueError("must be one label: letters, digits and -")
        return value

    @field_validator("upstreams")
    @classmethod
    def _upstreams(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            upstream(text)
        return value


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


class Metadata(Section):
    enabled: bool = False
    port: Port = 80


class Database(Section):
    url: str = ""  # empty: sqlite in the data folder


class Config(Section):
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
    for section, info in Config.model_fields.items():
        for key in info.default.__class__.model_fields:
            text = environ.get(f"PXESERVER_{section}_{key}".upper())
            if text is not None:
                merged.setdefault(section, {})[key] = yaml.safe_load(text) if text else ""
    for name, value in (flags or {}).items():
        if value is not None:
            section, _, key = name.partition(".")
            merged.setdefault(section, {})[key] = value
    return yamlpos.validate(Config, doc, slug="config", data=merged)
