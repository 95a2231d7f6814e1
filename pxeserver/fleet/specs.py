"""The specs that there are: `NAME.yml` in the configured folders, then the shipped ones; and what `assign` may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pxeserver.config import Config
from pxeserver.errors import NotFound, Refused, UsageError, did_you_mean
from pxeserver.images.catalogue import Catalogue
from pxeserver.model import Image
from pxeserver.resources import shipped

if TYPE_CHECKING:
    from pxeserver.fleet.values import SpecInfo

SUFFIXES = (".yml", ".yaml")


def spec_files(config: Config) -> dict[str, Path]:
    """Spec name (the file's stem) -> file; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in (*map(Path, config.images.specs), shipped("config") / "specs"):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in SUFFIXES and path.is_file():
                    found.setdefault(path.stem, path)
    return found


def list_specs(files: Mapping[str, Path], images: Iterable[Image], newest: Mapping[str, str]) -> tuple[SpecInfo, ...]:
    """Every spec with its newest build; specs that were built from a file elsewhere come with file ""."""
    from pxeserver.fleet.values import SpecInfo  # a build reads specs too and needs none of those classes

    built = {image.digest: image for image in images}
    out = []
    for name in sorted({*files, *newest}):
        image = built.get(newest.get(name, ""))
        at = image.created if image else 0.0
        out.append(SpecInfo(name, str(files.get(name, "")), image.short if image else "", at))
    return tuple(out)


def chosen(what: str, *, follow: bool, catalogue: Catalogue, config: Config) -> Image:
    """The image that `assign` means by SPEC, SPEC:TAG, SPEC@DIGEST or a digest.

    NotFound "spec-not-found" / "image-not-found" with the nearest name; Refused "spec-not-built" with the command.
    """
    name = Path(what).stem if what.endswith(SUFFIXES) else what
    if not name:
        raise UsageError("spec-missing", "no spec is named", hint="pxeserver specs ls")
    image = catalogue.newest(name)
    if image is not None:
        return image
    files = spec_files(config)
    if name in files:
        raise Refused(
            "spec-not-built",
            f'spec "{name}" was never built',
            hint=f"pxeserver build {name}, or assign with --build",
        )
    if follow:
        raise UsageError(
            "follow-needs-spec",
            f'only a spec can be followed, not "{what}"',
            hint="name the spec alone, without tag or digest",
        )
    try:
        return catalogue.get(name)
    except NotFound:
        if ":" in name or "@" in name:
            raise
    known = {*files, *(i.spec for i in catalogue.list())}
    raise NotFound("spec-not-found", f'no spec "{name}"{did_you_mean(name, known)}', hint="pxeserver specs ls")
