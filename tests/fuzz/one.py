"""One target under atheris for so many seconds: `python tests/fuzz/one.py TARGET SECONDS FOLDER`.

FOLDER keeps the inputs that reached something new, for the next run; what breaks is left there as crash-*.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))
with atheris.instrument_imports(include=["pxeserver", "harness"]):
    import harness


def main() -> None:
    target, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=4096", "-timeout=10"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(corpus)], harness.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
