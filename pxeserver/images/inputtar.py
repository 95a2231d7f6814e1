"""--input-tar: parts of an earlier build's tar taken over instead of being made again from their base images.

The tar tells of each entry where it came from (LINUXKIT.location and .source records), and holds the spec that it was
built from as a metadata file. What stands in both specs alike is copied; base images of copied parts are not needed.
Strict copies what LinuxKit copies: by position, the kernel whatever its command line; and it loses volumes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pxeserver.checked import replace
from pxeserver.errors import NotFound, PxeServerError, UsageError, Where
from pxeserver.images import tarread
from pxeserver.images.entry import FILE, Entry
from pxeserver.linuxkit import loader, metadata, reference
from pxeserver.linuxkit.context import assign_ids
from pxeserver.linuxkit.loader import Loaded, SpecSource
from pxeserver.linuxkit.spec import SECTIONS, ContainerSpec, Spec

_LOCATION = "LINUXKIT.location"


class _Counting:
    """A file that knows how far it was read, and ends where told."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end
        self.at = file.tell()

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self.at
        data = self._file.read(left if size < 0 else min(size, left))
        self.at += len(data)
        return data


class InputTar:
    """An earlier tar. `copied` maps locations of the new spec to those of the old one whose entries serve it."""

    def __init__(self, path: Path, loaded: Loaded, apart: Container[str] = (), *, strict: bool) -> None:
        """Raises NotFound "input-tar-missing", UsageError "input-tar-metadata" when it does not tell its spec.

        Locations in `apart` are never copied.
        """
        self._path = path
        self.copied: dict[str, str] = {}
        self._runs: dict[str, list[tuple[int, int]]] = {}
        forms = ("yaml", "json") if strict else ("yaml",)
        wanted = [f.path.removeprefix("/") for f in loaded.spec.files if f.metadata in forms]
        if not wanted:
            if strict:
                return  # LinuxKit does not even look at the tar
            raise UsageError(
                "input-tar-metadata",
                "--input-tar needs a file with metadata: yaml in the spec, to compare with the one in the tar",
            )
        name = wanted[-1 if strict else 0]
        self._runs, text = self._indexed(name)
        if text is None:
            if strict:
                return
            raise UsageError("input-tar-metadata", f"{path} has no {name}, which would tell what it was built from")
        if not strict:
            text = metadata.as_spec(text, f"{path}:{name}")
        old = loader.load((SpecSource(f"{path}:{name}", text),), strict=strict)
        if strict:
            self.copied = dict(_same_places(old.spec, loaded.spec))
        else:
            both = _same(old.spec, loaded.spec)
            self.copied = {new: was for new, was in both if was in self._runs and new not in apart}

    def _indexed(self, wanted: str) -> tuple[dict[str, list[tuple[int, int]]], bytes | None]:
        """Which bytes belong to which location, and the content of the file `wanted`."""
        runs: dict[str, list[tuple[int, int]]] = {}
        text: bytes | None = None
        try:
            with self._path.open("rb") as file:
                counting = _Counting(file, self._path.stat().st_size)
                start = 0
                for entry in tarread.entries(counting):
                    end = counting.at + -(-tarread.entry_size(entry) // 512) * 512
                    if location := entry.pax.get(_LOCATION, ""):
                        _add(runs.setdefault(location, []), start, end)
                    if entry.name == wanted and entry.kind == FILE and entry.open is not None:
                        text = entry.open().read(entry.size)
                    start = end
        except PxeServerError as error:
            error.where = error.where or Where(str(self._path))
            raise
        except OSError as error:
            raise NotFound("input-tar-missing", f"cannot read {self._path}: {error.strerror}") from None
        return runs, text

    def entries(self, location: str) -> Iterator[Entry]:
        """The old entries for a location of the new spec, with their notes brought up to date."""
        for start, end in self._runs.get(self.copied[location], ()):
            with self._path.open("rb") as file:
                file.seek(start)
                for entry in tarread.entries(_Counting(file, end)):
                    yield entry._replace(pax={**entry.pax, _LOCATION: location})


def _add(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """One more range; joined to the last one when it follows it."""
    if ranges and ranges[-1][1] == start:
        start = ranges.pop()[0]
    ranges.append((start, end))


def _same(old: Spec, new: Spec) -> Iterator[tuple[str, str]]:
    """(location in `new`, location in `old`) of everything that is the same in both."""
    if new.kernel.image and _expanded(old.kernel.image) == _expanded(new.kernel.image):
        kernels = (replace(k, image="") for k in (old.kernel, new.kernel))
        if len(set(kernels)) == 1:
            yield "kernel", "kernel"
    known = [_expanded(ref) for ref in old.init]
    for i, ref in enumerate(new.init):
        if _expanded(ref) in known:
            yield f"init[{i}]", f"init[{known.index(_expanded(ref))}]"
    for i, volume in enumerate(new.volumes):
        if volume in old.volumes:
            yield f"volume[{i}]", f"volume[{old.volumes.index(volume)}]"
    yield from ((place, place) for place in _containers(old, new))


def _same_places(old: Spec, new: Spec) -> Iterator[tuple[str, str]]:
    """`_same` by LinuxKit's rules."""
    if new.kernel.image and _expanded(old.kernel.image) == _expanded(new.kernel.image):
        yield "kernel", "kernel"
    for i, (was, ref) in enumerate(zip(old.init, new.init, strict=False)):
        if _expanded(was) == _expanded(ref):
            yield f"init[{i}]", f"init[{i}]"
    for i, (before, volume) in enumerate(zip(old.volumes, new.volumes, strict=False)):
        if before.image == volume.image:
            yield f"volume[{i}]", f"volumes[{i}]"  # it is noted as volume[...]: nothing is found
    before_all, after_all = _placed(old), _placed(new)
    yield from ((place, place) for place, made in after_all.items() if before_all.get(place) == made)


def _containers(old: Spec, new: Spec) -> Iterator[str]:
    """Containers that stand in the same places in both, if so do all others of their image.

    An image is extracted once, for the first container that has it: taking over a part of them would mix two trees.
    """
    before, after = _placed(old), _placed(new)
    ids_before, ids_after = assign_ids(old), assign_ids(new)
    for ref in {ref for ref, _ in after.values()}:
        group = [place for place, (other, _) in after.items() if other == ref]
        was = [place for place, (other, _) in before.items() if other == ref]
        if was[: len(group)] == group and all(
            before[place] == after[place] and _ids(after[place][1], ids_before) == _ids(after[place][1], ids_after)
            for place in group
        ):
            yield from group


def _placed(spec: Spec) -> dict[str, tuple[str, ContainerSpec]]:
    """Location -> (full reference, the container without it), in the order of the tree."""
    return {
        f"{section}[{i}]": (_expanded(c.image), replace(c, image=""))
        for section in SECTIONS
        for i, c in enumerate(getattr(spec, section))
    }


def _ids(container: ContainerSpec, ids: dict[str, int]) -> list[int | None]:
    names: Iterable[int | str | None] = (container.uid, container.gid, *(container.additional_gids or ()))
    return [ids.get(name) for name in names if isinstance(name, str)]


def _expanded(ref: str) -> str:
    return reference.expand(ref) if ref else ""
