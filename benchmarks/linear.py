"""Time to a known-optimal multinomial model: Kullback against scikit-learn's solvers, Cyanure and adelie.

Every solver minimises the same objective, C·Σ loss + ½‖W‖² with a free intercept, at C = 1. What each reaches is
recomputed in float64 and compared with a lower bound of the optimum that is proved (a duality gap below 1e-10), not
with another solver's answer. Each solver runs at a ladder of its own tolerances, and what counts is the fastest of
its runs that lies within the stated true gap: nobody is judged by a stopping rule that is too cautious.

A solver on one data set is one process, with the same threads for all. Kullback runs first; a run of another solver
is stopped after a multiple of the time that Kullback took (`CAPS`), and counts as longer than that.

    python benchmarks/linear.py                                # every row, two threads: half an hour on a quiet machine
    python benchmarks/linear.py --data letter digits           # these rows of results/linear.json alone
    python benchmarks/linear.py --threads 1 --clock cpu        # on a busy machine

Only solvers of this objective take part. liblinear and Snap ML fit one class against the rest, which is another
model.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from capped import child, choose, clock, clock_name, ended_after, threads

RESULTS = Path(__file__).resolve().parent / "results" / "linear.json"
GAPS = (1e-3, 1e-6)
# A run of another solver is stopped after so many seconds, or so many times what Kullback took, whichever is longer.
LEAST_SECONDS = 10.0
CAPS = {"sklearn lbfgs": 12.0}
OTHER_CAP = 5.0
# A solver that has used so many caps climbs no further on its ladder.
LADDER_CAPS = 2.0
REPEATS = 3
REPEAT_BELOW = 2.0

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
        lambda_1=1.0 / X.shape[0],
        fit_intercept=True,
        tol=tol,
        max_iter=100_000,
        verbose=False,
        n_threads=threads(),
    ).fit(X, y)
    return np.asarray(model.coef_).T, np.ravel(model.intercept_)


def adelie(X: Matrix, y: Matrix, tol: float, *, alpha: float = 0.0) -> tuple[Matrix, Matrix]:
    """A ridge, or with `alpha` 1 the norm of each column's weights."""
    import adelie

    classes = int(y.max()) + 1
    dtype = X.dtype.type
    # Its loss is the mean over rows and over classes, and its penalties are weighted by sqrt(classes) unless told.
    found = adelie.grpnet(
        X=adelie.matrix.sparse(X.tocsc(), method="naive") if hasattr(X, "tocsc") else np.asfortranarray(X),
        glm=adelie.glm.multinomial(np.eye(classes, dtype=dtype)[y], dtype=dtype),
        alpha=alpha,
        penalty=np.ones(X.shape[1], dtype=dtype),
        lmda_path=np.array([1 / (len(y) * classes)], dtype=dtype),
        tol=tol,
        irls_tol=tol,
        adev_tol=1.0,
        max_iters=10_000_000,
        early_exit=False,
        progress_bar=False,
        n_threads=threads(),
    )
    return found.betas.toarray().reshape(-1, classes).T, found.intercepts[0]


