"""What LinuxKit's metadata package asks for as provider `metaldata`: http://metaldata/get/meta/* and /get/user.

Nobody names himself: the machine is who has the MAC behind the address that asks, by the kernel's neighbour table, else
by what DHCP and boots showed. User data may hold secrets; it is given only while the machine's boot is under way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from pxeserver.boot import personal
from pxeserver.local.interfaces import neighbour
from pxeserver.mac import Mac
from pxeserver.model import Machine
from pxeserver.serve.http import Request, Response
from pxeserver.serve.names import NameTable
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site

_NO_STORE = (("Cache-Control", "no-store"),)
_NOT_FOUND = Response(404, b"not found\n", headers=_NO_STORE)
# the same facts where AWS has them, for whoever gives this host the address 169.254.169.254
_AWS = {
    "hostname": "hostname",
    "local-hostname": "hostname",
    "public-ipv4": "public-ipv4",
    "local-ipv4": "private-ipv4",
    "placement/availability-zone": "failure-domain",
    "instance-id": "machine-id",
    "instance-type": "machine-type",
    "public-keys/0/openssh-key": "authorized-keys",
}


class MetadataRoutes:
    """`routes(request)` is the front's handler."""

    def __init__(
        self,
        site: Site,
        recorder: Recorder,
        table: NameTable,
        clock: Callable[[], float] = time.time,
        behind: Callable[[str], Mac | None] = neighbour,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._site, self._recorder, self._table = site, recorder, table
        self._clock, self._behind = clock, behind

    def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"method not allowed\n", headers=(("Allow", "GET, HEAD"),))
        named = self._site.config.server.interfaces
        interface = self._site.named(request.own)
        if named and interface not in (*named, "lo"):
            return _NOT_FOUND
        mac = self._mac(request.peer)
        machine = self._site.view.machine(mac) if mac is not None else None
        if mac is None or machine is None:
            self.counts["unknown"] += 1
            return _NOT_FOUND
        text = self._text(request.path.strip("/"), machine, mac, request.peer)
        self.counts["given" if text else "nothing"] += 1
        return Response(200, text.encode("utf-8", "replace"), headers=_NO_STORE) if text else _NOT_FOUND

    def _mac(self, peer: str) -> Mac | None:
        """The kernel's word counts; what was heard is for machines behind a router."""
        return self._behind(peer) or self._recorder.mac_of(peer) or self._table.book.mac_of(peer)

    def _text(self, path: str, machine: Machine, mac: Mac, peer: str) -> str:
        if path in ("get/user", "latest/user-data"):
            text = machine.vars.get(personal.USER_VAR, "")
            if text and not self._recorder.under_way(mac, self._clock()):
                self.counts["withheld"] += 1
                return ""
            return text
        told = facts(machine, mac, peer)
        if path.startswith("get/meta/"):
            return told.get(path.removeprefix("get/meta/"), "")
        return told.get(_AWS.get(path.removeprefix("latest/meta-data/"), ""), "")


def facts(machine: Machine, mac: Mac, peer: str) -> Mapping[str, str]:
    """What is no secret on this wire, by metaldata's names; "" for what is not known."""
    own = machine.vars
    return {
        "hostname": personal.hostname(machine) or mac.replace(":", "-"),
        "private-ipv4": own.get("private_ipv4", "") or ("" if ":" in peer else peer),
        "public-ipv4": own.get("public_ipv4", ""),
        "failure-domain": own.get("failure_domain", "") or machine.labels.get("failure-domain", ""),
        "machine-id": own.get("machine_id", "") or machine.facts.get("uuid", "") or mac,
        "machine-type": own.get("machine_type", "") or machine.facts.get("product", ""),
        "authorized-keys": personal.authorized_keys(machine),
    }
