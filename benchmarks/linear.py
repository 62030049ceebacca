"""Time to a known-optimal multinomial model: Kullback against scikit-learn's solvers and Cyanure.

Every solver minimises the same objective, C·Σ loss + ½‖W‖² with a free intercept, at C = 1. What each reaches is
recomputed in float64 and compared with a lower bound of the optimum that is proved (a duality gap below 1e-10), not
with another solver's answer. Each solver runs at a ladder of its own tolerances, and what counts is the fastest of
its runs that lies within the stated true gap: nobody is judged by a stopping rule that is too cautious.

A solver on one data set is one process, with the same threads for all. Prints a table and stores
``results/linear.json``. Only solvers of this objective take part: liblinear and Snap ML fit one class against the
rest, which is another model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "linear.json"
GAPS = (1e-3, 1e-6)
# A solver gets this long on one data set for its whole ladder, by the clock in use.
SECONDS = 100.0
REPEAT_BELOW = 3.0

Matrix = Any


# ---------------------------------------------------------------- data


def _standardised(X: Matrix) -> Matrix:
    spread = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _encoded(path: Path, target: str, drop: tuple[str, ...] = (), most: int = 100) -> tuple[Matrix, Matrix]:
    """Numbers standardised, missing ones at their mean; the `most` frequent levels of words as 0/1 columns."""
    import pandas as pd

    frame = pd.read_parquet(path).drop(columns=list(drop))
    y = np.unique(frame.pop(target).astype(str), return_inverse=True)[1]
    columns = []
    for _name, values in frame.items():
        if pd.api.types.is_numeric_dtype(values):
            columns.append(_standardised(values.fillna(values.mean()).to_numpy(float)[:, None]))
        else:
            words = values.astype(str)
            levels = words.value_counts().index[:most]
            columns.append((words.to_numpy()[:, None] == levels.to_numpy()[None, :]).astype(float))
    return np.hstack(columns), y


def _letter() -> tuple[Matrix, Matrix]:
    table = np.genfromtxt(datasets.letter(), delimiter=",", dtype=str, skip_header=1)
    return table[:, :16].astype(float), np.unique(table[:, 16], return_inverse=True)[1]


def _digits() -> tuple[Matrix, Matrix]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, y


def _shuttle() -> tuple[Matrix, Matrix]:
    import pandas as pd

    frame = pd.read_parquet(datasets.shuttle())
    y = np.unique(frame.pop("Class"), return_inverse=True)[1]
    return frame.to_numpy(float), y


def _mnist() -> tuple[Matrix, Matrix]:
    with np.load(datasets.mnist()) as held:
        return held["X"], held["y"]


def _fashion() -> tuple[Matrix, Matrix]:
    import pandas as pd

    frame = pd.concat([pd.read_parquet(path) for path in datasets.fashion_mnist()])
    y = frame.pop("label").to_numpy().astype(int)
    return frame.to_numpy(np.float32) / np.float32(255), y


DATA: dict[str, Callable[[], tuple[Matrix, Matrix]]] = {
    "letter": lambda: (_standardised(_letter()[0]), _letter()[1]),
    "letter_raw": _letter,
    "digits": _digits,
    "diamonds": lambda: _encoded(datasets.diamonds(), "cut"),
    "mnist": _mnist,
    "shuttle": lambda: (_standardised(_shuttle()[0]), _shuttle()[1]),
    "shuttle_raw": _shuttle,
    "flights": lambda: _encoded(datasets.flights(), "carrier", ("tailnum", "flight", "time_hour")),
    "fashion_mnist": _fashion,
}


# ---------------------------------------------------------------- solvers: tolerance -> weights (C, d), intercept (C,)


def _kullback(X: Matrix, y: Matrix, tol: float) -> tuple[Matrix, Matrix]:
    from kullback import SoftmaxClassifier

    model = SoftmaxClassifier(tol=tol, max_iter=10_000).fit(X, y)
    return model.coef_, model.intercept_


def _sklearn(solver: str) -> Callable[[Matrix, Matrix, float], tuple[Matrix, Matrix]]:
    def fit(X: Matrix, y: Matrix, tol: float) -> tuple[Matrix, Matrix]:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(solver=solver, tol=tol, max_iter=100_000).fit(X, y)
        return model.coef_, model.intercept_

    return fit


def _cyanure(X: Matrix, y: Matrix, tol: float) -> tuple[Matrix, Matrix]:
    from cyanure.estimators import Classifier

    model = Classifier(
        loss="multiclass-logistic",
        penalty="l2",
        lambda_1=1.0 / len(X),
        fit_intercept=True,
        tol=tol,
        max_iter=100_000,
        verbose=False,
        n_threads=threads(),
    ).fit(X, y)
    return np.asarray(model.coef_).T, np.ravel(model.intercept_)


Fit = Callable[[Matrix, Matrix, float], tuple[Matrix, Matrix]]
SOLVERS: dict[str, tuple[Fit, Any, tuple[float, ...]]] = {
    "kullback": (_kullback, None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn lbfgs": (_sklearn("lbfgs"), None, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
    "sklearn newton-cg": (_sklearn("newton-cg"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn newton-cholesky": (_sklearn("newton-cholesky"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn sag": (_sklearn("sag"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    "sklearn saga": (_sklearn("saga"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    "cyanure float32": (_cyanure, np.float32, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "cyanure float64": (_cyanure, np.float64, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
}


def clock() -> float:
    """Seconds: wall clock, or, where KULLBACK_BENCHMARK_CLOCK says ``cpu``, the processor time of this process.

    On one thread the two agree on a machine that does nothing else; on a busy one only processor time can be compared.
    """
    return time.process_time() if clock_name() == "cpu" else time.perf_counter()


def clock_name() -> str:
    return os.environ.get("KULLBACK_BENCHMARK_CLOCK", "wall")


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def objective(X: Matrix, y: Matrix, weights: Matrix, intercept: Matrix) -> float:
    """Mean nats plus the penalty, in float64, by blocks; two-class models are one vector."""
    if len(weights) == 1:
        raise SystemExit("this benchmark is about more than two classes")
    weights = np.asarray(weights, dtype=np.float64)
    weights = weights - weights.mean(axis=0)
    total = 0.0
    for start in range(0, len(X), 8192):
        rows = slice(start, start + 8192)
        logits = X[rows].astype(np.float64) @ weights.T + intercept
        top = logits.max(axis=1)
        total += float((np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top).sum())
        total -= float(logits[np.arange(len(logits)), y[rows]].sum())
    return total / len(X) + 0.5 * float(np.vdot(weights, weights)) / len(X)


def bound(X: Matrix, y: Matrix) -> dict[str, float]:
    """A value that the optimum cannot lie below, and how close it is."""
    from kullback import SoftmaxClassifier

    found = SoftmaxClassifier(tol=1e-10, max_iter=100_000).fit(X, y).certificate_
    return {"dual": found.dual, "relative_gap": found.relative_gap}


def measure(data: str, solver: str, dual: float) -> list[dict[str, float]]:
    """One solver's whole ladder, in this process."""
    fit, dtype, tolerances = SOLVERS[solver]
    X, y = DATA[data]()
    given = X if dtype is None else np.ascontiguousarray(X, dtype=dtype)
    warnings.simplefilter("ignore")
    few = np.unique(np.concatenate([np.flatnonzero(y == k)[:3] for k in range(int(y.max()) + 1)]))
    fit(given[few], y[few], 0.1)  # imports, thread pools
    began = clock()
    runs: list[dict[str, float]] = []
    for tol in tolerances:
        seconds = math.inf
        for _ in range(3):
            start = clock()
            weights, intercept = fit(given, y, tol)
            seconds = min(seconds, clock() - start)
            if seconds > REPEAT_BELOW:
                break
        gap = objective(X, y, weights, intercept) / dual - 1
        runs.append({"tol": tol, "seconds": round(seconds, 4), "gap": gap})
        print(json.dumps(runs[-1]), flush=True)
        if gap <= min(GAPS) or clock() - began > SECONDS:
            break
    return runs