Fit = Callable[[Matrix, Matrix, float], tuple[Matrix, Matrix]]
OURS = "kullback"
SOLVERS: dict[str, tuple[Fit, Any, tuple[float, ...]]] = {
    OURS: (_kullback, None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn lbfgs": (_sklearn("lbfgs"), None, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
    "sklearn newton-cg": (_sklearn("newton-cg"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn newton-cholesky": (_sklearn("newton-cholesky"), None, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn sag": (_sklearn("sag"), None, (1e-2, 1e-3, 1e-4, 1e-5)),
    "sklearn saga": (_sklearn("saga"), None, (1e-2, 1e-3, 1e-4, 1e-5)),
    "cyanure float32": (_cyanure, np.float32, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "cyanure float64": (_cyanure, np.float64, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "adelie float32": (adelie, np.float32, (1e-3, 1e-5, 1e-7, 1e-9)),
    "adelie float64": (adelie, np.float64, (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)),
}
BY_COLUMNS = ("adelie float32", "adelie float64")  # want contiguous columns


def objective(X: Matrix, y: Matrix, weights: Matrix, intercept: Matrix) -> float:
    """Mean nats plus the penalty, in float64, by blocks; two-class models are one vector."""
    if len(weights) == 1:
        raise SystemExit("this benchmark is about more than two classes")
    weights = np.asarray(weights, dtype=np.float64)
    weights = weights - weights.mean(axis=0)
    total = 0.0
    for start in range(0, X.shape[0], 8192):
        rows = slice(start, start + 8192)
        logits = np.asarray(X[rows].astype(np.float64) @ weights.T) + intercept
        top = logits.max(axis=1)
        total += float((np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top).sum())
        total -= float(logits[np.arange(len(logits)), y[rows]].sum())
    return total / X.shape[0] + 0.5 * float(np.vdot(weights, weights)) / X.shape[0]


def bound(X: Matrix, y: Matrix) -> dict[str, float]:
    """A value that the optimum cannot lie below, and how close it is."""
    from kullback import SoftmaxClassifier

    found = SoftmaxClassifier(tol=1e-10, max_iter=100_000).fit(X, y).certificate_
    return {"dual": found.dual, "relative_gap": found.relative_gap}


def measure(data: str, solver: str, dual: float, cap: float) -> None:
    """One solver's whole ladder, in this process, a line of JSON for every run as it ends."""
    fit, dtype, tolerances = SOLVERS[solver]
    X, y = DATA[data]()
    if dtype is None:
        given = X
    else:
        given = np.asarray(X, dtype=dtype, order="F" if solver in BY_COLUMNS else "C")
    warnings.simplefilter("ignore")
    few = np.unique(np.concatenate([np.flatnonzero(y == k)[:3] for k in range(int(y.max()) + 1)]))
    fit(given[few], y[few], 0.1)  # imports, thread pools
    used = 0.0
    for tol in tolerances:
        for _ in range(REPEATS):
            with ended_after(cap):
                start = clock()
                weights, intercept = fit(given, y, tol)
                seconds = clock() - start
            used += seconds
            # Every run with its own gap: some solvers draw the order of the rows.
            gap = objective(X, y, weights, intercept) / dual - 1
            print(json.dumps({"tol": tol, "seconds": round(seconds, 4), "gap": gap}), flush=True)
            if seconds > REPEAT_BELOW:
                break
        if gap <= min(GAPS) or used > LADDER_CAPS * cap:
            break


def to_gap(held: dict[str, Any], gap: float) -> float | None:
    """Seconds of the fastest run within a true gap."""
    return min((run["seconds"] for run in held["runs"] if run["gap"] <= gap), default=None)


def ladder(data: str, solver: str, dual: float, cap: float) -> dict[str, Any]:
    """The runs of a solver, and after how many seconds a run of it was stopped, if one was."""
    runs, stopped, failed = child(__file__, "--child", data, solver, repr(dual), repr(cap))
    held: dict[str, Any] = {"runs": runs}
    if stopped:
        held["stopped_after"] = round(cap, 1)
    if failed:
        held["failed"] = failed
        print(f"    {solver} on {data} failed: {failed}", flush=True)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--threads", type=int, default=threads(), help="of every solver")
    parser.add_argument("--clock", choices=("wall", "cpu"), default=clock_name())
    parser.add_argument("--child", nargs=4, metavar=("DATA", "SOLVER", "DUAL", "CAP"), help="one ladder")
    parser.add_argument("--bound", metavar="DATA", help="a lower bound of the optimum, in this process")
    options = parser.parse_args()
    if options.bound:
        print(json.dumps(bound(*DATA[options.bound]())))
        return
    if options.child:
        data, solver, dual, cap = options.child
        measure(data, solver, float(dual), float(cap))
        return

    choose(options.threads, options.clock)
    for data in options.data:
        row(data, options.solvers)


def row(data: str, solvers: list[str]) -> None:
    """Measure some solvers on one data set, and put them into that row of the results."""
    from machine import machine

    lines, _, failed = child(__file__, "--bound", data)
    if failed:
        print(f"    no bound for {data}: {failed}", flush=True)
        return
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"linear": {}}
    held = stored["linear"].get(data, {})
    how = {"threads": threads(), "clock": clock_name()}
    if {name: held.get(name) for name in how} != how or "solvers" not in held:
        held = {**how, "solvers": {}}
    stored["linear"][data] = held
    held.update(lines[-1])
    X, y = DATA[data]()
    held.update(rows=X.shape[0], columns=X.shape[1], classes=int(y.max()) + 1, dtype=str(X.dtype))
    del X, y
    own = held["solvers"].get(OURS)
    for solver in sorted(solvers, key=lambda name: name != OURS):
        cap = math.inf
        if solver != OURS:
            slowest = max((to_gap(own, gap) or 0.0 for gap in GAPS), default=0.0) if own else 0.0
            cap = max(LEAST_SECONDS, CAPS.get(solver, OTHER_CAP) * slowest)
        held["solvers"][solver] = found = ladder(data, solver, held["dual"], cap)
        own = held["solvers"].get(OURS)
        print(
            f"{data:>14} {solver:<24} {[to_gap(found, gap) for gap in GAPS]}",
            found.get("stopped_after", ""),
            flush=True,
        )
        stored["machine"] = machine("scikit-learn", "scipy", "cyanure", "adelie")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
