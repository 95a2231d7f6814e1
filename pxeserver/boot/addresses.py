"""Which machine has which address: learnt from its boots, last word wins. In memory; no clock, no sockets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from pxeserver.mac import Mac
from pxeserver.model import Machine

ADDRESS_VAR = "address"  # fixed addresses, separated by commas; they replace what was learnt

_NOWHERE = ("0.0.0.0", "::")


def canonical(text: str) -> str:
    """The address as everybody else spells it; "" for what is none, or nobody's own."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if address.is_multicast or address.is_loopback or str(address) in (*_NOWHERE, "255.255.255.255"):
        return ""
    return str(address)


def fixed(machine: Machine) -> tuple[str, ...]:
    """What the machine's own variable says, in its order; what is no address is left out."""
    texts = machine.vars.get(ADDRESS_VAR, "").replace(",", " ").split()
    return tuple(dict.fromkeys(address for address in map(canonical, texts) if address))


class AddressBook:
    """MAC <-> address, one of each family for each MAC, and one MAC for each address."""

    def __init__(self, maximum: int = 50_000) -> None:
        self._maximum = maximum
        self._found: dict[tuple[Mac, bool], tuple[str, float]] = {}  # True: IPv6
        self._owner: dict[str, Mac] = {}

    def learn(self, mac: Mac, text: str, at: float) -> bool:
        """The machine had this address at Unix time `at`. True if that is news; older news than known is none."""
        address = canonical(text)
        if not address or not mac:
            return False
        key = (mac, ":" in address)
        before, since = self._found.get(key, ("", 0.0))
        if at < since:
            return False
        owner = self._owner.get(address)
        if owner != mac and owner is not None:
            held, heard = self._found.get((owner, key[1]), ("", 0.0))
            if held == address and heard > at:
                return False  # somebody else has it by now
            self._found.pop((owner, key[1]), None)
        self._found.pop(key, None)  # the ones silent for longest stand first
        self._found[key] = (address, at)
        if before and before != address and self._owner.get(before) == mac:
            del self._owner[before]
        self._owner[address] = mac
        if len(self._found) > self._maximum:
            (gone, _), (theirs, _) = next(iter(self._found.items()))
            self._found.pop((gone, ":" in theirs))
            self._owner.pop(theirs, None)
        return before != address or owner != mac

    def mac_of(self, address: str) -> Mac | None:
        return self._owner.get(address)

    def of(self, macs: Iterable[Mac]) -> tuple[str, ...]:
        """What these MACs have now, in their order, IPv4 before IPv6 for each."""
        found = [self._found.get((mac, six)) for mac in macs for six in (False, True)]
        return tuple(entry[0] for entry in found if entry is not None)


def addresses(machine: Machine, book: AddressBook) -> tuple[str, ...]:
    """The machine's addresses: the fixed ones, else those learnt."""
    return fixed(machine) or book.of(machine.macs)


def fixed_owners(machines: Mapping[int, Machine]) -> dict[str, int]:
    """Fixed address -> machine id."""
    return {address: ident for ident, machine in machines.items() for address in fixed(machine)}
