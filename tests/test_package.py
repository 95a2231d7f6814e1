"""The wheel carries all that the program needs: templates, configuration, run-time files of the base images."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def test_the_wheel_has_every_shipped_file(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "pxeserver", "templates", "config"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout.split()
    want = {name if name.startswith("pxeserver/") else f"pxeserver/data/{name}" for name in tracked}
    assert want - inside == set()
    assert not [name for name in inside if "__pycache__" in name]

    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = "import pxeserver; from pxeserver.resources import shipped; print(pxeserver.__file__, shipped('config'))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(unpacked)}, capture_output=True, text=True
    )
    package, config = ran.stdout.split()
    assert Path(package).parent == unpacked / "pxeserver"
    assert (Path(config) / "pxeserver.yaml").is_file() and unpacked in Path(config).parents
