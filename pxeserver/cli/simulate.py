"""`pxeserver simulate`: one machine that is not there, each step printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pxeserver.cli import output as out
from pxeserver.errors import UsageError
from pxeserver.mac import parse_mac
from pxeserver.sim.firmware import FIRMWARE, NAMES
from pxeserver.units import size

if TYPE_CHECKING:
    from pxeserver.sim.effects import Say
    from pxeserver.sim.machine import Outcome


@click.command()
@click.option("--firmware", "name", type=click.Choice(NAMES), default="edk2", show_default=True, help="Its ROM.")
@click.option("--mac", default="", help="Its MAC; one that is made up by default.")
@click.option("--interface", "-i", default="", help="Boot on this wire, by broadcast, with the machine's own MAC.")
@click.option("--server", default="127.0.0.1", show_default=True, help="Boot from this server, from behind a relay.")
@click.option(
    "--lease", is_flag=True, help="With --interface: take an address from the site's DHCP server for a while."
)
@click.option("--loss", type=click.FloatRange(0, 100), default=0.0, help="Lose so many percent of the datagrams.")
@click.option("--seed", type=int, default=0, help="Another seed loses others.")
@click.option("--tries", type=click.IntRange(1), default=1, show_default=True, help="Power-ons until it gives up.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, help="Seconds to wait when its script says so.")
@click.option("--up", is_flag=True, help="Report that the system is up, as its agent would.")
def simulate(
    name: str,
    mac: str,
    interface: str,
    server: str,
    lease: bool,
    loss: float,
    seed: int,
    tries: int,
    wait: float,
    up: bool,
) -> None:
    """Boot a machine that is not there, and print each step; exit 0 if it got all (root).

    Its packets are those of real firmware, and it takes what that takes: offers, loader, script, kernel and initrd,
    whose bytes are compared with their digests. No address is leased unless --lease is given. The server records the
    boot like any other: a MAC of a machine of yours gets what that machine gets.
    """
    import asyncio

    from pxeserver.sim.faults import Faults
    from pxeserver.sim.machine import Machine
    from pxeserver.sim.packets import Card
    from pxeserver.sim.run import Way
    from pxeserver.sim.run import simulate as play

    if lease and not interface:
        raise UsageError("lease-where", "--lease needs --interface", hint="only a wire has a DHCP server to lease from")
    firmware = FIRMWARE[name]
    card = Card.of(parse_mac(mac) if mac else f"{firmware.oui}:00:00:01")
    machine = Machine(firmware, card, tries=tries, patience=wait, report=up)
    way = Way(server, interface, lease)
    out.say(f"{card.mac}: {firmware.about}, {_way(way.interface, server)}")
    outcome = asyncio.run(play(machine, way, faults=Faults(loss=loss / 100), seed=seed, watch=_step))
    out.say(_end(outcome))
    if not outcome.complete:
        sys.exit(1)


def _way(interface: str, server: str) -> str:
    return f"on {interface}" if interface else f"behind a relay, from {server}"


def _step(at: float, say: Say) -> None:
    out.say(f"{at:8.3f} s  {say.stage:<10}  {say.text}")


def _end(outcome: Outcome) -> str:
    got = ", ".join(f"{got.name} {size(got.size)}" for got in outcome.got)
    words = {
        "booted": f"booted with {got}",
        "local": f"sent to its own disk: {outcome.why}",
        "started": f"{outcome.why}; got {got}",
        "waits": f"told to wait: {outcome.why}",
        "failed": f"failed at {outcome.stage}: {outcome.why}",
    }
    return words[outcome.result]
