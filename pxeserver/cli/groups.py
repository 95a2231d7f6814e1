"""A verb with sub-verbs: one of them is meant when none is typed, and typing errors get the nearest one."""

from __future__ import annotations

from typing import Any

import click

from pxeserver.errors import did_you_mean


class VerbGroup(click.Group):
    """`default` is the sub-verb that runs when none is named: `pxeserver machines` lists machines."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default
        self.no_args_is_help = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option where a sub-verb is expected belongs to the default one."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            known = did_you_mean(args[0], self.commands) or " - one of: " + ", ".join(sorted(self.commands))
            raise click.UsageError(f'no command "{ctx.info_name} {args[0]}"{known}', ctx)
        return super().resolve_command(ctx, args)
