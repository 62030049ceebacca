"""The main job on the two shipped data sets: from a data file to a calibrated model and a report.

Run by ``make demo``; results go to ``out/`` in the current folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = [
    ("Penguins: one species per bird", "penguins/penguins.csv", "species", "out/penguins"),
    ("Films: any number of genres per film", "movies/movies.csv", "genres", "out/movies"),
]


def main() -> int:
    """Fit both, and say where the reports are."""
    for title, data, target, out in RUNS:
        path = HERE / data
        print(f"\n=== {title}\n$ kullback fit {data} --target {target} --out {out} --overwrite\n", flush=True)
        command = [sys.executable, "-m", "kullback", "fit", str(path), "--target", target, "--out", out, "--overwrite"]
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    print("\nReports to open in a browser:")
    for *_, out in RUNS:
        print(f"  {Path(out, 'report.html').resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
