"""UEFI by IPv6: addresses from the site's own DHCPv6 server, what to boot from ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pxeserver.local import netlab, qemu
from pxeserver.model import Result, Stage

PXE = qemu.Hardware(mac="52:54:00:77:06:01", uefi=True, rom="", network="pxe6")
HTTP = qemu.Hardware(mac="52:54:00:77:06:02", uefi=True, rom="", network="http")


class NoHttpByIPv4(netlab.Lab):
    """The site's server has no IPv4 address for HTTP boot, so that firmware goes on to IPv6."""

    dhcp = (*netlab.Lab.dhcp, "--dhcp-vendorclass=set:http,HTTPClient", "--dhcp-ignore=tag:http")


@pytest.fixture(scope="module")
def site6(
    open_site: Callable[..., AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("ipv6")
    with open_site(folder, NoHttpByIPv4, dhcp6={"mode": "proxy"}) as found:
        for name, hardware in (("pxe", PXE), ("http", HTTP)):
            found.cli("machines", "add", name, hardware.mac)
            found.cli("assign", name, "web")
        yield found


def test_pxe_by_ipv6_to_up(site6: Any) -> None:
    machine = site6.switch_on("pxe", PXE)
    record = site6.wait_up(machine)
    assert record.result is Result.UP
    assert record.stages[Stage.LOADER].peer.startswith(netlab.NETWORK6)
    assert "Start PXE over IPv6" in machine.console
    assert "Start PXE over IPv4" not in machine.console
    offers = [e for e in site6.fleet.events(boot=record.id, limit=1000) if e.kind == "offer"]
    # the loader out of our ADVERTISE and of the reply on 4011
    assert [(e.data["style"], e.data["port"], e.data["kind"]) for e in offers[:2]] == [
        ("dhcp6", "547", "loader"),
        ("dhcp6", "4011", "loader"),
    ]


def test_http_boot_by_ipv6_to_the_script(site6: Any) -> None:
    machine = site6.switch_on("http", HTTP)
    record = site6.wait_for(machine, "script", lambda record: Stage.SCRIPT in record.stages)
    assert record.loader == "snponly.efi"
    assert record.stages[Stage.LOADER].peer.startswith(netlab.NETWORK6)
    assert "Start HTTP Boot over IPv6" in machine.console
    assert "Start PXE over" not in machine.console
