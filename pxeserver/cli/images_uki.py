"""`pxeserver images uki`: a built image as one EFI program."""

from __future__ import annotations

import click

from pxeserver.cli import output as out
from pxeserver.cli.context import Context, pass_context
from pxeserver.cli.progress import drawn
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.units import size


@click.command()
@click.argument("image")
@click.option("--key", help="Sign with this private key (PEM).  [default: images.uki_key]")
@click.option("--cert", help="The key's certificate (PEM).  [default: images.uki_cert]")
@out.output_option
@pass_context
def uki(context: Context, image: str, key: str | None, cert: str | None, output: str) -> None:
    """Make the unified kernel image of IMAGE: kernel, initrd and command line as one EFI program.

    UEFI machines that boot by HTTP get it instead of a loader, others when they are pinned to it (pin loader=uki).
    Signed by a key that the machine's firmware knows, it boots with Secure Boot on.
    """
    from pxeserver.local.uki import make, signer

    config = context.config
    catalogue = Catalogue(Store(config.data / "store"))
    found = catalogue.get(image)
    sign = signer(config.images.uki_key if key is None else key, config.images.uki_cert if cert is None else cert)
    with drawn(quiet=output == "json") as progress:
        task = progress.task(f"UKI of {found.short}")
        made = make(catalogue, found, config.data / "cache", sign)
        task.done("signed" if sign else "not signed")
    assert made.uki is not None, "make records it"
    blob = made.uki
    out.emit(made, output, lambda: out.say(f"{made.short}: {blob.digest}  {size(blob.size)}"))
