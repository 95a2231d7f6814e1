"""`pxeserver serve`: the boot server in the foreground."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import yaml

from pxeserver import config as configuration
from pxeserver.checked import plain
from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.config import Config
from pxeserver.model import Policy

if TYPE_CHECKING:
    from pxeserver.fleet.fleet import Fleet
    from pxeserver.serve.admin import Web


@click.command()
@click.option("--interface", "-i", "interfaces", multiple=True, help="Answer on this interface only (repeatable).")
@click.option(
    "--advertise", metavar="ADDR", help="Own address to give to machines; by the arrival interface otherwise."
)
@click.option("--dhcp", type=click.Choice(["proxy", "raw", "off"]), help="raw: without taking port 67; off: no DHCP.")
@click.option("--tftp-port", type=int)
@click.option("--http-port", type=int)
@click.option("--admin", metavar="ADDR:PORT", help="Where pages and API listen.")
@click.option("--unknown", type=click.Choice([p.value for p in Policy]), help="What an unassigned machine gets.")
@click.option("--check", is_flag=True, help="Print the effective configuration and end.")
@click.option("--part", hidden=True)
@click.option("--control", type=int, hidden=True)
@pass_context
def serve(
    context: Context,
    interfaces: tuple[str, ...],
    advertise: str | None,
    dhcp: str | None,
    tftp_port: int | None,
    http_port: int | None,
    admin: str | None,
    unknown: str | None,
    check: bool,
    part: str | None,
    control: int | None,
) -> None:
    """Answer machines: proxyDHCP, TFTP and HTTP for booting, pages and API for people.

    Runs until SIGTERM or Ctrl-C. SIGHUP reads the configuration anew, whole or not at all.
    """
    if part is not None and control is not None:
        sys.exit(_part(part, control))
    flags: dict[str, Any] = {
        "server.data": None if context.data is None else str(context.data.absolute()),
        "server.interfaces": list(interfaces) or None,
        "server.advertise": advertise,
        "dhcp.mode": dhcp,
        "dhcp.unknown": unknown,
        "tftp.port": tftp_port,
        "http.port": http_port,
        "admin.listen": admin,
    }
    load = partial(configuration.load, context.config_file, flags=flags)
    config = load()
    if check:
        out.say(yaml.safe_dump(plain(config), sort_keys=False).rstrip())
        return
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    if config.dhcp.mode == "off":
        _advise(config)
    from pxeserver.serve.supervisor import Supervisor

    asyncio.run(Supervisor(config, _command, load, out.say).run())


def _command(part: str, control: int) -> list[str]:
    """How a part is started; its configuration comes over the control descriptor."""
    return [sys.executable, "-m", "pxeserver", "serve", "--part", part, "--control", str(control)]


def _part(name: str, control: int) -> int:
    from pxeserver.serve import part

    if name == "admin":  # imported before rights are dropped: the new user may not be able to read everything
        importlib.import_module("pxeserver.web.app")
    with socket.socket(fileno=control) as line:
        return part.run(name, line, _make_web)


def _make_web(fleet: Fleet, config: Config) -> Web:
    from pxeserver.web.site import make_web

    return make_web(fleet, config)


def _advise(config: Config) -> None:
    from pxeserver.local.interfaces import read_interfaces, serving
    from pxeserver.serve.advice import advice

    found = serving(read_interfaces(), config.server.interfaces)
    addresses = [str(interface.addresses[0].ip) for interface in found if interface.addresses]
    if config.server.advertise != "auto":
        addresses = [config.server.advertise]
    out.say("dhcp.mode is off: tell your DHCP server this, for one of the three:\n")
    out.say(advice(config, addresses))
