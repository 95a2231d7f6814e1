"""explain and render: the bytes are those of the wire, the reasons those of decide()."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fleetlab import MAC, MAC3, NOW, Clock, build, make_fleet, stage

from pxeserver import checked
from pxeserver.boot import answer as answers
from pxeserver.boot.answer import Arrival, Reply
from pxeserver.boot.decide import decide, request_of
from pxeserver.boot.quirks import load_quirks
from pxeserver.errors import NotFound, Refused, UsageError
from pxeserver.fleet.explain import made_up
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder, ExplainOrder, MachineEdit
from pxeserver.model import Event, Policy, Stage
from pxeserver.serve.recorder import Delivery, Recorder
from pxeserver.wire import dhcp


class Wire:
    """The boot process's own steps for one packet, with the record that it leaves."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.recorder = Recorder(fleet.secret(), fleet.config, self.note)

    def note(self, event: Event) -> None:
        self.fleet.record([event])

    def send(self, packet: dhcp.Packet, port: int = 67, peer: str = "0.0.0.0") -> Reply:
        now = self.fleet.clock()
        request = request_of(packet, port)
        assert request is not None
        recent = self.recorder.before(request, now)
        decision = decide(request, self.fleet.view(), recent, self.fleet.config, now, load_quirks())
        token = self.recorder.seal(recent.boot, request.mac, decision.image, decision.revision)
        url = answers.boot_url("10.0.0.1", self.fleet.config.http.port, token)
        arrival = Arrival("10.0.0.1", 1, port, peer, port)
        reply = answers.answer(packet, request, decision, arrival, url)
        self.recorder.answered(request, decision, recent, packet.pack(), arrival, now)
        return reply


def asked(firmware: str, *, message: int = dhcp.DISCOVER, **more: object) -> dhcp.Packet:
    packet, _ = made_up(None, MAC, ExplainOrder(firmware=firmware))
    options = tuple((c, bytes((message,)) if c == dhcp.OPT_MESSAGE_TYPE else v) for c, v in packet.options)
    return replace(packet, options=options, **more)  # type: ignore[arg-type]


def same(fleet: Fleet, reply: Reply) -> None:
    found = fleet.explain(MAC, ExplainOrder())
    assert found.payload == reply.payload.hex()
    assert found.to == f"{reply.address}:{reply.port}"
    assert found.source.startswith("its packet of 2027-")


@pytest.mark.parametrize("firmware", ["bios", "efi", "ipxe"])
def test_the_bytes_are_those_that_went_out(fleet: Fleet, tmp_path: Path, firmware: str) -> None:
    build(tmp_path)
    fleet.assign([MAC], AssignOrder("web"))
    same(fleet, Wire(fleet).send(asked(firmware)))


def test_the_bytes_on_port_4011(fleet: Fleet) -> None:
    wire = Wire(fleet)
    wire.send(asked("efi"))
    same(fleet, wire.send(asked("efi", message=dhcp.REQUEST, ciaddr="10.0.0.9"), 4011, "10.0.0.9"))


def test_what_the_card_did_before_counts(fleet: Fleet, clock: Clock) -> None:
    """Three unanswered offers change the style; a loader just fetched makes a pinned iPXE the chained one."""
    wire = Wire(fleet)
    for _ in range(5):
        same(fleet, wire.send(asked("bios")))
        clock.now += 2
    assert fleet.explain(MAC, ExplainOrder()).style == "binl"
    (fleet.config.data / "loaders").mkdir()
    (fleet.config.data / "loaders" / "undionly.kpxe").write_bytes(b"x")
    fleet.pin(MAC, loader="undionly.kpxe")
    bare = asked("ipxe")
    bare = replace(bare, options=tuple((c, b"PXEClient" if c == dhcp.OPT_VENDOR_CLASS else v) for c, v in bare.options))
    same(fleet, wire.send(bare))
    assert fleet.explain(MAC, ExplainOrder()).kind == "loader"
    wire.recorder.sent(MAC, "", "loader", Delivery("undionly.kpxe", "10.0.0.9", 9, 9, 0.1), clock.now + 1)
    clock.now += 3
    same(fleet, wire.send(bare))
    assert fleet.explain(MAC, ExplainOrder()).kind == "script"
    clock.now += 1000  # a new boot remembers the style
    same(fleet, wire.send(asked("bios")))


@pytest.mark.parametrize(
    ("order", "kind", "file"),
    [
        (ExplainOrder(arch=0), "loader", "undionly.kpxe"),
        (ExplainOrder(arch=7), "loader", "snponly.efi"),
        (ExplainOrder(firmware="bios"), "loader", "undionly.kpxe"),
        (ExplainOrder(firmware="efi"), "loader", "snponly.efi"),
        (ExplainOrder(firmware="ipxe"), "script", "http://10.0.0.1:8080/boot/"),
        (ExplainOrder(arch=16), "loader", "http://10.0.0.1:8080/boot/"),
    ],
)
def test_made_up_packets(fleet: Fleet, order: ExplainOrder, kind: str, file: str) -> None:
    found = fleet.explain(MAC3, order)
    assert (found.action, found.kind) == ("answer", kind)
    assert found.boot_file.startswith(file)
    assert found.source.startswith("made up: a DISCOVER of ")
    assert dhcp.parse(bytes.fromhex(found.payload)).yiaddr == "0.0.0.0"
    assert fleet.machines() == ()  # looking adds nothing


