"""A loaded spec -> everything that goes into the image's tree, in LinuxKit's order, as values."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

from pxeserver.linuxkit import files, label, lossy, metadata, oci, reference, runtime, volumes
from pxeserver.linuxkit.context import Context, assign_ids
from pxeserver.linuxkit.entries import (
    ContainerEntry,
    ImageDefaults,
    InitEntry,
    KernelEntry,
    Plan,
    PlanEntry,
    TreeEntry,
    Use,
    VolumeEntry,
)
from pxeserver.linuxkit.loader import Loaded
from pxeserver.linuxkit.spec import SECTIONS, ContainerSpec

KERNEL, KERNEL_TAR, OLD_KERNEL = "kernel", "kernel.tar", "bzImage"


def uses(loaded: Loaded) -> tuple[Use, ...]:
    """Every base image that the spec names, in the order of the tree."""
    spec = loaded.spec
    found = [(spec.kernel.image, "kernel", loaded.place("kernel", "image"))] if spec.kernel.image else []
    found += [(ref, f"init[{i}]", loaded.place("init", i)) for i, ref in enumerate(spec.init)]
    found += [
        (volume.image, f"volume[{i}]", loaded.place("volumes", i, "image"))
        for i, volume in enumerate(spec.volumes)
        if volume.image
    ]
    for section in SECTIONS:
        for i, container in enumerate(getattr(spec, section)):
            found.append((container.image, f"{section}[{i}]", loaded.place(section, i, "image")))
    return tuple(Use(reference.expand(ref), location, where) for ref, location, where in found)


def plan(
    loaded: Loaded,
    images: Mapping[str, ImageDefaults],
    present: Callable[[Path], bool] = os.path.exists,
    taken: Container[str] = (),
) -> Plan:
    """The whole tree. `images` holds at least those of the containers, by expanded reference.

    `present` tells whether an optional source file is there. `taken` are locations whose entries come from an earlier
    tar: a strict plan does not know that their images are extracted. UsageError at the field that makes no sense.
    """
    spec = loaded.spec
    notes: list[str] = []
    entries: list[PlanEntry] = [*_kernel(loaded), *_init(loaded), *_volumes(loaded)]
    ids = assign_ids(spec)
    roots: dict[str, str] = {}
    for section in SECTIONS:
        for i, container in enumerate(getattr(spec, section)):
            ctx = Context(loaded.strict, ids, loaded.below(section, i), notes)
            apart = loaded.strict and f"{section}[{i}]" in taken
            entries.append(_container(loaded, container, section, i, images, {} if apart else roots, ctx))
    entries += _files(loaded, Context(loaded.strict, ids, loaded.below("files"), notes), present)
    return Plan(tuple(entries), spec.kernel.cmdline if spec.kernel.image else "", (*loaded.warnings, *notes))


def _kernel(loaded: Loaded) -> Iterator[KernelEntry]:
    """Images of 2017 hold `bzImage`; strict looks for what LinuxKit looks for."""
    kernel = loaded.spec.kernel
    if kernel.image:
        default = (KERNEL,) if loaded.strict else (KERNEL, OLD_KERNEL)
        tar = KERNEL_TAR if kernel.tar is None else "" if kernel.tar == "none" else kernel.tar
        yield KernelEntry(
            ref=reference.expand(kernel.image),
            binaries=(kernel.binary,) if kernel.binary else default,
            tar=tar,
            ucode=kernel.ucode or "",
            cmdline=kernel.cmdline,
            where=loaded.place("kernel", "image"),
        )


def _init(loaded: Loaded) -> Iterator[InitEntry]:
    for i, ref in enumerate(loaded.spec.init):
        yield InitEntry(reference.expand(ref), f"init[{i}]", loaded.place("init", i))


def _volumes(loaded: Loaded) -> Iterator[VolumeEntry]:
    for i, volume in enumerate(loaded.spec.volumes):
        yield VolumeEntry(
            name=volume.name,
            ref=reference.expand(volume.image) if volume.image else "",
            format=volume.format or "filesystem",
            platforms=volume.platforms,
            folder=volumes.folder(volume.name),
            location=f"volume[{i}]",
            where=loaded.place("volumes", i, "image" if volume.image else "name"),
        )


def _container(
    loaded: Loaded,
    own: ContainerSpec,
    section: str,
    index: int,
    images: Mapping[str, ImageDefaults],
    roots: dict[str, str],
    ctx: Context,
) -> ContainerEntry:
    """`roots` remembers where each image was extracted: the next container with the same reference refers to it."""
    _warn(own, ctx)
    ref = reference.expand(own.image)
    image = images[ref]
    resolved = volumes.resolve(lossy.drop(own) if ctx.strict else own, loaded.volumes, ctx)
    merged = label.merge(resolved, image.labels.get(label.LABEL, ""), strict=ctx.strict, place=ctx.place)
    config = oci.config_json(merged.spec, image, Context(ctx.strict, ctx.ids, merged.place, ctx.notes))
    name = own.name if section == "services" else f"{index:03d}-{own.name}"
    folder = posixpath.normpath(f"containers/{section}/{name}")
    readonly = bool(merged.spec.readonly)
    target = f"{folder}/{'rootfs' if readonly else 'lower'}"
    first = ref not in roots
    root = roots.setdefault(ref, target)
    return ContainerEntry(
        name=own.name,
        ref=ref,
        folder=folder,
        readonly=readonly,
        extract_to=target if first else "",
        config_json=config,
        runtime_json=runtime.runtime_json(merged.spec.runtime, folder, root, readonly=readonly),
        location=f"{section}[{index}]",
        where=ctx.place("image"),
    )


def _warn(own: ContainerSpec, ctx: Context) -> None:
    if not own.name or "/" in own.name or own.name in (".", ".."):
        ctx.warn(f'a container named "{own.name}" is built but never started: its folder is not looked at', "name")
    lost = lossy.lost(own)
    if lost:
        ctx.warn(f"in effect here, while LinuxKit drops it: {', '.join(lost)}")


def _files(loaded: Loaded, ctx: Context, present: Callable[[Path], bool]) -> tuple[TreeEntry, ...]:
    """Sources are relative to the spec's folder, so that the tree does not depend on where one stands; strict takes
    the current folder, as LinuxKit does."""
    return files.entries(
        loaded.spec.files,
        ctx,
        folder=lambda i: None if ctx.strict else loaded.folder("files", i),
        render=lambda form: metadata.render(loaded.spec, form, strict=ctx.strict),
        present=present,
    )
