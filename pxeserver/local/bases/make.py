"""Making base images: find packages, fetch them, write a layer into the store. Only what changed is made."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pxeserver.errors import NotFound, Unreachable, UsageError, did_you_mean
from pxeserver.images import oci
from pxeserver.images.oci import Descriptor
from pxeserver.images.progress import Progress
from pxeserver.images.store import Store
from pxeserver.linuxkit import reference
from pxeserver.local.bases import kernel, lock, recipe, tools, tree
from pxeserver.local.bases.apt import Apt, Record, closure, host_arch
from pxeserver.local.bases.deb import unpack
from pxeserver.local.bases.lock import Lock, Package
from pxeserver.local.bases.recipe import Recipe
from pxeserver.local.bases.tools import Tools

LAYOUT = 1  # changes when the same recipe and packages give other bytes than before
INPUTS = "io.pxeserver.inputs"  # label: the digest of everything that the image was made of
PACKAGES = "io.pxeserver.packages"  # label: name=version of each package
CONFIG_LABEL = "org.mobyproject.config"
# packages whose programs make an image, and go into none; this host's when the image is for another architecture
_KERNEL_TOOLS = ("kmod", "xz-utils")
_APPLET_TOOLS = ("busybox-static",)


@dataclass(frozen=True, slots=True)
class Base:
    """A base image as it is in the store, or could be. `state`: missing or present."""

    name: str
    ref: str
    summary: str
    state: str = "missing"
    digest: str = ""
    size: int = 0
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """One image after a build. `state`: built, unchanged. `notes` are for the person who built it."""

    name: str
    ref: str
    digest: str
    size: int
    state: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What to build: nothing named = every image, `arch` "" = for this host. `locked` = from exactly those packages."""

    names: Sequence[str] = ()
    components: Sequence[str] = ()
    locked: Lock | None = None
    refresh: bool = False
    arch: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    recipe: Recipe
    packages: tuple[Package, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def inputs(self) -> str:
        return self.recipe.digest(tuple(f"{p.key} {p.arch} {p.sha256}" for p in self.packages), LAYOUT)


def listing(store: Store, arch: str) -> tuple[Base, ...]:
    """Every base image that can be made, and what the store has of it."""
    return tuple(_base(store, recipe.load(name), arch) for name in recipe.names())


def build(data: Path, store: Store, wish: Wish, progress: Progress) -> tuple[Made, ...]:
    """Make the images in order; the set of packages is recorded in `data`/bases.lock.json (bases.lock.ARCH.json).

    UsageError "lock-arch" or NotFound "lock-image" when `wish.locked` is for another architecture or lacks an image,
    UsageError "base-arch" for an architecture that no base image was ever made for.
    """
    recipes = [recipe.load(name) for name in wish.names or recipe.names()]
    with _alone(data):
        return _build(data, store, wish, recipes, progress)


def _build(data: Path, store: Store, wish: Wish, recipes: Sequence[Recipe], progress: Progress) -> tuple[Made, ...]:
    if wish.arch and wish.arch not in tree.TRIPLETS:
        raise UsageError(
            "base-arch",
            f'no base images for "{wish.arch}"{did_you_mean(wish.arch, tree.TRIPLETS)}',
            hint="amd64, arm64",
        )
    apt = Apt(data / "cache", wish.components, arch=wish.arch)
    native = apt if apt.arch == host_arch() else Apt(data / "cache", wish.components)
    if wish.locked is not None and wish.locked.arch != apt.arch:
        raise UsageError("lock-arch", f"the recorded packages are for {wish.locked.arch}, these images for {apt.arch}")
    plans = _locked(recipes, wish.locked) if wish.locked else _newest(recipes, apt, native, wish.refresh, progress)
    stale = [p for p in plans if _inputs(store, p.recipe, apt.arch) != p.inputs]
    wanted = {p for plan in stale for p in plan.packages if not apt.path(p).is_file()}
    if wanted:
        task = progress.task("packages", sum(p.size for p in wanted))
        apt.fetch(wanted, task.advance)
        task.done(f"{len(wanted)} packages fetched")
    record = data / ("bases.lock.json" if apt is native else f"bases.lock.{apt.arch}.json")
    kept = lock.read(record) if record.is_file() else Lock(apt.arch)
    made = []
    for plan in plans:
        task = progress.task(plan.recipe.name, 1)
        if plan in stale:
            apt.fetch(plan.packages)
            _make(store, plan, apt, data / "cache")
        base = _base(store, plan.recipe, apt.arch)
        made.append(
            Made(base.name, base.ref, base.digest, base.size, "built" if plan in stale else "unchanged", plan.notes)
        )
        task.advance(1)
        task.done(made[-1].state)
        kept = kept.with_image(plan.recipe.name, plan.packages)
    _replace(record, kept.text())
    return tuple(made)


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """One build at a time: apt's lists and the record of packages are shared."""
    (data / "cache").mkdir(parents=True, exist_ok=True)
    with (data / "cache/bases.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _newest(recipes: Sequence[Recipe], apt: Apt, native: Apt, refresh: bool, progress: Progress) -> list[_Plan]:
    _refresh(apt, refresh, progress)
    names = {r.name: _names(r, apt.arch, tools=apt is native) for r in recipes}
    records = apt.records({n for pair in names.values() for group in pair for n in group})
    closed: dict[str, tuple[Record, ...]] = {}
    notes: dict[str, tuple[str, ...]] = {}
    for r in recipes:
        needed, optional = names[r.name]
        lacking = [n for n in optional if n not in records]
        closed[r.name] = closure([*needed, *(n for n in optional if n in records)], records)
        notes[r.name] = (f"not enabled here: {', '.join(lacking)}; {r.optional_note}",) if lacking else ()
    packages = {p.name: p for p in apt.packages({r.name: r for rs in closed.values() for r in rs}.values())}
    foreign = {} if apt is native else _tools(recipes, native, refresh, progress)
    return [
        _Plan(r, (*(packages[x.name] for x in closed[r.name]), *foreign.get(r.name, ())), notes[r.name])
        for r in recipes
    ]


def _tools(recipes: Sequence[Recipe], native: Apt, refresh: bool, progress: Progress) -> dict[str, tuple[Package, ...]]:
    """This host's packages that take part in making each image of another architecture."""
    wanted = {r.name: _tool_names(r) for r in recipes}
    if not any(wanted.values()):
        return {}
    _refresh(native, refresh, progress)
    records = native.records({n for names in wanted.values() for n in names})
    closed = {name: closure(names, records) for name, names in wanted.items()}
    packages = {p.name: p for p in native.packages({r.name: r for rs in closed.values() for r in rs}.values())}
    return {name: tuple(packages[r.name] for r in rs) for name, rs in closed.items()}


def _tool_names(r: Recipe) -> tuple[str, ...]:
    return (*(_KERNEL_TOOLS if r.kernel else ()), *(_APPLET_TOOLS if r.applets else ()))


def _refresh(apt: Apt, refresh: bool, progress: Progress) -> None:
    try:
        apt.refresh(force=refresh)
    except Unreachable as error:
        if refresh or not apt.listed():
            raise
        progress.say(f"going on with the package lists from before: {error.message}")


def _names(r: Recipe, arch: str, tools: bool) -> tuple[list[str], list[str]]:
    needed = [*r.packages, *((r.kernel.package,) if r.kernel else ()), *(_tool_names(r) if tools else ())]
    return [n.format(arch=arch) for n in needed], [n.format(arch=arch) for n in r.optional]


def _locked(recipes: Iterable[Recipe], record: Lock) -> list[_Plan]:
    plans = []
    for r in recipes:
        if r.name not in record.images:
            raise NotFound(
                "lock-image",
                f"the recorded packages hold no image {r.name}",
                hint=f"it has: {', '.join(record.images)}",
            )
        plans.append(_Plan(r, record.images[r.name]))
    return plans


def _make(store: Store, plan: _Plan, apt: Apt, scratch: Path) -> Descriptor:
    with tempfile.TemporaryDirectory(prefix="base-", dir=scratch) as temporary:
        work = Path(temporary)
        (work / "files").mkdir()
        unpacked = unpack([apt.path(p) for p in plan.packages if p.arch == apt.arch], work / "files")
        programs = Tools(unpacked, work / "tools", apt.arch)
        if apt.arch != host_arch():
            (work / "host").mkdir()
            tools_unpacked = unpack([apt.path(p) for p in plan.packages if p.arch != apt.arch], work / "host")
            programs = Tools(tools_unpacked, work / "tools", host_arch())
        laid = tree.lay_out(plan.recipe, unpacked, apt.arch, lambda: tools.applets(programs))
        if plan.recipe.kernel:
            (work / "kernel").mkdir()
            for entry in kernel.lay_out(plan.recipe.kernel, unpacked, programs, work / "kernel").entries.values():
                laid.put(entry)
        with store.writer() as out:
            tree.write(laid.ordered(plan.recipe.first), out)
            layer = out.commit()
    return store.write_base(
        reference.expand(plan.recipe.ref),
        {"config": _config(plan, apt.arch)},
        [Descriptor(oci.LAYER, layer.digest, layer.size)],
        apt.arch,
    )


def _config(plan: _Plan, arch: str) -> dict[str, object]:
    labels = {INPUTS: plan.inputs, PACKAGES: " ".join(p.key for p in plan.packages if p.arch == arch)}
    if plan.recipe.label:
        labels[CONFIG_LABEL] = json.dumps(plan.recipe.label, sort_keys=True)
    config: dict[str, object] = {"Labels": labels}
    if plan.recipe.command:
        config["Cmd"] = list(plan.recipe.command)
        config["Env"] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *plan.recipe.env]
    return config


def _base(store: Store, r: Recipe, arch: str) -> Base:
    ref = reference.expand(r.ref)
    found = _found(store, ref, arch)
    if found is None:
        return Base(r.name, ref, r.summary)
    manifest = store.read_json(found.digest)
    labels = _labels(store, manifest)
    return Base(
        r.name,
        ref,
        r.summary,
        "present",
        found.digest,
        sum(int(layer["size"]) for layer in manifest["layers"]),
        tuple(labels.get(PACKAGES, "").split()),
    )


def _found(store: Store, ref: str, arch: str) -> Descriptor | None:
    """None as well when the image is there for other architectures only."""
    return store.resolve(ref, arch) if any(e.platform.get("architecture") == arch for e in store.named(ref)) else None


def _inputs(store: Store, r: Recipe, arch: str) -> str:
    found = _found(store, reference.expand(r.ref), arch)
    if found is None:
        return ""
    manifest = store.read_json(found.digest)
    complete = all(store.has(str(layer["digest"])) for layer in manifest["layers"])
    return _labels(store, manifest).get(INPUTS, "") if complete else ""


def _labels(store: Store, manifest: Mapping[str, object]) -> dict[str, str]:
    config = manifest["config"]
    assert isinstance(config, dict), "write_base made it"
    return dict(store.read_json(str(config["digest"])).get("config", {}).get("Labels") or {})


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.rename(path)
