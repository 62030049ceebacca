"""Run the benchmarks of this folder, one process each, store their results under ``results/``, and write the tables.

python benchmarks/run.py                  # all of them: three hours on a quiet machine
python benchmarks/run.py losses linear    # these
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "losses",
    "catalogue",
    "labels_and_margins",
    "torch_cpu",
    "fit",
    "dense_pass",
    "scaling",
    "path",
    "linear_sparse",
    "linear",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}; all of them by default")
    names = parser.parse_args().names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    for name in (*names, "tables"):
        print(f"\n=== {name}", flush=True)
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
