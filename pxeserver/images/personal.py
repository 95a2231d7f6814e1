"""A machine's own files as an initrd of their own: newc cpio, compressed, the same bytes for the same files.

Compressed because it stands behind another initrd. Loaders put it there with padding or without: the kernel finds the
beginning of compressed data anywhere, that of plain cpio only at a multiple of four bytes (init/initramfs.c).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable

from pxeserver.boot.personal import File
from pxeserver.images import entry
from pxeserver.images.cpio import CpioWriter

_MODES = {"root": 0o700}


def initrd(files: Iterable[File]) -> bytes:
    """The archive, with every folder that leads to a file before it."""
    out = io.BytesIO()
    writer = CpioWriter(out)
    made: set[str] = set()
    for file in files:
        for folder in entry.parents(file.path)[:-1]:
            if folder.name not in made:
                made.add(folder.name)
                writer.add(folder._replace(mode=_MODES.get(folder.name, folder.mode)))
        writer.add(entry.text(file.path, file.content, file.mode))
    writer.finish()
    raw = out.getvalue()
    return gzip.compress(raw + bytes(-len(raw) % 512), compresslevel=6, mtime=0)
