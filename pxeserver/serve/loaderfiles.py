"""Names that firmware asks for -> files of the loader set. Nothing outside the folder is ever found."""

from __future__ import annotations

from pathlib import Path

AUTOEXEC = "autoexec.ipxe"


def is_autoexec(path: str) -> bool:
    """iPXE looks for it beside the loader it was started from, whatever folder that was."""
    return path.rpartition("/")[2].lower() == AUTOEXEC


def find_loader(folder: Path, path: str) -> Path | None:
    """The file of `folder` for a relative path; firmware that changes the case of names still finds it.

    Symbolic links are followed as long as they stay inside.
    """
    root = folder.resolve()
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or any(part.startswith(".") for part in parts):
        return None
    found = root
    try:
        for part in parts:
            exact = found / part
            if not exact.exists():
                (exact,) = [entry for entry in found.iterdir() if entry.name.lower() == part.lower()]
            found = exact
        real = found.resolve()
        return real if real.is_relative_to(root) and real.is_file() else None
    except OSError:  # a name longer than any, a part that is no folder
        return None
    except ValueError:  # none, or several that differ in case
        return None