def to_gap(runs: list[dict[str, float]], gap: float) -> float | None:
    """Seconds of the fastest run within a true gap."""
    return min((run["seconds"] for run in runs if run["gap"] <= gap), default=None)


def _child(*arguments: str) -> str:
    """Run this file in a process of its own; what it printed, even if it had to be stopped."""
    environment = {
        **os.environ,
        **{name: str(threads()) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KULLBACK_NUM_THREADS")},
    }
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=(1.5 if clock_name() == "wall" else 10) * SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as stopped:
        return stopped.stdout.decode() if isinstance(stopped.stdout, bytes) else stopped.stdout or ""
    if done.returncode:
        print(f"    {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
    return done.stdout


def table(results: dict[str, Any]) -> str:
    """Rows of data sets, columns of solvers: seconds to each true gap."""
    names = list(SOLVERS)
    lines = ["| data | " + " | ".join(names) + " | ahead of the best rival |", "|---" * (len(names) + 2) + "|"]
    for data, held in results.items():
        cells, ahead = [], []
        for name in names:
            runs = held["runs"].get(name, [])
            cells.append(" / ".join("–" if (s := to_gap(runs, g)) is None else f"{s:.2f}" for g in GAPS))
        for gap in GAPS:
            own = to_gap(held["runs"].get("kullback", []), gap)
            rivals = [s for n in names[1:] if (s := to_gap(held["runs"].get(n, []), gap)) is not None]
            ahead.append(f"{min(rivals) / own:.1f}×" if own and rivals else "–")
        lines.append(f"| {data} | " + " | ".join(cells) + " | " + " / ".join(ahead) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--threads", type=int, default=threads(), help="of every solver")
    parser.add_argument("--clock", choices=("wall", "cpu"), default=clock_name())
    parser.add_argument("--child", nargs=3, metavar=("DATA", "SOLVER", "DUAL"), help="one ladder, in this process")
    parser.add_argument("--bound", metavar="DATA", help="a lower bound of the optimum, in this process")
    options = parser.parse_args()
    if options.bound:
        print(json.dumps(bound(*DATA[options.bound]())))
        return
    if options.child:
        data, solver, dual = options.child
        measure(data, solver, float(dual))
        return

    os.environ.update(OMP_NUM_THREADS=str(options.threads), KULLBACK_BENCHMARK_CLOCK=options.clock)

    from machine import machine

    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"linear": {}}
    for data in options.data:
        printed = _child("--bound", data)
        if not printed:
            continue
        held = stored["linear"].setdefault(data, {"runs": {}})
        X, y = DATA[data]()
        held.update(json.loads(printed.splitlines()[-1]))
        held.update(rows=len(X), columns=X.shape[1], classes=int(y.max()) + 1, dtype=str(X.dtype))
        del X, y
        for solver in options.solvers:
            lines = _child("--child", data, solver, repr(held["dual"])).splitlines()
            held["runs"][solver] = [json.loads(line) for line in lines if line.startswith("{")]
            times = [to_gap(held["runs"][solver], gap) for gap in GAPS]
            print(f"{data:>14} {solver:<24} {times}", flush=True)
        stored["machine"] = {**machine("scikit-learn", "scipy", "cyanure"), "threads": threads(), "clock": clock_name()}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
    print(table(stored["linear"]))


if __name__ == "__main__":
    main()
