"""Tables for pipes, words for people."""

from __future__ import annotations

import json

import pytest

from pxeserver.cli import output
from pxeserver.model import Blob


def test_a_pipe_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "SPEC"), [("web-1", "web"), ("m", None)])
    assert capsys.readouterr().out == "NAME   SPEC\nweb-1  web\nm      -\n"


def test_no_rows_is_talk_not_data(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [], empty="no machines")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "no machines\n")


def test_json_has_the_names_of_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit([Blob("sha256:aa", 5)], "json", lambda: pytest.fail("a table was asked for"))
    assert json.loads(capsys.readouterr().out) == [{"digest": "sha256:aa", "size": 5, "raw_size": 0}]


def test_fields_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.fields([("name", "web-1"), ("arch", ""), ("script", "a\nb")])
    assert capsys.readouterr().out == "name    web-1\nscript  a\n        b\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.34, "0.3s"), (12.4, "12s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024**2 - 1, "1.0 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


def test_ages() -> None:
    assert output.age(0) == "never"
    assert output.age(100.0, now=99.0) == "0s"
    assert output.age(100.0, now=400.0) == "5m"
