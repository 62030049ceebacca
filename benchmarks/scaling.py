"""How the time and memory of an exact linear fit grow with the rows: n × 20, 5 classes, drawn from a softmax model.

One thread, processor time, one process a size; memory is what the fit takes at most beside the data and the
interpreter, on Linux. Stores ``results/scaling.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import forget_peak, machine, resident

RESULTS = Path(__file__).resolve().parent / "results" / "scaling.json"
SIZES = (10_000, 100_000, 1_000_000)


def measure(rows: int) -> dict[str, Any]:
    """One fit, in this process."""
    from kullback import SoftmaxClassifier

    rng = np.random.default_rng(0)
    weights = 0.5 * rng.normal(size=(20, 5)).astype(np.float32)
    X = rng.standard_normal((rows, 20), dtype=np.float32)
    y = (X @ weights + rng.gumbel(size=(rows, 5)).astype(np.float32)).argmax(axis=1)
    SoftmaxClassifier(tol=0.1).fit(X[:500], y[:500])  # imports, thread pools
    before = resident("VmRSS")
    forget_peak()
    start = time.process_time()
    found = SoftmaxClassifier().fit(X, y).certificate_
    return {
        "rows": rows,
        "seconds": round(time.process_time() - start, 3),
        "passes": found.passes,
        "relative_gap": found.relative_gap,
        "data_mb": round(X.nbytes / 2**20, 1),
        "more_mb": round((resident("VmHWM") - before) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", type=int, help="one size, in this process")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KULLBACK_NUM_THREADS"), "1")
    results = []
    for rows in SIZES:
        command = [sys.executable, __file__, "--child", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **one})
        results.append(json.loads(done.stdout))
        print(results[-1], flush=True)
    content = {"machine": {**machine("scipy"), "threads": 1, "clock": "cpu"}, "results": results}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