def test_what_was_learnt_shapes_the_made_up_packet(fleet: Fleet) -> None:
    uuid = "4c4c4544-0042-3510-8051-b4c04f4d3232"
    fleet.record([stage(Stage.SCRIPT, data={"firmware": "efi", "arch": "arm64", "uuid": uuid})])
    found = fleet.explain(MAC, ExplainOrder())
    assert "option 93 = 11" in found.source
    request = request_of(dhcp.parse(bytes.fromhex(found.packet)), 67)
    assert request is not None and request.uuid == uuid
    fleet.record([stage(Stage.SCRIPT, data={"uuid": "no uuid"})])
    assert fleet.explain(MAC, ExplainOrder()).action


def test_a_client_that_does_not_boot_from_the_network_gets_nothing(fleet: Fleet) -> None:
    found = fleet.explain(MAC, ExplainOrder(vendor_class="android-dhcp-13"))
    assert (found.action, found.payload, found.kind) == ("ignore", "", "")
    assert "never answered" in found.reasons[0].text


def test_an_ignored_machine_says_why(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, unknown=Policy.IGNORE)
    found = fleet.explain(MAC, ExplainOrder(firmware="bios"))
    assert (found.action, found.payload) == ("ignore", "")
    assert any("dhcp.unknown is ignore" in r.text for r in found.reasons)
    fleet.close()


@pytest.mark.parametrize(
    ("order", "slug"),
    [
        (ExplainOrder(packet="zz"), "packet-bad"),
        (ExplainOrder(packet="00" * 300), "packet-bad"),
        (ExplainOrder(arch=99), "arch-unknown"),
        (ExplainOrder(firmware="uefi"), "firmware-unknown"),
    ],
)
def test_questions_that_make_no_sense(fleet: Fleet, order: ExplainOrder, slug: str) -> None:
    with pytest.raises(UsageError) as caught:
        fleet.explain(MAC, order)
    assert caught.value.slug == slug


def test_a_name_that_nobody_has(fleet: Fleet) -> None:
    with pytest.raises(NotFound):
        fleet.explain("nobody", ExplainOrder())


def test_render_shows_where_each_part_came_from(fleet: Fleet, tmp_path: Path) -> None:
    build(tmp_path, cmdline="console=ttyS0 quiet drop")
    fleet.add_machine(MachineEdit("web-1", (MAC,), cmdline=("m=1", "-drop")))
    fleet.assign(["web-1"], AssignOrder("web", args=("quiet=no",)))
    found = fleet.render("web-1", "cmdline")
    assert [(p.text, p.origin) for p in found.parts] == [
        ("console=ttyS0", "image"),
        ("quiet=no", "--arg"),
        ("m=1", "machine"),
        (f"BOOTIF=01-{MAC.replace(':', '-')}", "server"),
        ("pxeserver.url=http://10.0.0.1:8080/boot/TOKEN", "server"),
        ("initrd=initrd.img", "server"),
    ]
    assert found.text == " ".join(p.text for p in found.parts)
    script = fleet.render("web-1", "script")
    assert script.text.startswith("#!ipxe\n") and found.text in script.text


def test_a_template_with_a_fault_is_named(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    own = tmp_path / "templates" / "ipxe"
    own.mkdir(parents=True)
    (own / "mine.ipxe.j2").write_text("#!ipxe\necho {{ nothing }}\n")
    images = checked.replace(fleet.config.images, templates=(str(tmp_path / "templates"),))
    fleet.close()
    fleet = make_fleet(tmp_path)
    fleet.config = checked.replace(fleet.config, images=images)
    build(tmp_path)
    fleet.add_machine(MachineEdit("web-1", (MAC,), template="mine.ipxe.j2"))
    fleet.assign(["web-1"], AssignOrder("web"))
    assert fleet.find("web-1").template == "mine"
    detail = fleet.show("web-1")
    assert "template-undefined" in detail.profile.problem and detail.profile.script == ""
    with pytest.raises(Refused, match="nothing"):
        fleet.render("web-1", "script")
    fleet.close()


def test_only_script_and_cmdline_can_be_rendered(fleet: Fleet) -> None:
    with pytest.raises(UsageError):
        fleet.render(MAC, "initrd")


def test_the_times_of_a_recorded_packet_are_told(fleet: Fleet, clock: Clock) -> None:
    Wire(fleet).send(asked("bios"))
    clock.now += 99
    assert fleet.explain(MAC, ExplainOrder()).source == "its packet of 2027-01-15T08:00:00.000Z"
    assert clock.now > NOW
