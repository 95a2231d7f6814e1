"""When firmware is given the image itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pxeserver.boot.answer import Arrival, answer, boot_url
from pxeserver.boot.decide import Decision, decide
from pxeserver.boot.quirks import load_quirks
from pxeserver.boot.request import BootRequest
from pxeserver.config import Config, Defaults
from pxeserver.model import UKI, Blob, FleetView, Image, Pin
from pxeserver.wire import dhcp, pxe

QUIRKS = load_quirks()
HEX = "33" * 32
OWN = "10.77.0.2"

Asked = Callable[[str], BootRequest]


@pytest.fixture
def with_uki(view: FleetView, image: Image) -> FleetView:
    """As `view`, but nothing edits the command line, and the image has a UKI."""
    plain = replace(view.assignments[1], args=())
    whole = replace(image, uki=Blob("sha256:" + HEX, 70 << 20))
    return replace(view, images={image.digest: whole}, assignments={1: plain})


def told(request: BootRequest, view: FleetView, config: Config | None = None) -> Decision:
    return decide(request, view, None, config or Config(), 1000.0, QUIRKS)


def pinned(view: FleetView, loader: str) -> FleetView:
    return replace(view, machines={1: replace(view.machines[1], pin=Pin(loader=loader))})


def reason(decision: Decision, topic: str) -> str:
    return next((r.text for r in decision.reasons if r.topic == topic), "")


def test_http_boot_takes_the_image_itself_when_it_has_a_uki(asked: Asked, with_uki: FleetView, image: Image) -> None:
    decision = told(asked("ovmf-http.discover"), with_uki)
    assert (decision.kind, decision.uki, decision.loader) == ("image", "sha256:" + HEX, "")
    assert decision.image == image.digest
    assert reason(decision, "uki") == f"HTTP boot, and {image.short} has a UKI"


def test_the_url_names_the_bytes_and_the_boot(
    asked: Asked, captured: Callable[[str], dhcp.Packet], with_uki: FleetView
) -> None:
    request, packet = asked("ovmf-http.discover"), captured("ovmf-http.discover")
    url = boot_url(OWN, 8080, "T" * 62)
    reply = dhcp.parse(answer(packet, request, told(request, with_uki), Arrival(OWN, 2, 67), url).payload)
    assert reply.option(dhcp.OPT_BOOTFILE) == f"http://{OWN}:8080/b/{HEX}/uki.efi?boot={'T' * 62}".encode()
    assert (reply.option(dhcp.OPT_VENDOR_CLASS), reply.file) == (b"HTTPClient", b"")  # it is too long for the header


def test_pxe_takes_it_only_when_pinned_and_by_tftp(
    asked: Asked, captured: Callable[[str], dhcp.Packet], with_uki: FleetView
) -> None:
    request, packet = asked("ovmf-pxe.discover"), captured("ovmf-pxe.discover")
    assert told(request, with_uki).kind == "loader"
    decision = told(request, pinned(with_uki, UKI))
    assert decision.kind == "image" and "pinned to the UKI" in reason(decision, "uki")
    reply = dhcp.parse(answer(packet, request, decision, Arrival(OWN, 2, 67), boot_url(OWN, 8080, "T")).payload)
    assert reply.file == f"b/{HEX}/uki.efi".encode()


def test_a_pin_to_a_loader_keeps_the_loader(asked: Asked, with_uki: FleetView) -> None:
    decision = told(asked("ovmf-http.discover"), pinned(with_uki, "ipxe.efi"))
    assert (decision.kind, decision.loader) == ("loader", "ipxe.efi")


@pytest.mark.parametrize(
    "name", ["plain-rom-bios.discover", "qemu-rom-ipxe1-bios.discover", "snponly-ipxe2-efi.discover"]
)
def test_bios_and_ipxe_get_what_they_always_get(asked: Asked, with_uki: FleetView, name: str) -> None:
    assert told(asked(name), pinned(with_uki, UKI)).kind == told(asked(name), with_uki).kind != "image"


def test_u_boot_takes_it_only_when_pinned(asked: Asked, with_uki: FleetView) -> None:
    arm = replace(with_uki, images={d: replace(i, arch="arm64") for d, i in with_uki.images.items()})
    request = asked("ovmf-http.discover")._replace(arch=pxe.ARCHES[24])
    assert told(request, arm).kind != "image"
    assert told(request, pinned(arm, UKI)).kind == "image"


def test_edits_of_the_command_line_take_a_script_unless_pinned(asked: Asked, with_uki: FleetView) -> None:
    config = Config(defaults=Defaults(cmdline=("panic=10",)))
    decision = told(asked("ovmf-http.discover"), with_uki, config)
    assert decision.kind == "loader" and "only a script can carry panic=10" in reason(decision, "uki")
    decision = told(asked("ovmf-http.discover"), pinned(with_uki, UKI), config)
    assert decision.kind == "image" and "without the edits of its command line (panic=10)" in reason(decision, "uki")


def test_an_image_for_another_processor_is_not_offered(asked: Asked, with_uki: FleetView, image: Image) -> None:
    arm = replace(with_uki, images={d: replace(i, arch="arm64") for d, i in with_uki.images.items()})
    decision = told(asked("ovmf-http.discover"), arm)
    assert decision.kind == "loader" and "is for arm64" in reason(decision, "uki")
    decision = told(asked("ovmf-http.discover"), pinned(arm, UKI))
    assert (decision.action, decision.why) == ("ignore", "no-uki")


def test_pinned_to_what_is_not_there_is_no_answer_and_says_what_to_do(asked: Asked, view: FleetView) -> None:
    request = asked("ovmf-http.discover")
    decision = told(request, pinned(view, UKI))
    assert (decision.action, decision.why) == ("ignore", "no-uki")
    assert "make one: pxeserver images uki web@" in reason(decision, "ignored")
    decision = told(request, replace(pinned(view, UKI), assignments={}))
    assert (decision.action, decision.why) == ("ignore", "no-uki")
    assert "no image for it now" in reason(decision, "ignored")
