"""Names that firmware asks for -> files of the loader set. Nothing outside the folder is ever found."""

from __future__ import annotations

import os
import stat
from pathlib import Path

AUTOEXEC = "autoexec.ipxe"


def is_autoexec(path: str) -> bool:
    """iPXE looks for it beside the loader it was started from, whatever folder that was."""
    return path.rpartition("/")[2].lower() == AUTOEXEC


def find_loader(folder: Path, path: str) -> Path | None:
    """The file of `folder` for a relative path; firmware that changes the case of names still finds it.

    Symbolic links are followed as long as they stay inside.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or any(part.startswith(".") for part in parts):
        return None
    found, linked = str(folder), False
    try:
        for part in parts:
            try:
                mode = os.lstat(f"{found}/{part}").st_mode
            except FileNotFoundError:
                (part,) = [name for name in os.listdir(found) if name.lower() == part.lower()]
                mode = os.lstat(f"{found}/{part}").st_mode
            found = f"{found}/{part}"
            linked = linked or stat.S_ISLNK(mode)
        if not linked:
            return Path(found) if stat.S_ISREG(mode) else None
        real = Path(found).resolve()
        return real if real.is_relative_to(folder.resolve()) and real.is_file() else None
    except OSError:  # a part that is no folder
        return None
    except ValueError:  # none, or several that differ in case
        return None
