"""Servers of this room run on a loop in a thread, so that ordinary blocking clients can test them."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from servelab import Loop, Wire


@pytest.fixture
def loop() -> Generator[Loop, None, None]:
    running = Loop()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def wire() -> Generator[Wire, None, None]:
    made = Wire()
    yield made
    made.close()
