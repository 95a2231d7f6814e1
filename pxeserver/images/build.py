"""The whole build: specs -> plan -> tree -> kernel, initrd and command line in the store, and files as asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pxeserver.boot.cmdline import check_length
from pxeserver.config import Config
from pxeserver.errors import PxeServerError, Refused, Where
from pxeserver.images import initrd, outputs, tree, trust
from pxeserver.images.catalogue import Catalogue, checked_tag
from pxeserver.images.initrd import Assembled
from pxeserver.images.inputtar import InputTar
from pxeserver.images.layers import BaseImage
from pxeserver.images.outputs import FORMS
from pxeserver.images.progress import Progress
from pxeserver.images.segments import SPEC_CMDLINE, SegmentCache
from pxeserver.images.sources import Source
from pxeserver.images.store import Store
from pxeserver.images.target import Target
from pxeserver.linuxkit import loader, plan, reference
from pxeserver.linuxkit.entries import ImageDefaults, Plan, Use
from pxeserver.linuxkit.loader import Loaded, SpecSource
from pxeserver.linuxkit.trust import covered
from pxeserver.model import Image

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build, from what, into what. `formats` empty: the store only; `target` is needed with formats only."""

    specs: tuple[SpecSource, ...]
    name: str
    arch: str
    source: Source
    formats: tuple[str, ...] = ()
    target: Target | None = None
    tags: tuple[str, ...] = ()
    strict: bool = False
    pull: bool = False
    decompress_kernel: bool = False
    compression: str = "gzip"
    sbom: str = "sbom.spdx.json"  # path in the tree; "" = none
    input_tar: Path | None = None  # of an earlier build, to take unchanged parts from
    now: float | None = None  # time in the SBOM, Unix seconds; None = LinuxKit's fixed time


@dataclass(frozen=True, slots=True)
class Built:
    """`image` is None when nothing bootable was made for the store: a stream, or a spec without a kernel."""

    image: Image | None
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = field(default=())


def build(request: BuildRequest, store: Store, config: Config, progress: Progress) -> Built:
    """Raises UsageError for faults of the spec and flags, NotFound for base images and files, each with its place."""
    try:
        return _built(request, store, config, progress)
    except OSError as error:
        where = error.filename or config.data
        raise PxeServerError(
            "build-io", f"{where}: {error.strerror or error}", hint=f"df -h {config.data}; nothing half made was kept"
        ) from None


def _built(request: BuildRequest, store: Store, config: Config, progress: Progress) -> Built:
    formats = outputs.checked(request.formats)
    outputs.need(formats, request.arch)
    streamed = next((FORMS[f] for f in formats if FORMS[f].streamable), None)
    for tag in request.tags if streamed else ("latest", *request.tags):  # of a stream no image is stored
        checked_tag(tag, request.name)
    loaded = loader.load(request.specs, strict=request.strict)
    request = replace(request, source=trust.guarded(loaded, request.source, config))
    vouched = covered(loaded)  # what must be signed is never taken over from a tar, which tells nothing of signatures
    earlier = InputTar(request.input_tar, loaded, vouched, strict=request.strict) if request.input_tar else None
    if not request.strict:
        _bootable(loaded)
    uses = [use for use in plan.uses(loaded) if earlier is None or use.location not in earlier.copied]
    bases = fetch(loaded, uses, request, progress)
    defaults = {use.ref: ImageDefaults() for use in plan.uses(loaded)}  # those of parts taken over stay without effect
    defaults |= _defaults(uses, bases)
    made = plan.plan(loaded, defaults, taken=earlier.copied if earlier else ())
    for warning in made.warnings:
        progress.say(f"warning: {warning}")
    if streamed is not None:
        assert request.target is not None
        whole = tree.tree(
            made, bases, _options(request, made.cmdline.encode(), earlier, dockerfile=streamed.dockerfile)
        )
        return Built(None, tuple(outputs.write_stream(streamed, whole, request.target)), made.warnings)
    store.prepare()
    cache = SegmentCache(config.data / "cache" / "segments", store, request.compression)
    ready = None
    while ready is None:
        whole = tree.tree(made, bases, _options(request, SPEC_CMDLINE, earlier))
        ready = _assembled(whole, made.cmdline, cache, store, request.arch, progress)
    cache.sweep(time.time())
    files: list[Path] = []
    for name in formats:
        assert request.target is not None
        files += outputs.write(name, ready, store, request.target)
    image = _stored(request, made, bases, ready, cache.label, whole.sbom, store)
    return Built(image, tuple(files), made.warnings)


