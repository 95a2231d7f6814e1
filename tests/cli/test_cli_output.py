"""Tables for pipes, words for people."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from pxeserver.cli import output
from pxeserver.cli.timeline import show_timeline
from pxeserver.fleet.values import BootRecord, StageRecord
from pxeserver.model import Blob, Result, Stage


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


RECORD = BootRecord(
    "0123456789abcdef",
    1,
    "web-1",
    "52:54:00:00:00:01",
    started=1000.0,
    last=1040.0,
    ended=1040.0,
    stage=Stage.UP,
    result=Result.UP,
    stages={
        Stage.OFFER: StageRecord(1000.0, 1000.0, 2),
        Stage.INITRD: StageRecord(1010.0, 1010.0, bytes=5 << 20),
        Stage.UP: StageRecord(1040.0, 1040.0),
    },
)


def test_a_timeline_in_a_pipe_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_timeline(RECORD, 9999.0)
    assert capsys.readouterr().out.splitlines() == [
        "STAGE   AT      TOOK   BYTES    TIMES",
        "offer   +0.0s   10.0s  -        2",
        "initrd  +10.0s  30.0s  5.0 MiB  -",
        "up      +40.0s  0.0s   -        -",
    ]


def on_a_terminal(code: str, **environ: str) -> str:
    """What a Python program prints on a terminal of 100 columns."""
    here, there = pty.openpty()
    values = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "100"} | environ
    with subprocess.Popen([sys.executable, "-c", code], stdout=there, stdin=there, env=values) as process:
        os.close(there)
        text = b""
        try:
            while piece := os.read(here, 65536):
                text += piece
        except OSError:  # how Linux says that nobody has the other end open any more
            pass
        assert process.wait() == 0
    os.close(here)
    return text.decode()


TIMELINE = """
from pxeserver.cli.timeline import show_timeline
from pxeserver.fleet.values import BootRecord, StageRecord
from pxeserver.model import Result, Stage
stages = {Stage.OFFER: StageRecord(1000.0, 1000.0), Stage.INITRD: StageRecord(1010.0), Stage.UP: StageRecord(1040.0)}
show_timeline(BootRecord("a", 1, "n", "m", 1000.0, 1040.0, Stage.UP, Result.UP, 1040.0, stages=stages), 0)
"""


def test_a_timeline_on_a_terminal_has_bars_in_proportion() -> None:
    text = on_a_terminal(TIMELINE)
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    bars = {line.split()[0]: (line.index("█"), line.count("█")) for line in plain.splitlines()}
    assert bars["offer"][1] == 10 and bars["initrd"][1] == 30 and bars["up"][1] == 1
    assert bars["initrd"][0] == bars["offer"][0] + 10


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_gets_what_a_pipe_gets(environ: dict[str, str]) -> None:
    text = on_a_terminal(TIMELINE, **environ)
    assert "\x1b" not in text and "█" not in text and "+10.0s  30.0s" in text


def test_a_table_on_a_terminal_colours_states_and_folds_nothing_away() -> None:
    name = "m" * 90
    code = f"from pxeserver.cli import output\noutput.table(('NAME', 'STATE'), [('{name}', 'stuck'), ('[b]x', 'up')])"
    text = on_a_terminal(code)
    assert "\x1b[1;31mstuck" in text and "\x1b[32mup" in text and "[b]x" in text
    assert len(re.findall("m", re.sub(r"\x1b\[[0-9;]*m", "", text))) == 90
