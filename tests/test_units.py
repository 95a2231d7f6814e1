"""Times and sizes in words."""

from __future__ import annotations

import pytest

from pxeserver import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.04, "0.0s"), (0.34, "0.3s"), (9.94, "9.9s"), (9.96, "10s"), (119, "119s"),
        (120, "2m"), (7199, "120m"), (7200, "2h"), (172800, "2d"), (86400 * 400, "400d"),
    ],
)  # fmt: skip
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("ago", "text"), [(0.2, "0s"), (1.7, "2s"), (9.9, "10s"), (65, "65s"), (600, "10m"), (-5, "0s")]
)
def test_ages_are_whole_and_never_negative(ago: float, text: str) -> None:
    assert units.age(1000.0 - ago, 1000.0) == text


@pytest.mark.parametrize("at", [0, None])
def test_what_never_was_has_no_age(at: float | None) -> None:
    assert units.age(at, 1000.0) == units.when(at) == "never"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_sizes_are_powers_of_1024(count: int, text: str) -> None:
    assert units.size(count) == text
