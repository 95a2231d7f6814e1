"""What the root command's options say, resolved when a verb needs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from pxeserver import config as configuration


@dataclass
class Context:
    """`config` is loaded once, on first use, so that `--help` works with a broken file."""

    config_file: Path | None = None
    data: Path | None = None
    server: str | None = None
    token: str | None = None

    @cached_property
    def config(self) -> configuration.Config:
        data = None if self.data is None else str(self.data.absolute())
        return configuration.load(self.config_file, flags={"server.data": data})


pass_context = click.make_pass_decorator(Context)
