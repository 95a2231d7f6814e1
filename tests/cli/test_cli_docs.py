"""docs/cli.md has every command with the very help that it prints; `--update-goldens` writes the help anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pxeserver.cli.main import VERBS, cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
WIDTH = 100


def commands(group: click.Group, parent: click.Context) -> Iterator[tuple[str, str]]:
    """(full name, help) of every command below `group`; groups before their commands."""
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None, name
        if command.hidden:
            continue
        context = click.Context(command, parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            yield from commands(command, context)


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    root = click.Context(
        cli, info_name="pxeserver", terminal_width=WIDTH, max_content_width=WIDTH, **cli.context_settings
    )
    return {"pxeserver": cli.get_help(root), **dict(commands(cli, root))}


def sections(text: str) -> dict[str, str]:
    """Command -> what stands below its heading `## pxeserver ...`."""
    parts = re.split(r"^##+ `(pxeserver[^`]*)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def block(help_text: str) -> str:
    return f"```text\n{help_text.rstrip()}\n```"


def test_every_command_stands_there_with_its_help(helps: dict[str, str], update_goldens: bool) -> None:
    text = PAGE.read_text()
    if update_goldens:
        for name, help_text in helps.items():
            if name not in sections(text):
                text = text.rstrip() + f"\n\n## `{name}`\n\n{block('')}\n"
            head, mark, tail = text.partition(f"## `{name}`\n")
            text = (
                head
                + mark
                + re.sub(r"```text\n.*?```", lambda _, h=help_text: block(h), tail, count=1, flags=re.DOTALL)
            )
        PAGE.write_text(text)
    found = sections(text)
    assert list(found) == list(helps), "the page has these commands, in this order"
    wrong = [name for name, help_text in helps.items() if block(help_text) not in found[name]]
    assert not wrong, "pytest tests/cli/test_cli_docs.py --update-goldens"


def test_every_verb_says_in_its_own_words_what_the_table_says_of_it(helps: dict[str, str]) -> None:
    for verb in VERBS:
        assert len(helps[f"pxeserver {verb}"].splitlines()) > 3, verb


def test_every_exit_code_is_explained() -> None:
    from pxeserver import errors

    kinds = [errors.PxeServerError, *errors.PxeServerError.__subclasses__()]
    text = PAGE.read_text()
    for kind in kinds:
        assert re.search(rf"^\| {kind.exit_code} \|", text, re.MULTILINE), kind
