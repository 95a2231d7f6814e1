"""What is written down of an answer to a machine: an event, but made when there is time. Answering comes first."""

from __future__ import annotations

from typing import NamedTuple

from pxeserver.boot.answer import Arrival
from pxeserver.boot.decide import BootRequest, Decision
from pxeserver.mac import Mac
from pxeserver.model import Event, Stage
from pxeserver.wire import pxe


class Offer(NamedTuple):
    """`raw` is the client's packet; `request` and `decision` may be those of another machine's that is alike."""

    at: float
    boot: str
    mac: Mac
    uuid: str | bytes  # as text, or option 97
    raw: bytes
    request: BootRequest
    decision: Decision
    arrival: Arrival

    def event(self) -> Event:
        request, decision = self.request, self.decision
        data = {
            "style": decision.style,
            "kind": decision.kind,
            "port": str(request.port),
            "uuid": self.uuid if isinstance(self.uuid, str) else pxe.uuid_text(self.uuid),
            "arch": request.arch.goarch,
            "packet": self.raw.hex(),
            "own_ip": self.arrival.own_ip,
        }
        return Event(
            self.at,
            "offer",
            self.mac,
            self.boot,
            Stage.OFFER,
            self.arrival.peer_ip,
            text=f"{decision.loader or decision.kind} to {request.firmware}",
            data={key: value for key, value in data.items() if value},
        )
