"""The network of the simulators' tests: one for the session, servers of each test its own."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from simnet import Net


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Generator[Net, None, None]:
    made = Net(tmp_path_factory.mktemp("net"))
    yield made
    made.close()
