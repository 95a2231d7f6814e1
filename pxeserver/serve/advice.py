"""For `dhcp.mode: off`: what to tell the site's own DHCP server, so that machines reach us without a proxy."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pxeserver.config import Config
from pxeserver.wire import pxe

# iPXE is recognised by its user class (option 77), so that the second answer is a script and not the loader again
_SCRIPT = "http://{address}:{port}/boot/script.ipxe"


def _loaders(config: Config) -> list[tuple[int, str]]:
    """(architecture code, loader) for every architecture that TFTP can serve with the configured loaders."""
    known = {"bios": config.boot.bios_loader, "efi64": config.boot.efi_loader, **config.boot.loaders}
    return [
        (code, known[arch.family])
        for code, arch in sorted(pxe.ARCHES.items())
        if arch.family in known and not arch.http
    ]


def dnsmasq(config: Config, address: str) -> str:
    lines = ["# dnsmasq", "dhcp-userclass=set:ipxe,iPXE"]
    for code, loader in _loaders(config):
        lines.append(f"dhcp-match=set:arch{code},option:client-arch,{code}")
        lines.append(f"dhcp-boot=tag:!ipxe,tag:arch{code},{loader},,{address}")
    lines.append(f"dhcp-boot=tag:ipxe,{_script(config, address)}")
    return "\n".join(lines) + "\n"


def kea(config: Config, address: str) -> str:
    """Client classes of Kea's Dhcp4 section."""
    classes: list[dict[str, str]] = [
        {"name": "ipxe", "test": "option[77].text == 'iPXE'", "boot-file-name": _script(config, address)}
    ]
    for code, loader in _loaders(config):
        classes.append(
            {
                "name": f"pxe-arch-{code}",
                "test": f"option[93].hex == 0x{code:04x} and not member('ipxe')",
                "next-server": address,
                "boot-file-name": loader,
            }
        )
    return '// Kea, in "Dhcp4":\n"client-classes": ' + json.dumps(classes, indent=2) + "\n"


def isc(config: Config, address: str) -> str:
    lines = ["# ISC dhcpd", "option arch code 93 = unsigned integer 16;", f"next-server {address};"]
    lines += ['if exists user-class and option user-class = "iPXE" {', f'  filename "{_script(config, address)}";']
    for code, loader in _loaders(config):
        lines += [f"}} elsif option arch = {code >> 8:02x}:{code & 255:02x} {{", f'  filename "{loader}";']
    return "\n".join([*lines, "}"]) + "\n"


def _script(config: Config, address: str) -> str:
    return _SCRIPT.format(address=address, port=config.http.told_port)


def advice(config: Config, addresses: Sequence[str]) -> str:
    """The lines for all three, for our first address."""
    address = addresses[0] if addresses else "ADDRESS-OF-THIS-SERVER"
    return "\n".join(render(config, address) for render in (dnsmasq, kea, isc))
