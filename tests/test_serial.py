"""Values survive the way to JSON and back, times as RFC 3339."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pxeserver.model import Assignment, Blob, Event, Image, Machine, Pin, Stage
from pxeserver.serial import from_json, to_json
from pxeserver.when import rfc3339, unix_seconds

VALUES = [
    Image("sha256:aa", "web", Blob("d", 1), Blob("e", 2), "quiet", "amd64", 1700000000.25, ("web:latest",)),
    Event(1.5, "offer", "52:54:00:00:00:01", stage=Stage.OFFER, data={"arch": "7"}),
    Machine(1, "web-1", ("52:54:00:00:00:01",), labels={"rack": "r1"}, cmdline=("-quiet",), pin=Pin("binl", "x")),
    Assignment(1, "web", "sha256:aa", 3, args=("a=b",), at=0.0),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_there_and_back(value: object) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_times_are_rfc3339_in_utc_and_never_is_null() -> None:
    assert to_json(VALUES[0])["created"] == "2023-11-14T22:13:20.250Z"
    assert to_json(VALUES[3])["at"] is None


@given(st.floats(min_value=0.001, max_value=4e9))
def test_times_keep_their_milliseconds(seconds: float) -> None:
    assert abs(unix_seconds(rfc3339(seconds)) - seconds) <= 0.000501


def test_something_else_is_refused() -> None:
    with pytest.raises(ValidationError):
        from_json(Machine, {"id": "x"})
