"""`make fuzz SECONDS=N`: every target for N seconds with atheris, and the branch coverage of wire/ by its tests.

Ends with a line per target and exit 1 if one broke or the coverage is below its bound. Where atheris cannot be
installed (Python 3.13 and later), targets get seeds with random changes instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import coverage_of_wire
import harness
import mutate

TOP = Path(__file__).resolve().parents[2]
FOLDER = TOP / "var" / "fuzz"
FLOOD = 1_000_000
LONG = 300  # seconds for each target, from which on the flood is a whole one


def by_atheris(target: str, seconds: int) -> tuple[bool, str]:
    folder = FOLDER / target
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, str(TOP / "tests/fuzz/one.py"), target, str(seconds), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    units = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode:
        return False, f"{done.stderr[-3000:]}\nthe input is in {folder}/crash-*; make it one of the seeds"
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    edges = f", {reached[-1][0]} edges and {reached[-1][1]} features reached" if reached else ""
    return True, f"{units[1] if units else '?'} inputs{edges}"


def by_chance(target: str, seconds: int) -> tuple[bool, str]:
    rng, seeds, end, count = random.Random(), harness.seeds(target), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutate.mutated(rng.choice(seeds), rng)
        count += 1
        try:
            harness.TARGETS[target](data)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}\ninput: {data.hex()}"
    return True, f"{count} inputs, without atheris"


def flooded(count: int) -> tuple[bool, str]:
    """Malformed datagrams against a running server, in namespaces."""
    argv = [sys.executable, "-m", "pytest", "-q", str(TOP / "tests/fuzz/test_flood.py")]
    environ = {**os.environ, "FLOOD": str(count)}
    done = subprocess.run(argv, cwd=TOP, env=environ, capture_output=True, text=True, check=False)
    return done.returncode == 0, f"flood: {count} malformed datagrams, {done.stdout.strip()[-2000:]}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("targets", nargs="*", choices=[*harness.TARGETS, []], default=[])
    given = parser.parse_args()
    run = by_atheris if importlib.util.find_spec("atheris") else by_chance
    broken = False
    for target in given.targets or harness.TARGETS:
        fine, text = run(target, given.seconds)
        broken |= not fine
        print(f"fuzz {target}: {given.seconds} s, {text if fine else 'BROKEN'}", flush=True)
        if not fine:
            print(text)
    if os.geteuid() == 0:
        fine, text = flooded(FLOOD if given.seconds >= LONG else FLOOD // 20)
        broken |= not fine
        print(text)
    else:
        print("flood: not run, it needs root")
    percent = coverage_of_wire.measure()
    print(f"branch coverage of wire/ by tests/wire: {percent:.1f} % (at least {coverage_of_wire.BOUND})")
    return 1 if broken or percent < coverage_of_wire.BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
