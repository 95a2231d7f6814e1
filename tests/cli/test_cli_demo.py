"""What the demo shows of a boot."""

from __future__ import annotations

import pytest

from pxeserver.cli import demo
from pxeserver.fleet.values import BootRecord, StageRecord
from pxeserver.model import Stage


def record(*stages: tuple[Stage, float, int]) -> BootRecord:
    entries = {stage: StageRecord(at=at, bytes=sent) for stage, at, sent in stages}
    return BootRecord("00" * 8, 1, "demo-1", "52:54:00:77:00:01", 100.0, stages[-1][1], stages[-1][0], stages=entries)


def test_each_stage_is_one_line_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    show = demo.Lines(100.0)
    offer, kernel = (Stage.OFFER, 102.6, 0), (Stage.KERNEL, 106.25, 14 << 20)
    for state in (None, record(offer), record(offer), record(offer, kernel)):
        show(state)
    assert capsys.readouterr().out.splitlines() == [
        "   2.6 s  offer       the proxyDHCP offer beside the site's own DHCP server",
        "   6.2 s  kernel      the kernel  14.0 MiB",
    ]


def test_a_page_as_text() -> None:
    page = (
        "<!doctype html><html><head><title>t</title><style>h1 { color: red }</style></head><body>"
        "<h1>web &amp; more</h1>\n<p>No disk\nhere.</p><table><tr><th>MAC</th><td>52:54</td></tr></table></body></html>"
    )
    assert demo.as_text(page) == "  web & more\n  No disk here.\n  MAC 52:54"
