"""Request bodies and query parameters: strict, every fault named with its field and the nearest right one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from flask import request

from pxeserver import yamlpos
from pxeserver.checked import After, Part
from pxeserver.errors import UsageError, Where
from pxeserver.fleet.values import AssignOrder, MachineEdit
from pxeserver.web.problems import unknown_parameter

B = TypeVar("B", bound=Part)
T = TypeVar("T")


def _some(targets: tuple[str, ...]) -> tuple[str, ...]:
    if not targets:
        raise ValueError("must name one machine or more")
    return targets


class MachineBody(Part):
    """POST /machines, PUT and PATCH /machines/{id}; in a PATCH a label or var with null goes away."""

    name: str | None = None
    macs: tuple[str, ...] | None = None
    labels: Mapping[str, str | None] | None = None
    vars: Mapping[str, str | None] | None = None
    cmdline: tuple[str, ...] | None = None
    template: str | None = None

    def edit(self) -> MachineEdit:
        return MachineEdit(self.name, self.macs, self.labels, self.vars, self.cmdline, self.template)

    def whole(self) -> MachineEdit:
        """What is not named is empty (PUT); the MACs must be there."""
        return MachineEdit(
            self.name or "",
            self.macs or (),
            self.labels or {},
            self.vars or {},
            self.cmdline or (),
            self.template or "",
            whole=True,
        )


class AssignmentBody(Part):
    """PUT /machines/{id}/assignment."""

    what: str
    follow: bool = False
    args: tuple[str, ...] = ()
    reason: str = ""
    by: str = "api"
    force: bool = False

    def order(self) -> AssignOrder:
        return AssignOrder(self.what, self.follow, self.args, self.reason, self.by, self.force)


class AssignmentsBody(AssignmentBody):
    """POST /assignments: the same for several machines at once."""

    targets: Annotated[tuple[str, ...], After(_some)]


class PinBody(Part):
    """PUT /machines/{id}/pin; null leaves a part alone, "" takes it away."""

    style: str | None = None
    loader: str | None = None


def body(model: type[B]) -> B:
    """The JSON body of this request as `model`. UsageError: body-not-json, body-unknown-key, body-type, ..."""
    if not request.is_json:
        kind = request.mimetype or "no type"
        raise UsageError("body-not-json", f"the body is {kind}", hint="send Content-Type: application/json")
    try:
        data = json.loads(request.get_data(), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise UsageError("body-not-json", f"the body is not JSON: {error}") from None
    return yamlpos.validate(model, yamlpos.Document({}, "body"), slug="body", data=data)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twin = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise UsageError("body-duplicate-key", f'"{twin}" is given twice', where=Where("body", field=twin))
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class Query:
    """The query parameters of this request; one that no `take` asked for is an error."""

    def __init__(self, *known: str) -> None:
        for name in request.args:
            if name not in known:
                raise unknown_parameter(name, known)

    def text(self, name: str) -> str:
        return request.args.get(name, "")

    def take(self, name: str, read: Callable[[str], T], default: T) -> T:
        """`read` of the parameter's text; UsageError "parameter-value" when it raises ValueError."""
        value = request.args.get(name)
        if value is None:
            return default
        try:
            return read(value)
        except ValueError as error:
            raise UsageError("parameter-value", f"{name}={value}: {error}", where=Where(field=name)) from None


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A reader for `Query.take`: decimal or 0x hex, from `low` to `high`."""

    def read(text: str) -> int:
        value = int(text, 0 if text.lower().startswith("0x") else 10)
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}")
        return value

    return read


def yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"
