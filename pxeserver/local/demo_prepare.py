"""What the demo boots: the base images that a spec names, made when they are missing, and the image of the spec."""

from __future__ import annotations

import io
from pathlib import Path

from pxeserver.config import Config
from pxeserver.errors import UsageError
from pxeserver.fleet.specs import spec_files
from pxeserver.images import specfiles
from pxeserver.images.build import BuildRequest, build
from pxeserver.images.progress import Progress
from pxeserver.images.sources import open_source
from pxeserver.images.store import Store
from pxeserver.linuxkit import loader, plan
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.local.bases import make
from pxeserver.model import Image


def prepare(config: Config, spec: str, progress: Progress, arch: str = "") -> Image:
    """Build `spec`, the name of a known spec or a file; everything cached is used. `arch` "" is this host's.

    UsageError "spec-no-kernel".
    """
    known = spec_files(config)
    source = specfiles.read(str(known.get(spec, spec)), io.BytesIO())
    arch = arch or specfiles.host_arch()
    store = Store(config.data / "store")
    make_bases(config.data, store, source, arch, progress)
    request = BuildRequest(
        specs=(source,),
        name=specfiles.image_name(source.name),
        arch=arch,
        source=open_source("", store, config, progress=progress),
        compression=config.images.compress,
    )
    image = build(request, store, config, progress).image
    if image is None:
        raise UsageError("spec-no-kernel", f"{source.name} has no kernel: nothing can boot it")
    return image


def make_bases(data: Path, store: Store, source: SpecSource, arch: str, progress: Progress) -> None:
    """Make those of the spec's base images that are ours; only what is missing or outdated takes time."""
    wanted = {use.ref for use in plan.uses(loader.load((source,)))}
    ours = [base for base in make.listing(store, arch) if base.ref in wanted]
    if ours:
        make.build(data, store, make.Wish(names=[base.name for base in ours], arch=arch), progress)
