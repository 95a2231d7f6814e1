"""Offers by form: whatever comes, in whatever order, they are the offers that decisions would have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest
from dhcplab import ETH, DhcpChannel, feed
from hypothesis import given
from hypothesis import strategies as st
from servelab import CAPTURES

from pxeserver.boot import decide as deciding
from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config
from pxeserver.mac import Mac
from pxeserver.model import Assignment, Blob, Event, FleetView, Image, Machine, Pin, Policy, Recent
from pxeserver.serve import dhcp as module
from pxeserver.serve.dhcp import DhcpServer
from pxeserver.serve.forms import FORMS_MAX
from pxeserver.serve.recorder import Delivery, Recorder
from pxeserver.serve.repeats import PAUSE
from pxeserver.serve.site import Site
from pxeserver.serve.udp import Datagram
from pxeserver.wire import dhcp

OVMF = bytes.fromhex((CAPTURES / "ovmf-pxe.discover.hex").read_text())
RAWS = {path.stem: bytes.fromhex(path.read_text()) for path in sorted(CAPTURES.glob("*.discover.hex"))}
EFI, ARM = (
    Image(f"sha256:{n * 64}", f"web{n}", Blob(n, 1, 1), Blob(n, 1, 1), "quiet", arch)
    for n, arch in (("a", "amd64"), ("b", "arm64"))
)
VENDORS = (b"\x52\x54\x00", b"\x00\x00\x00", b"\xb8\x27\xeb")


def mac(number: int, vendor: bytes = VENDORS[0]) -> Mac:
    return (vendor + number.to_bytes(3, "big")).hex(":")


def fleet(policy: Policy = Policy.WAIT) -> FleetView:
    """1 to 8 are known, 1 to 5 have an assignment; the others never were heard of."""
    plain = [Machine(n, f"m{n}", (mac(n),)) for n in range(1, 9)]
    machines = {
        **{machine.id: machine for machine in plain},
        3: replace(plain[2], pin=Pin(style="late")),
        4: replace(plain[3], facts={"style": "options"}),
        5: replace(plain[4], arch="arm64"),
        6: replace(plain[5], vars={"local_boot": "no-offer"}),
        7: replace(plain[6], pin=Pin(loader="other.efi")),
    }
    orders = {n: Assignment(n, "weba", EFI.digest, 10 + n) for n in range(1, 6)}
    orders[2] = replace(orders[2], image=ARM.digest, follow=True)
    return FleetView(
        1,
        machines,
        {machine.mac: machine.id for machine in machines.values()},
        orders,
        images={EFI.digest: EFI, ARM.digest: ARM},
        newest={"weba": EFI.digest},
        policy=policy,
    )


class Server:
    """One that decides on each packet if `forms` is False."""

    def __init__(self, view: FleetView, *, forms: bool = True) -> None:
        self.now = 1_000_000.0
        self.events: list[Event] = []
        numbers = count(1)
        config = Config()
        self.site = Site(config, load_quirks(), view=view, http_port=8080)
        self.site.interfaces = {7: ETH}
        self.recorder = Recorder(
            bytes(32), config, self.events.append, random=lambda n: next(numbers).to_bytes(n, "big")
        )
        self.dhcp = DhcpServer(self.site, self.recorder, lambda: self.now)
        if not forms:
            self.dhcp._forms.first = lambda *_: None  # type: ignore[method-assign, assignment]
        self.channel = DhcpChannel(67)

    def feed(self, *datagrams: Datagram) -> None:
        self.channel.arrived += datagrams
        feed(self.dhcp, self.channel)

    def counted(self, *names: str) -> tuple[int, ...]:
        return tuple(self.dhcp.counts[name] for name in names)


def said(
    raw: bytes, number: int, *, vendor: bytes = VENDORS[0], secs: int = 0, change: tuple[int, int] | None = None
) -> bytes:
    """As that machine says it, with its own xid and UUID; `change` puts a byte somewhere else."""
    raw = (
        raw[:4]
        + number.to_bytes(4, "big")
        + secs.to_bytes(2, "big")
        + raw[10:28]
        + vendor
        + number.to_bytes(3)
        + raw[34:]
    )
    at = dhcp.option_at(raw, dhcp.OPT_UUID)
    if at is not None:
        raw = raw[: at + 15] + number.to_bytes(2, "big") + raw[at + 17 :]
    if change is not None:
        place = change[0] % len(raw)
        raw = raw[:place] + bytes([change[1]]) + raw[place + 1 :]
    return raw


def arrived(raw: bytes, own: str = "10.77.0.1", peer: str = "0.0.0.0") -> Datagram:
    return Datagram(raw, (peer, 68), 7, own)


_PACKET = st.builds(
    lambda name, number, vendor, secs, change, own, peer: arrived(
        said(RAWS[name], number, vendor=vendor, secs=secs, change=change), own, peer
    ),
    st.sampled_from(["ovmf-pxe.discover"] * 4 + list(RAWS)),
    st.integers(0, 14),
    st.sampled_from([VENDORS[0]] * 6 + list(VENDORS)),
    st.sampled_from([0, 0, 4]),
    st.none() | st.none() | st.tuples(st.integers(0, 400), st.integers(0, 255)),
    st.sampled_from(["10.77.0.1"] * 3 + ["10.78.0.1"]),
    st.sampled_from(["0.0.0.0"] * 3 + ["10.77.0.99"]),
)
_STEP = st.lists(_PACKET, min_size=1, max_size=12) | st.sampled_from([0.2, 1.0, 5.0, 400.0]) | st.integers(0, 14)


@given(st.sampled_from(Policy), st.lists(_STEP, max_size=12))
def test_no_difference_can_be_seen(policy: Policy, steps: Sequence[list[Datagram] | float | int]) -> None:
    """Packets of real firmware, some broken, machines of all sorts, time, and loaders fetched (a number: by whom)."""
    ours, plain = (Server(fleet(policy), forms=forms) for forms in (True, False))
    for step in steps:
        for server in (ours, plain):
            if isinstance(step, list):
                server.feed(*step)
            elif isinstance(step, float):
                server.now += step
            else:
                done = Delivery("snponly.efi", "10.77.9.1", 9, 9, 0.1)
                server.recorder.sent(mac(step), "", "loader", done, server.now)
    key = lambda sent: (sent[0].chaddr, sent[0].xid)  # noqa: E731
    assert sorted(ours.channel.sent, key=key) == sorted(plain.channel.sent, key=key)
    # within a turn what is decided on is sent, and written down, before what is not
    assert sorted(map(_facts, ours.events)) == sorted(map(_facts, plain.events))
    names = ("received", "answered", "repeated", "malformed", "no-mac", "failed")
    assert ours.counted(*names) == plain.counted(*names)
    for number in range(15):
        assert _recent(ours, number) == _recent(plain, number)


def _facts(event: Event) -> tuple[object, ...]:
    return (event.mac, event.at, event.kind, event.text, sorted(event.data.items()))


def _recent(server: Server, number: int) -> Recent | None:
    recent = server.recorder.recent(mac(number))
    return recent._replace(boot="") if recent is not None else None


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[Mac]:
    """Whom decisions were made on."""
    made: list[Mac] = []

    def decide(request: deciding.BootRequest, *more: object) -> deciding.Decision:
        made.append(request.mac)
        return deciding.decide(request, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decide", decide)
    return made


def test_a_rack_of_one_model_costs_one_decision(decisions: list[Mac]) -> None:
    server = Server(fleet())
    server.feed(*(arrived(said(OVMF, n)) for n in range(9, 50)))
    assert decisions == [mac(9)]
    assert server.counted("answered", "repeated") == (41, 0)
    assert [event.mac for event in server.events] == [mac(n) for n in range(9, 50)]
    assert len({event.boot for event in server.events}) == 41
    uuids = {event.data["uuid"] for event in server.events}
    assert len(uuids) == 41
    for packet, *_ in server.channel.sent:
        number = int.from_bytes(packet.chaddr[3:], "big")
        uuid = packet.option(dhcp.OPT_UUID)
        assert uuid is not None and int.from_bytes(uuid[15:], "big") == number == int.from_bytes(packet.xid, "big")


def test_assigned_machines_share_a_form_and_are_bound_to_their_own_images(decisions: list[Mac]) -> None:
    server = Server(fleet())
    server.feed(*(arrived(said(OVMF, n)) for n in (1, 2, 5)))
    assert decisions == [mac(1)]
    recents = [server.recorder.recent(mac(n)) for n in (1, 2, 5)]
    assert [(r.image, r.revision) for r in recents if r] == [(EFI.digest, 11), (EFI.digest, 12), ("", 15)]


def test_who_asks_twice_in_a_turn_is_one_boot(decisions: list[Mac]) -> None:
    server = Server(fleet())
    server.feed(*(arrived(said(OVMF, n)) for n in (9, 10, 10, 11)))
    assert server.counted("answered", "repeated") == (3, 1)
    assert len(server.events) == 3


def test_a_change_of_the_fleet_voids_forms(decisions: list[Mac]) -> None:
    server = Server(fleet())
    server.feed(*(arrived(said(OVMF, n)) for n in (9, 10)))
    server.site.see(replace(fleet(), generation=2, policy=Policy.IGNORE))
    server.feed(arrived(said(OVMF, 11)))
    assert decisions == [mac(9), mac(11)]
    assert server.counted("answered", "ignored-policy-ignore") == (2, 1)


def test_what_could_not_be_sent_began_no_boot_and_is_not_written_down() -> None:
    server = Server(fleet())
    server.feed(arrived(said(OVMF, 9)))
    server.channel.works = False
    server.feed(*(arrived(said(OVMF, n)) for n in (10, 11)))
    assert server.counted("answered", "unsent", "repeated") == (1, 2, 0)
    assert server.recorder.recent(mac(10)) is None
    server.channel.works = True
    server.feed(arrived(said(OVMF, 10)))
    assert server.counted("answered", "repeated") == (2, 0)
    assert [event.mac for event in server.events] == [mac(9), mac(10)]


def test_forms_are_bounded() -> None:
    """A flood in which no packet is like another."""
    server = Server(fleet())
    for number in range(FORMS_MAX + 10):
        raw = said(OVMF, 100 + number)
        server.feed(arrived(raw[:44] + number.to_bytes(2, "big") + raw[46:]))
    kept = sum(len(kind.forms) for kinds in server.dhcp._forms._kinds.values() for kind in kinds)
    assert 0 < kept <= FORMS_MAX
    server.now += PAUSE
    assert server.counted("answered", "failed") == (FORMS_MAX + 10, 0)


def fed(*packets: bytes) -> Server:
    server = Server(fleet())
    server.feed(*(arrived(raw) for raw in packets))
    return server


def test_quirks_go_by_the_vendor_half_of_a_mac() -> None:
    rom = RAWS["plain-rom-bios.discover"]
    server = fed(said(rom, 9), said(rom, 10, vendor=VENDORS[2]), said(rom, 11))
    assert [event.data.get("style", event.data.get("why")) for event in server.events] == [
        "pxe10",
        "no-loader",
        "pxe10",
    ]


def test_no_form_makes_a_mac_of_zeros_a_machine() -> None:
    server = fed(said(OVMF, 9, vendor=bytes(3)), said(OVMF, 0, vendor=bytes(3)))
    assert server.counted("answered", "no-mac") == (1, 1)


def test_the_address_that_a_client_has_is_learnt_each_time() -> None:
    server = fed(*(said(OVMF, n)[:12] + bytes((10, 77, 3, 3)) + said(OVMF, n)[16:] for n in (9, 10)))
    assert server.recorder.mac_of("10.77.3.3") == mac(10)


def test_a_uuid_of_another_type_is_not_told() -> None:
    at = dhcp.option_at(OVMF, dhcp.OPT_UUID)
    assert at is not None
    odd = OVMF[:at] + b"\1" + OVMF[at + 1 :]
    events = fed(said(odd, 9), said(odd, 10), said(OVMF, 11)).events
    assert {event.mac for event in events if "uuid" in event.data} == {mac(11)}


def test_a_boot_that_begins_after_a_long_time_keeps_what_its_firmware_took(decisions: list[Mac]) -> None:
    server = Server(fleet())
    for _ in range(4):  # nothing comes of it three times: another style
        server.feed(*(arrived(said(OVMF, n)) for n in (9, 10)))
        server.now += 5
    for number in (9, 10):
        fetched = Delivery("snponly.efi", f"10.77.9.{number}", 9, 9, 0.1)
        server.recorder.sent(mac(number), "", "loader", fetched, server.now)
    server.now += 4000
    decisions.clear()
    server.feed(*(arrived(said(OVMF, n)) for n in (11, 9, 10, 12)))
    assert decisions == [mac(9)]  # 10 is like it, the others like 9 when it was new
    styles = {event.mac: event.data["style"] for event in server.events[-4:]}
    assert styles == {mac(11): "binl", mac(12): "binl", mac(9): "pxe10", mac(10): "pxe10"}
    for recent in (server.recorder.recent(mac(9)), server.recorder.recent(mac(10))):
        assert recent is not None
        assert (recent.style, recent.loader, recent.loader_cycles) == ("pxe10", "snponly.efi", 1)


def test_what_is_tried_after_silence_is_no_form() -> None:
    server = Server(fleet())
    for _ in range(4):
        server.feed(arrived(said(OVMF, 9)))
        server.now += 5
    past = server.recorder.recent(mac(9))
    assert past is not None and past.style == "pxe10"
    server.recorder.first(mac(10), "binl", "snponly.efi", ("", 0), None, 1.0)  # a long time ago
    server.feed(arrived(said(OVMF, 10)))
    assert server.events[-1].data["style"] == "binl"
