"""What lint may know of base images: those that are on this host, read without asking any registry."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Sequence

from pxeserver.config import Config
from pxeserver.errors import NotFound
from pxeserver.images import flatten, sources
from pxeserver.images.layers import BaseImage
from pxeserver.images.layout import Layout
from pxeserver.images.store import Store
from pxeserver.linuxkit import plan
from pxeserver.linuxkit.entries import ImageDefaults
from pxeserver.linuxkit.lintbase import Base
from pxeserver.linuxkit.loader import Loaded


def layouts(text: str, store: Store, config: Config) -> tuple[Layout, ...]:
    """The layouts of the source that `text` names ("oci:DIR"), then the store; a registry or an engine is no layout."""
    source = sources.open_source(text, store, config) if ":" in text else None
    return (source.layout, store) if isinstance(source, sources.LayoutSource) else (store,)


def known(loaded: Loaded, places: Sequence[Layout], arch: str) -> dict[str, Base]:
    """The spec's base images by expanded reference, as far as one of `places` has them for `arch`."""
    found: dict[str, Base] = {}
    for use in plan.uses(loaded):
        base = None if use.ref in found else _first(use.ref, places, arch)
        if base is not None:
            digest = base.index.digest if base.index else base.digest
            found[use.ref] = Base(digest, ImageDefaults.of(base.config), functools.partial(_paths, base))
    return found


def _first(ref: str, places: Sequence[Layout], arch: str) -> BaseImage | None:
    for layout in places:
        try:
            base = sources.local(layout, ref, arch)
        except NotFound:
            continue
        if base is not None:
            return base
    return None


def _paths(base: BaseImage) -> frozenset[str]:
    """Every path of the image as a container sees it."""
    return frozenset(posixpath.normpath(e.name) for e in flatten.root(base, flatten.Use.CONTAINER))
