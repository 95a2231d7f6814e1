"""The immutable picture of the fleet that deciding needs, read in one go."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from pxeserver.config import Config
from pxeserver.fleet import rows
from pxeserver.model import FleetView, Image

PAST_SECONDS = 3600  # how long a boot under way may need the assignment that it began with


def read(conn: Connection, images: Iterable[Image], config: Config, generation: int, now: float) -> FleetView:
    """The view at this transaction's moment; `images` newest first, as the catalogue lists them."""
    machines = {ident: found.machine for ident, found in rows.stored(conn).items()}
    built = tuple(images)
    return FleetView(
        generation=generation,
        machines=machines,
        by_mac={mac: ident for ident, machine in machines.items() for mac in machine.macs},
        assignments=rows.assignments(conn),
        past=rows.past(conn, now - PAST_SECONDS),
        images={image.digest: image for image in built},
        newest=newest(built),
        policy=config.dhcp.unknown,
    )


def newest(images: Iterable[Image]) -> dict[str, str]:
    """Spec name -> digest of what `spec:latest` names, else of the image built last."""
    found: dict[str, str] = {}
    for image in images:
        if f"{image.spec}:latest" in image.tags:
            found[image.spec] = image.digest
        found.setdefault(image.spec, image.digest)
    return found
