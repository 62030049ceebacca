"""Choosing C by cross-validation: 10 Cs × 5 folds, against the solvers of scikit-learn's `LogisticRegressionCV`.

Every adapter gets the same Cs, folds and data and scores held-out rows by their log loss, at its own default tolerance.
A stored row says how long it took by the clock in use, which C it chose, and how far its scores are from those of fits
to a relative gap of 1e-9 at most. Kullback runs first; another adapter is stopped after `CAP` times as long, and counts
as longer than that.

    python benchmarks/path.py                                      # all of it: five minutes on a quiet machine
    python benchmarks/path.py --data digits --adapters kullback    # these rows of results/path.json alone
    python benchmarks/path.py --threads 1 --clock cpu              # on a busy machine
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
from capped import child, choose, clock, clock_name, ended_after, threads
from datasets import CACHE, letter
from machine import machine
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV

from kullback import SoftmaxClassifierCV

RESULTS = Path(__file__).resolve().parent / "results" / "path.json"
CS = np.logspace(-4, 4, 10)
FOLDS = 5
SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky")
OURS = "kullback"
# Another adapter is stopped after so many seconds, or so many times what Kullback took, whichever is longer.
LEAST_SECONDS = 20.0
CAP = 15.0


def digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


def letters() -> tuple[Any, Any]:
    table = pa_csv.read_csv(letter()).to_pandas()
    X = table.drop(columns="letter").to_numpy(np.float64)
    return (X - X.mean(axis=0)) / X.std(axis=0), table["letter"].to_numpy()


def images() -> tuple[Any, Any]:
    """The products of pairs of pixels in 300 of MNIST's images: some 250 columns for each row."""
    stored = np.load(CACHE / "mnist.npz")
    X, y = stored["X"][:300].astype(np.float64), stored["y"][:300]
    used = np.flatnonzero((X > 0).sum(axis=0) >= 10)
    first, second = np.triu_indices(len(used))
    pairs = X[:, used][:, first] * X[:, used][:, second]
    return pairs[:, (pairs > 0).sum(axis=0) >= 5], y


SETS: dict[str, Callable[[], tuple[Any, Any]]] = {"digits": digits, "letter": letters, "pixel pairs": images}


def ours(X: Any, y: Any, exact: bool = False) -> tuple[float, np.ndarray]:
    model = SoftmaxClassifierCV(CS, cv=FOLDS, **({"path_tol": 1e-9, "refit": False} if exact else {})).fit(X, y)
    return model.C_, model.scores_.mean(axis=0)


def theirs(solver: str) -> Callable[[Any, Any], tuple[float, np.ndarray]]:
    def fit(X: Any, y: Any) -> tuple[float, np.ndarray]:
        model = LogisticRegressionCV(
            Cs=CS,
            cv=FOLDS,
            solver=solver,
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        ).fit(X, y)
        return float(model.C_), model.scores_.mean(axis=(0, 1))

    return fit


def measure(name: str, adapter: str, cap: float) -> None:
    """One adapter, in this process."""
    X, y = SETS[name]()
    warnings.simplefilter("ignore")
    with ended_after(cap):
        start = clock()
        C, scores = ours(X, y) if adapter == OURS else theirs(adapter)(X, y)
        seconds = clock() - start
    print(json.dumps({"seconds": round(seconds, 3), "C": C, "scores": scores.tolist()}), flush=True)


def exact(name: str) -> None:
    """The scores of exact fits, in this process."""
    X, y = SETS[name]()
    print(json.dumps({"shape": [*X.shape, len(np.unique(y))], "exact": ours(X, y, exact=True)[1].tolist()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--adapters", nargs="*", default=[OURS, *SOLVERS], choices=[OURS, *SOLVERS])
    parser.add_argument("--threads", type=int, default=threads(), help="of every adapter")
    parser.add_argument("--clock", choices=("wall", "cpu"), default=clock_name())
    parser.add_argument("--child", nargs=3, metavar=("DATA", "ADAPTER", "CAP"), help="one adapter, in this process")
    parser.add_argument("--exact", metavar="DATA", help="scores of exact fits, in this process")
    options = parser.parse_args()
    if options.exact:
        exact(options.exact)
        return
    if options.child:
        measure(options.child[0], options.child[1], float(options.child[2]))
        return
    choose(options.threads, options.clock)
    for name in options.data:
        row(name, options.adapters)


def row(name: str, adapters: list[str]) -> None:
    """Measure some adapters on one data set, and put them into that row of the results."""
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"path": {}}
    how = {"threads": threads(), "clock": clock_name()}
    held = stored["path"].get(name, {})
    if {key: held.get(key) for key in how} != how:
        held = {**how, "adapters": {}, **child(__file__, "--exact", name)[0][-1]}
    stored["path"][name] = held
    for adapter in sorted(adapters, key=lambda other: other != OURS):
        own = held["adapters"].get(OURS, {}).get("seconds", 0.0)
        cap = math.inf if adapter == OURS else max(LEAST_SECONDS, CAP * own)
        lines, stopped, failed = child(__file__, "--child", name, adapter, repr(cap))
        ended = {"stopped_after": round(cap, 1)} if stopped else {"failed": failed}
        held["adapters"][adapter] = lines[-1] if lines else ended
        told = {key: value for key, value in held["adapters"][adapter].items() if key != "scores"}
        print(f"{name:>12} {adapter:<16} {told}", flush=True)
        stored["machine"] = machine("scikit-learn", "scipy")
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
