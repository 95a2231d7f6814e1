"""docs/api.md lists every route with its parameters, and every field of every value that the API sends."""

from __future__ import annotations

import dataclasses
import re
import typing
from enum import EnumType
from pathlib import Path

import pytest
from fleetlab import make_fleet

from pxeserver import checked
from pxeserver.fleet import values
from pxeserver.web import bodies
from pxeserver.web.app import create_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
SENT = (
    values.Status,
    values.MachineRow,
    values.MachineDetail,
    values.Change,
    values.Explanation,
    values.Rendering,
    values.BootRecord,
    values.BootDetail,
    values.EventRecord,
    values.SpecInfo,
    values.Image,
)
RECEIVED = (bodies.MachineBody, bodies.AssignmentBody, bodies.AssignmentsBody, bodies.PinBody)


def value_types() -> list[type]:
    """What SENT is made of: every dataclass within, each once."""
    found: dict[type, None] = {}

    def walk(kind: object) -> None:
        for argument in typing.get_args(kind):
            walk(argument)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind not in found:
            found[kind] = None
            for hint in typing.get_type_hints(kind).values():
                walk(hint)

    for kind in SENT:
        walk(kind)
    return list(found)


def table(heading: str) -> list[str]:
    """First cells of the table below `### heading`."""
    found = re.search(rf"^### {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/api.md has no ### {heading}"
    return re.findall(r"^\| `([^`]+)`", found[1], re.MULTILINE)


def test_every_route_is_listed_and_every_listed_route_exists(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    rules = create_app(fleet, fleet.config).url_map.iter_rules()
    fleet.close()
    real = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).removeprefix("/api/v1"))
        for rule in rules
        if rule.endpoint.startswith("api.") and rule.endpoint != "api.nowhere"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    listed = re.findall(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(real)


@pytest.mark.parametrize("kind", value_types(), ids=lambda k: k.__name__)
def test_every_field_is_listed(kind: type) -> None:
    assert table(kind.__name__) == [f.name for f in dataclasses.fields(kind)]


@pytest.mark.parametrize("kind", RECEIVED, ids=lambda k: k.__name__)
def test_every_field_of_a_body_is_listed(kind: type[checked.Part]) -> None:
    assert table(kind.__name__.removesuffix("Body") + " body") == list(checked.fields(kind))


@pytest.mark.parametrize("name", ["Stage", "Result", "Policy"])
def test_every_word_of_a_closed_set_is_listed(name: str) -> None:
    from pxeserver import model

    kind: EnumType = getattr(model, name)
    assert table(name) == [str(member) for member in kind]  # type: ignore[var-annotated]
