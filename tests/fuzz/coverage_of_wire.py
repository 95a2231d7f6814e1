"""How much of wire/ its own tests reach, branches counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BOUND = 95.0  # percent


def measure() -> float:
    """Percent of lines and branches of pxeserver/wire that tests/wire runs, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "COVERAGE_FILE": f"{folder}/data", "HYPOTHESIS_PROFILE": "few"}
        run = [sys.executable, "-m", "coverage", "run", "--branch", "--include=pxeserver/wire/*"]
        tests = ["-m", "pytest", "-p", "no:xdist", "-o", "addopts=", "-q", "--import-mode=importlib", "--assert=plain"]
        run += [*tests, "tests/wire"]
        done = subprocess.run(run, cwd=TOP, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"tests/wire failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        report = [sys.executable, "-m", "coverage", "json", "-q", "-o", f"{folder}/report.json"]
        subprocess.run(report, cwd=TOP, env=environ, check=True)
        totals = json.loads(Path(folder, "report.json").read_text())["totals"]
        return float(totals["percent_covered"])
