"""pxeserver explain."""

from __future__ import annotations

from pathlib import Path

import click

from pxeserver.cli import output as out
from pxeserver.cli.client import open_client
from pxeserver.cli.context import Context, pass_context
from pxeserver.errors import NotFound
from pxeserver.fleet.values import ExplainOrder, Explanation


@click.command()
@click.argument("target", metavar="MACHINE")
@click.option("--arch", type=int, help="Number in DHCP option 93: 0 BIOS, 7 x86-64 UEFI, 11 arm64, 16 UEFI HTTP boot.")
@click.option("--firmware", type=click.Choice(["bios", "efi", "ipxe"]), help="Who asks: firmware, or iPXE.")
@click.option("--class", "vendor_class", default="", help="Text of DHCP option 60.")
@click.option("--packet", type=click.Path(path_type=Path), help="File with a client's packet, raw or hex.")
@click.option("--bytes", "show_bytes", is_flag=True, help="Show the answer's bytes.")
@out.output_option
@pass_context
def explain(
    context: Context,
    target: str,
    arch: int | None,
    firmware: str | None,
    vendor_class: str,
    packet: Path | None,
    show_bytes: bool,
    output: str,
) -> None:
    """Say what a machine would get, and why: the answer to its last packet, its script and command line.

    MACHINE may be a MAC that was never seen. With --arch, --firmware or --class the packet is made up.
    """
    order = ExplainOrder(arch, firmware or "", vendor_class, _hex(packet) if packet else "")
    with open_client(context) as fleet:
        found = fleet.explain(target, order)
    out.emit(found, output, lambda: _show(found, show_bytes))


def _hex(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NotFound("packet-file", f"cannot read {path}: {error.strerror}") from None
    text = "".join(raw.decode("latin-1").split())
    return text if text and all(c in "0123456789abcdefABCDEF" for c in text) else raw.hex()


def _show(found: Explanation, show_bytes: bool) -> None:
    out.fields(
        [
            ("machine", f"{found.name} ({found.mac})" if found.name else found.mac),
            ("packet", found.source),
            ("answer", f"{found.kind} by style {found.style}" if found.action == "answer" else "none"),
            ("to", found.to),
            ("boot file", found.boot_file),
        ]
    )
    _heading("why")
    out.fields((reason.topic, reason.text) for reason in found.reasons)
    if found.options:
        _heading("options of the answer")
        out.fields((f"{o.code} {o.name}", o.text) for o in found.options)
    if show_bytes and found.payload:
        _heading("bytes of the answer")
        raw = bytes.fromhex(found.payload)
        for at in range(0, len(raw), 16):
            out.say(f"{at:04x}  {raw[at : at + 16].hex(' ')}")
    if found.profile is None:
        return
    _heading("what it gets")
    profile = found.profile
    out.fields([("image", profile.gets), ("problem", profile.problem), ("cmdline", profile.cmdline)])
    if profile.script:
        _heading("script")
        out.say(profile.script.rstrip("\n"))


def _heading(text: str) -> None:
    out.say()
    out.say(click.style(f"{text}:", bold=True) if out.coloured() else f"{text}:")
