"""Programs of the distribution that we call."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pxeserver.errors import Refused

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # not in everybody's PATH


def find_tool(tool: str) -> str | None:
    """The program's path; those for administrators too."""
    return shutil.which(tool) or shutil.which(tool, path=_SYSTEM + os.pathsep + os.environ.get("PATH", ""))


def need_tools(tools: Mapping[str, str]) -> None:
    """Refused "tool-missing", naming the first program that is missing and the package that has it."""
    for tool, package in tools.items():
        if find_tool(tool) is None:
            raise Refused("tool-missing", f"{tool} is not installed", hint=f"apt-get install {package}")


def need_files(files: Mapping[Path, str]) -> None:
    """The same for files that a package brings."""
    for path, package in files.items():
        if not path.is_file():
            raise Refused("tool-missing", f"{path} is not installed", hint=f"apt-get install {package}")
