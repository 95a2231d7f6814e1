"""Where the files of a build go, and how one gets there: whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pxeserver.errors import PxeServerError


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go: FOLDER/NAME-...; a streamable form to `stream` or `file` when one is given.

    `exact`: an initrd inside another file has LinuxKit's very bytes, which takes long (about 2 s for each MiB).
    """

    folder: Path
    name: str
    stream: BinaryIO | None = None
    file: Path | None = None
    exact: bool = False
    size: int = 0  # bytes of a disk whose size is given; 0 = its form's own

    def path(self, ending: str) -> Path:
        return self.folder / (self.name + ending)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name, with mode 0644, only when it is whole."""
    if path.is_dir():
        raise PxeServerError("output-not-written", f"cannot write {path}: it is a folder", hint="name a file in it")
    if path.is_char_device() or path.is_fifo():
        try:
            with path.open("wb") as file:
                yield file
        except OSError as error:
            error.filename = error.filename or str(path)  # a device that is full; what else fails names itself
            raise
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            os.fchmod(file.fileno(), 0o644)
        temporary.rename(path)
    except OSError as error:
        if error.filename not in (str(temporary), None):
            raise
        raise PxeServerError("output-not-written", f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def copied(source: Path, to: Path) -> Path:
    with whole_file(to) as out, source.open("rb") as file:
        shutil.copyfileobj(file, out, 1 << 20)
    return to


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """The same for a file that another program writes: gives the path where it is made."""
    with whole_file(path) as file:
        yield Path(file.name)


def write_cmdline(cmdline: str, target: Target) -> Path:
    """BASE-cmdline: the text and nothing else."""
    path = target.path("-cmdline")
    with whole_file(path) as file:
        file.write(cmdline.encode("utf-8", "surrogateescape"))
    return path
