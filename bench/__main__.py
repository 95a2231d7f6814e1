"""Run sections; the last line of each is its report as one JSON object. Exit 1 if a target is missing or does not hold.

python -m bench [SECTION ...] [--rounds N] [--scale X]
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from dataclasses import dataclass

import bench
from bench.targets import holds, line, verdict


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` 0: the section's own number. `scale` < 1 makes everything smaller, to try a section out."""

    rounds: int = 0
    scale: float = 1.0


def sections() -> list[str]:
    """The modules that have TARGETS and measure(options) -> Measured."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__, "") if module.name in _KNOWN)


_KNOWN = ("boots", "build", "dhcp", "dns", "http", "storm", "tftp")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections()))
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    unknown = sorted(set(given.sections) - set(sections()))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(sections())}")
    good = True
    for name in given.sections or sections():
        print(f"== {name}", file=sys.stderr, flush=True)
        section = importlib.import_module(f"bench.{name}")
        report = verdict(name, section.TARGETS, section.measure(Options(given.rounds, given.scale)))
        print(line(report), flush=True)
        good = good and holds(report)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
