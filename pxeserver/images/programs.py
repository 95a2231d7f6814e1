"""Running the distribution's programs that make file systems and disks: the same result whoever calls, or one error."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pxeserver.errors import PxeServerError
from pxeserver.images.entry import FIXED_TIME
from pxeserver.images.writers import Sink
from pxeserver.tools import find_tool

_LINES = 3


def run(
    argv: Sequence[str | Path], feed: Callable[[Sink], None] | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a program whose time is LinuxKit's fixed one, zone and language are none; `feed` writes its standard input.

    PxeServerError "tool-failed" with what the program said last. It ends when feeding fails.
    """
    tool = str(argv[0])
    words = [find_tool(tool) or tool, *map(str, argv[1:])]
    fixed = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}
    fixed |= {"SOURCE_DATE_EPOCH": str(FIXED_TIME), "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1", **(env or {})}
    with tempfile.TemporaryFile() as said:
        source = subprocess.PIPE if feed else subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                words, stdin=source, stdout=said, stderr=said, env={k: v for k, v in fixed.items() if v}
            )
        except OSError as error:
            raise PxeServerError("tool-failed", f"{tool}: {error.strerror}") from None
        try:
            if feed is not None:
                assert process.stdin is not None
                with suppress(BrokenPipeError), process.stdin as pipe:  # then its own words say why
                    feed(pipe)
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status:
            said.seek(0)
            lines = said.read()[-4000:].decode(errors="replace").strip().splitlines()
            raise PxeServerError("tool-failed", f"{tool}: {'; '.join(lines[-_LINES:]) or f'exit {status}'}")
