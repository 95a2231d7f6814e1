"""What a plan is made of: frozen values that say, in order, what goes into an image's tree and where from.

`location` and the source are what LinuxKit records for an entry: "kernel", "init[0]", "volume[0]", "onboot[0]", ...
References are fully expanded. Folders are paths without a leading or trailing slash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pxeserver.errors import PxeServerError, Where


@dataclass(frozen=True, slots=True)
class ImageDefaults:
    """What a base image's config says about running it; absent lists are empty."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImageDefaults:
        """From an image configuration file (image-spec 1.1, config.md): its "config" object, which may be absent.

        PxeServerError "oci-malformed" when a member is of another type.
        """
        body = config.get("config") or {}
        if not isinstance(body, dict):
            raise _malformed("config", "a map")
        folder, labels = body.get("WorkingDir") or "", body.get("Labels") or {}
        if not isinstance(folder, str):
            raise _malformed("WorkingDir", "text")
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise _malformed("Labels", "a map of texts")
        return cls(_texts(body, "Entrypoint"), _texts(body, "Cmd"), _texts(body, "Env"), folder, dict(labels))


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise _malformed(name, "a list of texts")
    return tuple(value)


def _malformed(name: str, kind: str) -> PxeServerError:
    return PxeServerError("oci-malformed", f"{name} in the image's configuration is not {kind}")


@dataclass(frozen=True, slots=True)
class Use:
    """One place of a spec that names a base image; the same reference may be used many times."""

    ref: str
    location: str
    where: Where


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """Files out of the kernel image; the first of `binaries` that is there is the kernel."""

    ref: str
    binaries: tuple[str, ...]
    tar: str  # "" = no tar
    ucode: str  # "" = none
    cmdline: str
    where: Where
    location: str = "kernel"


@dataclass(frozen=True, slots=True)
class InitEntry:
    """An image whose files are the root of the tree."""

    ref: str
    location: str
    where: Where


@dataclass(frozen=True, slots=True)
class VolumeEntry:
    """`folder`/lower is filled from `ref` ("" = stays empty), then `folder`/tmp and `folder`/merged are made."""

    name: str
    ref: str
    format: Literal["filesystem", "oci"]
    platforms: tuple[str, ...]  # of an oci volume; empty = all
    folder: str
    location: str
    where: Where


@dataclass(frozen=True, slots=True)
class ContainerEntry:
    """An onboot, onshutdown or services container in `folder`.

    Order in the tree: the image under `extract_to` ("" = an earlier entry did; then only the parents of `folder`),
    config.json, for a writable one tmp/, rootfs/ when it has not been extracted into, runtime.json.
    """

    name: str
    ref: str
    folder: str
    readonly: bool
    extract_to: str
    config_json: bytes
    runtime_json: bytes
    location: str
    where: Where

    @property
    def folders(self) -> tuple[str, ...]:
        """The empty folders between config.json and runtime.json."""
        own = () if self.readonly else (f"{self.folder}/tmp",)
        return own if self.extract_to == f"{self.folder}/rootfs" else (*own, f"{self.folder}/rootfs")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One entry of the files section, its missing parents included. Owner is numeric, mode has 12 bits."""

    path: str  # as written, without its leading slash
    kind: Literal["dir", "file", "symlink"]
    mode: int
    uid: int
    gid: int
    location: str
    content: bytes | None = None  # of a file; None: read it from `source`
    source: Path | None = None
    target: str = ""  # of a symlink
    where: Where = Where()


PlanEntry = KernelEntry | InitEntry | VolumeEntry | ContainerEntry | TreeEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that goes into the tree, in LinuxKit's order: kernel, init, volumes, onboot, onshutdown, services,
    files. `warnings` are for a person, one sentence each."""

    entries: tuple[PlanEntry, ...]
    cmdline: str
    warnings: tuple[str, ...] = ()
