"""What goes into each base image: `files/NAME/image.yml`, with the image's own files in `files/NAME/root/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pxeserver import yamlpos
from pxeserver.checked import Part, field, plain
from pxeserver.errors import NotFound, did_you_mean

FILES = Path(__file__).resolve().parent / "files"
PREFIX = "pxeserver/"


class Kernel(Part):
    """`package` leads to the image package; modules whose path below kernel/ begins with one of `drop` are left out."""

    package: str
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()  # exceptions to `drop`


class Recipe(Part):
    """One base image. Package names may contain {arch}, Debian's name of the architecture."""

    name: str
    summary: str
    packages: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()  # taken when an enabled component has them; else the note below is given
    optional_note: str = ""
    take: Mapping[str, tuple[str, ...]] = field(default={})  # destination (FOLDER/ or FILE) -> globs
    take_optional: Mapping[str, tuple[str, ...]] = field(default={})  # the same, and no match is no fault
    concat: Mapping[str, str] = field(default={})  # destination -> glob; sorted, joined
    common: Mapping[str, str] = field(default={})  # destination -> file of files/common/
    applets: bool = False  # a link in place for every applet of busybox, for people at a shell
    links: Mapping[str, str] = field(default={})  # path -> target
    folders: tuple[str, ...] = ()
    first: tuple[str, ...] = ()  # paths that the layer begins with: what init needs when the rest is cut off
    kernel: Kernel | None = None
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    label: Mapping[str, Any] = field(default={})  # org.mobyproject.config

    @property
    def ref(self) -> str:
        """As a spec spells it."""
        return PREFIX + self.name

    @property
    def own_files(self) -> tuple[tuple[str, Path], ...]:
        """(path in the image, file here), sorted: root/ of the image, then what it shares with others."""
        root = FILES / self.name / "root"
        own = [(str(p.relative_to(root)), p) for p in root.rglob("*") if p.is_file()]
        shared = [(to, FILES / "common" / name) for to, name in self.common.items()]
        return tuple(sorted(own + shared))

    def digest(self, packages: Iterator[str] | tuple[str, ...], layout: int) -> str:
        """Names everything that the image's bytes follow from: recipe, own files, packages, version of the layout."""
        files = {to: hashlib.sha256(path.read_bytes()).hexdigest() for to, path in self.own_files}
        body = [layout, plain(self), files, sorted(packages)]
        return "sha256:" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load(name: str) -> Recipe:
    """The recipe of one image; NotFound "base-not-found" with the nearest name."""
    name = name.removeprefix("docker.io/").removeprefix(PREFIX)
    file = FILES / name / "image.yml"
    if name not in names():
        raise NotFound(
            "base-not-found", f'no base image "{name}"{did_you_mean(name, names())}', hint="see: pxeserver bases ls"
        )
    doc = yamlpos.parse(file.read_bytes(), str(file))
    return yamlpos.validate(Recipe, doc, slug="recipe", data={"name": name, **(doc.data or {})})


def names() -> tuple[str, ...]:
    """Of every base image that can be made, sorted."""
    return tuple(sorted(p.parent.name for p in FILES.glob("*/image.yml")))
