"""One simulated machine against a real server: which way it goes there, and the playing of it."""

from __future__ import annotations

import ipaddress
import random
import socket
from dataclasses import dataclass

from pxeserver.errors import Unreachable, UsageError
from pxeserver.local.interfaces import read_interfaces
from pxeserver.mac import Mac, mac_to_bytes
from pxeserver.sim import faults as bad
from pxeserver.sim.links import Link, Relay, Wire
from pxeserver.sim.machine import Machine, Outcome, boot
from pxeserver.sim.world import Watch, World

HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Way:
    """How the machine reaches the boot server.

    `interface`: on that wire, by broadcast, with the machine's own MAC; with `lease` the site's DHCP server gives it an
    address. Else from behind a relay that is simulated as well, which asks `server`; on this host by the loopback.
    """

    server: str = HERE
    interface: str = ""
    lease: bool = False

    @property
    def parallel(self) -> bool:
        """On the loopback each machine has an address of its own, so that they need not wait for each other."""
        return not self.interface and _loopback(self.server)


def _loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def loopback_of(mac: Mac) -> str:
    """The machine's own address in 127.0.0.0/8."""
    low = int.from_bytes(mac_to_bytes(mac)[3:], "big") % (253 * 254 * 254)
    first, rest = divmod(low, 254 * 254)
    second, third = divmod(rest, 254)
    return f"127.{first + 2}.{second + 1}.{third + 1}"


def open_link(way: Way, mac: Mac) -> Link:
    """The machine's link. UsageError, Refused or Unreachable when this host cannot go that way."""
    if way.interface:
        return Wire(way.interface, mac, _address_on(way.interface), lease=way.lease)
    try:
        own = loopback_of(mac) if _loopback(way.server) else _address_towards(way.server)
    except ValueError:
        raise UsageError("bad-address", f'"{way.server}" is not an IPv4 address') from None
    return Relay(own, way.server)


def _address_on(name: str) -> str:
    interface = next((one for one in read_interfaces().values() if one.name == name), None)
    if interface is None:
        raise UsageError("no-interface", f'no interface "{name}"', hint="`ip -br link` lists them")
    if not interface.addresses:
        raise UsageError("no-address", f"{name} has no IPv4 address", hint="`ip -br address` lists them")
    return str(interface.addresses[0].ip)


def _address_towards(server: str) -> str:
    """This host's address on the way to `server`: the relay's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((server, 67))
        except OSError as error:
            raise Unreachable("no-route", f"no way to {server}: {error.strerror}") from None
        address: str = probe.getsockname()[0]
        return address


async def simulate(
    machine: Machine,
    way: Way,
    *,
    faults: bad.Faults = bad.NONE,
    seed: int = 0,
    watch: Watch = lambda at, say: None,
    pace: float = 1.0,
) -> Outcome:
    """Switch the machine on and see how far it comes. The same seed loses the same datagrams."""
    rng = random.Random(f"{seed} {machine.card.mac} {machine.firmware.name}")
    world = World(open_link(way, machine.card.mac), rng=rng, faults=faults, watch=watch, pace=pace)
    return await world.play(boot(machine, rng))
