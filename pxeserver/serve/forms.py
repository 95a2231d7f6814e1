"""First answers without a decision each: what one machine of a model was offered, the next that says the same is too.

A rack comes up all at once. The first packet is decided on, the others fill in its form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pxeserver.boot.answer import Arrival, Reply
from pxeserver.boot.decide import BootRequest, Decision
from pxeserver.boot.form import Blanks, Form, cut, form_of, kin_of
from pxeserver.model import Recent
from pxeserver.serve.offer import Offer
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.repeats import Sent
from pxeserver.serve.site import Site
from pxeserver.serve.udp import Datagram
from pxeserver.wire import dhcp

FORMS_MAX = 512


First = tuple[Sent, Offer]  # what to send to a machine, and what is to be written down once it was sent


class _Kind(NamedTuple):
    """Forms of packets with the same blanks."""

    blanks: Blanks
    cut: Callable[[bytes], tuple[bytes, ...]]
    forms: dict[tuple[object, ...], tuple[Form, Sent]]  # by what is around the blanks, and the machine's kin


class Forms:
    """By the way that a packet came, its length, and its bytes but for the blanks."""

    def __init__(self, site: Site, recorder: Recorder) -> None:
        self._site = site
        self._recorder = recorder
        self._kinds: dict[tuple[object, ...], list[_Kind]] = {}
        self._count = 0

    def clear(self) -> None:
        """What answers follow from has changed."""
        self._kinds.clear()
        self._count = 0

    def keep(
        self,
        arrived: Datagram,
        packet: dhcp.Packet,
        request: BootRequest,
        decision: Decision,
        recent: Recent,
        arrival: Arrival,
        sent: Sent,
    ) -> None:
        """This was the answer to such a packet; others may be like it if a boot began with it."""
        if recent.discovers or recent.started != recent.last:
            return
        kin = kin_of(self._site.view.machine(request.mac), recent, self._site.view)
        if kin is None:
            return
        made = form_of(arrived.data, packet, request, decision, arrival, Reply(sent.payload, *sent.peer))
        if made is None:
            return
        if self._count >= FORMS_MAX:
            self.clear()
        blanks, form = made
        kinds = self._kinds.setdefault((len(arrived.data), arrival.port, *arrived[1:]), [])
        kind = next((kind for kind in kinds if kind.blanks == blanks), None)
        if kind is None:
            kinds.append(kind := _Kind(blanks, cut(blanks), {}))
        kind.forms[kind.cut(arrived.data), kin.form] = form, sent
        self._count += 1

    def first(self, port: int, arrived: Datagram, now: float) -> First | None:
        """The answer that begins a boot; None if there is no form for it."""
        raw, peer, ifindex, own = arrived
        kinds = self._kinds.get((len(raw), port, peer, ifindex, own))
        if kinds is None:
            return None
        mac, view, recorder = raw[28:34].hex(":"), self._site.view, self._recorder
        past = recorder.recent(mac)
        if past is not None and not recorder.over_by(past, True, now):
            return None
        kin = kin_of(view.machine(mac), past, view)
        if kin is None:
            return None
        for _, around, forms in kinds:
            kept = forms.get((around(raw), kin.form))
            if kept is not None:
                break
        else:
            return None
        form, sent = kept
        decision = form.decision
        bound = kin.bound or (decision.image, decision.revision)
        boot = recorder.first(mac, decision.style, decision.loader, bound, past, now)
        offer = Offer(now, boot, mac, form.uuid_of(raw), raw, form.request, decision, form.arrival)
        return Sent(mac, form.fill(raw), sent.peer, sent.ifindex, sent.source), offer
