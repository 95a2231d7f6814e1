"""What a section promises, and the one JSON object that says whether it holds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A promise by its name: the measured value is `op` `bound`."""

    name: str
    op: Literal[">=", "<="]
    bound: float

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.op == ">=" else value <= self.bound


@dataclass
class Measured:
    """What a section found: a value per target name, and whatever else belongs into the report."""

    values: dict[str, float] = field(default_factory=dict)
    rounds: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def verdict(section: str, targets: Sequence[Target], measured: Measured) -> dict[str, Any]:
    """The section's report. A target without a value does not hold."""
    rows = []
    for target in targets:
        value = measured.values.get(target.name)
        holds = value is not None and target.holds(value)
        shown = None if value is None else round(value, 4)
        rows.append({"name": target.name, "value": shown, "op": target.op, "bound": target.bound, "holds": holds})
    return {
        "section": section,
        "rounds": measured.rounds,
        "versions": measured.versions,
        "details": measured.details,
        "targets": rows,
    }


def holds(report: Mapping[str, Any]) -> bool:
    return all(row["holds"] for row in report["targets"])


def line(report: Mapping[str, Any]) -> str:
    return json.dumps(report, separators=(", ", ": "))


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios round by round: both halves of a round saw the same machine."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
