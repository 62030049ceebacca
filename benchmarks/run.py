"""Run every benchmark of this folder, one process each, and store their results under ``results/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    for name in ("losses.py", "catalogue.py", "labels_and_margins.py", "torch_cpu.py", "fit.py", "tables.py"):
        print(f"\n=== {name}", flush=True)
        code = subprocess.run([sys.executable, str(HERE / name)], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
