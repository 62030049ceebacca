"""Whole processes, as a user runs them: start-up, and ``kullback fit`` on real tables and on a million rows.

Prints a table and stores ``results/fit.json``. Times are wall clock of the whole process, memory its peak resident
set; medians over the stated number of runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
from machine import machine

RESULTS = Path(__file__).resolve().parent / "results" / "fit.json"
KULLBACK = [sys.executable, "-m", "kullback"]


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak megabytes and standard output of one process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} exited with {process.returncode}:\n{err.read().decode()}")
        return seconds, usage.ru_maxrss / 1024, out.read().decode()


def measure(command: list[str], runs: int) -> dict[str, Any]:
    """Median seconds, the spread and the largest peak of several runs."""
    results = [run(command) for _ in range(runs)]
    seconds = [result[0] for result in results]
    return {
        "seconds": round(statistics.median(seconds), 3),
        "fastest": round(min(seconds), 3),
        "slowest": round(max(seconds), 3),
        "peak_mb": round(max(result[1] for result in results)),
        "runs": runs,
        "output": results[-1][2],
    }


def start_up() -> dict[str, Any]:
    """The import and the help screen; a bare interpreter and NumPy alone for comparison."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import kullback": [sys.executable, "-c", "import kullback"],
        "kullback --help": [*KULLBACK, "--help"],
    }
    for command in commands.values():
        run(command)  # once, so that byte code is compiled and files are cached
    return {name: {k: v for k, v in measure(c, 5).items() if k != "output"} for name, c in commands.items()}


def _figures(printed: str) -> dict[str, Any]:
    """What is worth keeping of a command's JSON: no paths, no rows."""
    return {
        name: value for name, value in json.loads(printed).items() if name in ("metrics", "temperature", "training")
    }


def fits() -> dict[str, Any]:
    """``kullback fit`` on each table; the test figures come from its own JSON."""
    train, test = datasets.fashion_mnist()
    cases = {
        "letter": (datasets.letter(), "letter", [], None, 3),
        "flights": (datasets.flights(), "carrier", ["--drop", "tailnum", "--drop", "flight"], None, 1),
        "fashion_mnist": (train, "label", [], test, 1),
        "million_rows": (datasets.synthetic(), "label", [], None, 3),
    }
    results = {}
    for name, (path, target, options, extra_test, runs) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            command = [*KULLBACK, "fit", str(path), "--target", target, "--out", str(out), "--overwrite", "--json"]
            result = measure([*command, *options], runs)
            result["fit"] = _figures(result.pop("output"))
            result["options"] = ["--target", target, *options]
            if extra_test is not None:
                _, _, printed = run([*KULLBACK, "evaluate", str(out), str(extra_test), "--json"])
                result["evaluate"] = _figures(printed)
            results[name] = result
            print(f"{name:>14}: {result['seconds']:.2f} s, peak {result['peak_mb']} MB", flush=True)
    return results


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    content = {"machine": machine("pyarrow", "scikit-learn"), "start_up": start_up()}
    for name, figures in content["start_up"].items():
        print(f"{name:>16}: {figures['seconds'] * 1000:.0f} ms")
    content["fit"] = fits()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"stored {RESULTS.name}")


if __name__ == "__main__":
    main()
