"""What copying a program needs to know of its ELF file: which libraries, which loader (System V gABI, ELF-64)."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


class Needs(NamedTuple):
    interpreter: str  # absolute path of the dynamic loader, "" for a library or a static program
    libraries: tuple[str, ...]  # sonames


def needs(path: Path) -> Needs | None:
    """None when the file is no 64-bit little-endian ELF file. ValueError when it is one but broken."""
    with path.open("rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read(data)
            except (struct.error, IndexError) as error:
                raise ValueError(f"broken ELF file {path}: {error}") from None


def _read(data: mmap.mmap) -> Needs:
    offset, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + n * size) for n in range(count)]
    interpreter, entries = "", []
    for kind, _, start, _, _, length, _, _ in segments:
        if kind == _PT_INTERP:
            interpreter = data[start : start + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            entries = [struct.unpack_from("<qQ", data, start + n) for n in range(0, length, 16)]
    wanted = [value for tag, value in entries if tag == _DT_NEEDED]
    table = next((value for tag, value in entries if tag == _DT_STRTAB), 0)
    at = next((table - v + o for k, _, o, v, _, n, _, _ in segments if k == _PT_LOAD and v <= table < v + n), 0)
    return Needs(interpreter, tuple(data[at + w : data.find(b"\0", at + w)].decode() for w in wanted))