def _defaults(uses: Iterable[Use], bases: Mapping[str, BaseImage]) -> dict[str, ImageDefaults]:
    found: dict[str, ImageDefaults] = {}
    for use in uses:
        try:
            found[use.ref] = ImageDefaults.of(bases[use.ref].config)
        except PxeServerError as error:
            error.message, error.where = f"{use.ref}: {error.message}", use.where
            raise
    return found


def _bootable(loaded: Loaded) -> None:
    """Refused "cmdline-too-long" at the spec's command line when no kernel would read all of it."""
    kernel = loaded.spec.kernel
    try:
        if kernel.image:
            check_length(kernel.cmdline)
    except PxeServerError as error:
        error.where = loaded.place("kernel", "cmdline")
        raise


def fetch(loaded: Loaded, uses: Iterable[Use], request: BuildRequest, progress: Progress) -> dict[str, BaseImage]:
    """The base images by their full references; errors name the place in the spec that asks for one."""
    first: dict[str, Use] = {}
    for use in uses:
        first.setdefault(use.ref, use)

    also = _platforms(loaded)

    def one(use: Use) -> BaseImage:
        try:
            base = request.source.base(use.ref, request.arch, request.pull, also.get(use.ref))
        except PxeServerError as error:
            error.where = error.where or use.where
            raise
        has = base.config.get("architecture", request.arch)
        if has != request.arch and not request.strict:
            progress.say(f"warning: {use.where}: {use.ref} is for {has}, not {request.arch}")
        return base

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="base") as pool:
        waiting = [pool.submit(one, use) for use in first.values()]
        try:
            return {base.ref: base for base in (w.result() for w in waiting)}
        except BaseException:
            for w in waiting:
                w.cancel()
            raise


def _platforms(loaded: Loaded) -> dict[str, tuple[str, ...]]:
    """Which platforms of an index a volume of `format: oci` holds; () = all of them."""
    found: dict[str, set[str]] = {}
    for volume in loaded.spec.volumes:
        if volume.format == "oci" and volume.image:
            ref = reference.expand(volume.image)
            every = not volume.platforms or found.get(ref) == set()
            found[ref] = set() if every else found.get(ref, set()) | set(volume.platforms)
    return {ref: tuple(sorted(platforms)) for ref, platforms in found.items()}


def _options(
    request: BuildRequest, cmdline: bytes, earlier: InputTar | None, *, dockerfile: bool = False
) -> tree.Options:
    return tree.Options(
        name=request.name,
        cmdline=cmdline,
        strict=request.strict,
        decompress_kernel=request.decompress_kernel,
        sbom=request.sbom,
        now=request.now,
        dockerfile=dockerfile,
        earlier=earlier,
    )


def _assembled(
    whole: tree.Tree, cmdline: str, cache: SegmentCache, store: Store, arch: str, progress: Progress
) -> Assembled | None:
    """None when a cached segment turned out to be damaged: it is removed now, and the next attempt makes it again."""
    try:
        return initrd.assemble(whole, cache, store, spec_cmdline=cmdline, arch=arch, progress=progress)
    except PxeServerError as error:
        if error.slug != initrd.DAMAGED:
            raise
        progress.say(f"warning: {error.message}; it is made again")
        return None


def _stored(
    request: BuildRequest,
    made: Plan,
    bases: Mapping[str, BaseImage],
    ready: Assembled,
    compression: str,
    sbom: bytes,
    store: Store,
) -> Image | None:
    """The image in the catalogue; None without a kernel, which is a fault when nothing else was asked for."""
    if ready.kernel is None:
        if not request.formats:
            said = f"{request.name} has no kernel, so no machine could boot it"
            where = Where(request.specs[-1].name, field="kernel.image")
            raise Refused("spec-no-kernel", said, hint="add kernel.image", where=where)
        store.drop_unused([ready.initrd.digest])
        return None
    image = Image(ready.digest, request.name, ready.kernel, ready.initrd, ready.cmdline, request.arch)
    facts = {
        "bases": [{"use": u, "ref": b.ref, "digest": b.digest} for u, b in _used(made, bases)],
        "compression": compression,
        "segments": [{"digest": s.raw_digest, "size": s.raw_size, "compressed": s.size} for s in ready.segments],
        "strict": request.strict,
        "ucode": asdict(ready.ucode) if ready.ucode else None,
    }
    text = b"---\n".join(s.text.encode() if isinstance(s.text, str) else s.text for s in request.specs)
    bill = store.add_bytes(sbom) if sbom else None
    return Catalogue(store).add(image, spec_text=text, sbom=bill, facts=facts, tags=request.tags)


def _used(made: Plan, bases: Mapping[str, BaseImage]) -> list[tuple[str, BaseImage]]:
    return [(e.location, bases[ref]) for e in made.entries if (ref := getattr(e, "ref", "")) in bases]
