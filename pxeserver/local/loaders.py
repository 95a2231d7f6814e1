"""The loader set: the network boot programs in `<data>/loaders` that TFTP hands out, and where each came from.

`index.json` beside the files records version, hash and origin. A file that a person put there by hand is a loader
too; it only has no record. Files appear by rename, so that a transfer never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pxeserver.errors import NotFound, PxeServerError, UsageError, did_you_mean
from pxeserver.serial import from_json, to_json
from pxeserver.when import When

# What `fetch` brings: for BIOS and for UEFI, first by the firmware's own driver of the card, then with iPXE's drivers.
STANDARD = ("undionly.kpxe", "ipxe.pxe", "snponly.efi", "ipxe.efi")
_INDEX = "index.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# PE/COFF machine types that a UEFI firmware can have -> Go spelling of the architecture
_PE_MACHINES = {0x014C: "386", 0x8664: "amd64", 0x01C2: "arm", 0x01C4: "arm", 0xAA64: "arm64", 0x5064: "riscv64"}
_PE_MACHINES |= {0x6264: "loong64"}
_EFI_APPLICATION = 10
# A BIOS loads an NBP at 0x7C00 and hands it what is left below the option ROMs.
_NBP_MAX = 0x9FC00 - 0x7C00
_EFI_MAX = 64 << 20
_NOT_CODE = {
    b"\x7fELF": "an ELF program",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"#!": "a script",
    b"!<arch>": "a package or archive",
}


@dataclass(frozen=True, slots=True)
class Loader:
    """One loader. `state`: whole, changed or missing, as compared with its record; unrecorded without one."""

    name: str
    kind: str  # "bios" or "efi"
    arch: str  # Go spelling, "386" for BIOS
    size: int
    sha256: str
    version: str = ""
    origin: str = ""  # a package, a path
    added: When = 0.0
    state: str = "whole"


def inspect(data: bytes, name: str) -> tuple[str, str]:
    """(kind, arch) of a loader by its bytes; UsageError "loader-bad" when no firmware would start it."""
    is_pe = data[:2] == b"MZ"
    problem = _efi_problem(data) if is_pe else _nbp_problem(data)
    if problem:
        raise UsageError(
            "loader-bad",
            f"{name} is no network boot program: {problem}",
            hint="a BIOS wants a raw NBP such as undionly.kpxe, UEFI an EFI application such as snponly.efi",
        )
    return ("efi", _PE_MACHINES[_pe_field(data, 4)]) if is_pe else ("bios", "386")


def _pe_field(data: bytes, offset: int) -> int:
    """The 16-bit number at `offset` from the PE signature."""
    at = int.from_bytes(data[0x3C:0x40], "little") + offset
    return int.from_bytes(data[at : at + 2], "little")


def _efi_problem(data: bytes) -> str:
    if _pe_field(data, 0) != int.from_bytes(b"PE", "little"):
        return "it is a DOS program"
    subsystem = _pe_field(data, 0x5C)  # the same place in PE32 and PE32+
    if subsystem != _EFI_APPLICATION:
        return f"it is a PE file of subsystem {subsystem}, not an EFI application"
    machine = _pe_field(data, 4)
    if machine not in _PE_MACHINES:
        return f"it is an EFI application for the unknown machine type {machine:#06x}"
    return f"{len(data)} bytes are too many for a loader" if len(data) > _EFI_MAX else ""


def _nbp_problem(data: bytes) -> str:
    if not data:
        return "it is empty"
    if len(data) > _NBP_MAX:
        return f"{len(data)} bytes do not fit below 640 KiB, where a BIOS loads it"
    for magic, what in _NOT_CODE.items():
        if data.startswith(magic):
            return f"it is {what}"
    if all(32 <= byte < 127 or byte in b"\t\n\r" for byte in data):
        return "it is a text file"
    return ""


def checked_name(name: str) -> str:
    """A plain file name that TFTP can carry; UsageError "loader-bad-name" otherwise."""
    if not _NAME.fullmatch(name) or name == _INDEX:
        raise UsageError(
            "loader-bad-name", f'"{name}" cannot name a loader', hint="letters, digits, dots and dashes, at most 64"
        )
    return name


class LoaderSet:
    """The folder `<data>/loaders`; every call reads it anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> tuple[Loader, ...]:
        """Every loader by name: those on disk, and those recorded that are missing."""
        records = self._records()
        names = {p.name for p in self.folder.glob("[!.]*") if p.is_file()} - {_INDEX} if self.folder.is_dir() else set()
        return tuple(self._look(name, records.get(name)) for name in sorted(names | set(records)))

    def get(self, name: str) -> Loader:
        """NotFound "loader-not-found" with the nearest name."""
        loaders = {x.name: x for x in self.list()}
        if name not in loaders:
            raise NotFound(
                "loader-not-found",
                f'no loader "{name}"{did_you_mean(name, loaders)}',
                hint="pxeserver loaders fetch" if name in STANDARD else "pxeserver loaders ls",
            )
        return loaders[name]

    def add(self, data: bytes, name: str, *, version: str = "", origin: str = "") -> Loader:
        """Put a loader into the set, in place of one of that name; UsageError when it is none."""
        kind, arch = inspect(data, checked_name(name))
        loader = Loader(
            name=name,
            kind=kind,
            arch=arch,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            version=version,
            origin=origin,
            added=round(time.time(), 3),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(name, data)
        records = self._records() | {name: loader}
        text = json.dumps({n: to_json(x) for n, x in sorted(records.items())}, indent=1)
        self._write(_INDEX, text.encode() + b"\n")
        return loader

    def _look(self, name: str, record: Loader | None) -> Loader:
        path = self.folder / name
        if not path.is_file():
            assert record is not None, "a name without a file comes from a record"
            return replace(record, state="missing")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if record is not None:
            return replace(record, state="whole" if digest == record.sha256 else "changed")
        try:
            kind, arch = inspect(data, name)
        except UsageError:
            kind, arch = "", ""
        return Loader(name, kind, arch, len(data), digest, added=path.stat().st_mtime, state="unrecorded")

    def _records(self) -> dict[str, Loader]:
        index = self.folder / _INDEX
        if not index.is_file():
            return {}
        try:
            return {name: from_json(Loader, row) for name, row in json.loads(index.read_bytes()).items()}
        except (ValueError, AttributeError) as error:  # not JSON, not a map, not a loader
            raise PxeServerError(
                "loader-index", f"{index} is damaged", hint="remove it; then: pxeserver loaders fetch"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        fresh = self.folder / f".{name}.{os.getpid()}"
        fresh.write_bytes(data)
        fresh.chmod(0o644)  # the serving process may be another user
        fresh.rename(self.folder / name)
