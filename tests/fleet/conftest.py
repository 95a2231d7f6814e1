"""A fleet with a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleetlab import Clock, make_fleet

from pxeserver.fleet.fleet import Fleet


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Iterator[Fleet]:
    made = make_fleet(tmp_path, clock)
    yield made
    made.close()
