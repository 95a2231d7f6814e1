"""What names and addresses are known now: the fleet's view and memory, and what the boot process hears itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pxeserver.boot.addresses import AddressBook, canonical
from pxeserver.boot.zone import Names, Own, names
from pxeserver.mac import Mac
from pxeserver.model import Event, FleetView
from pxeserver.serve.site import Site


class NameTable:
    """Lives on the loop. `changed` is called whenever an answer given before may be wrong."""

    def __init__(self, site: Site) -> None:
        self.book = AddressBook()
        self.changed: Callable[[], None] = lambda: None
        self._site = site
        self.names = names(FleetView(), site.config, site.http_port)

    def made(self) -> Names:
        """The names of the site's view; takes a while with thousands of machines, so that a thread may do it."""
        return names(self._site.view, self._site.config, self._site.http_port)

    def see(self, found: Names) -> None:
        """Answer by these names from now on."""
        self.names = found
        self.changed()

    def load(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Machine id, address, and when that was heard of last: from before a restart, or by another server."""
        machines = self._site.view.machines
        told = {ident: (canonical(ip), at) for ident, ip, at in rows if ip and ident in machines}
        news = False
        for ident, (ip, at) in told.items():
            owner = self.book.mac_of(ip)
            if owner is not None and told.get(self._site.view.by_mac.get(owner, 0), ("", 0.0))[0] == ip:
                continue  # heard of here, and still so; `at` says nothing of when the address was
            news |= self.book.learn(machines[ident].mac, ip, at)
        if news:
            self.changed()

    def learn(self, mac: Mac, address: str, at: float) -> bool:
        """True if that is news."""
        news = self.book.learn(mac, address, at)
        if news:
            self.changed()
        return news

    def heard(self, event: Event) -> None:
        """Events tell the database where a machine is; here it counts at once."""
        address = event.data.get("ip", "")
        if address and event.mac:
            self.learn(event.mac, address, event.at)

    def moved(self, mac: Mac, address: str, at: float) -> Event | None:
        """A system that is up asks for an address by DHCP: what to write down, if that is news of a machine of ours."""
        if self._site.view.machine(mac) is None or not self.learn(mac, address, at):
            return None
        return Event(at, "note", mac, peer=address, text=f"has {address} now", data={"what": "address", "ip": address})

    def own(self, ifindex: int, asked: str, peer: str) -> Own:
        """Our addresses as somebody who came in by this interface should see them."""
        site = self._site
        if ":" in asked:
            told = (site.own(ifindex), site.own6(ifindex, asked))
        else:
            told = (site.own(ifindex, asked, "", peer), site.own6(ifindex))
        everywhere = {str(a.ip) for i in site.interfaces.values() if not i.loopback for a in i.own}
        return Own(tuple(address for address in told if address), frozenset(everywhere | set(told)))
