"""Choosing C by cross-validation: 10 Cs × 5 folds, against the solvers of scikit-learn's `LogisticRegressionCV`.

Every adapter gets the same Cs, folds and data and scores held-out rows by their log loss, at its own default tolerance.
A stored row says how long it took, in processor seconds of all threads and in seconds of the clock, which C it chose,
and how far its scores are from those of fits to a relative gap of 1e-9 at most.

    python benchmarks/path.py digits kullback lbfgs newton-cg    # adds or replaces these rows of results/path.json
    python benchmarks/path.py --table
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
from datasets import CACHE, letter
from machine import machine
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV

from kullback import SoftmaxClassifierCV, get_num_threads

RESULTS = Path(__file__).resolve().parent / "results" / "path.json"
CS = np.logspace(-4, 4, 10)
FOLDS = 5
SOLVERS = ("lbfgs", "newton-cg", "newton-cholesky")


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


def measure(name: str, wanted: list[str]) -> None:
    X, y = SETS[name]()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"path": {}}
    row = stored["path"].setdefault(name, {})
    row["shape"] = [*X.shape, len(np.unique(y))]
    for adapter in wanted:
        fit = ours if adapter == "kullback" else theirs(adapter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            processor, clock = time.process_time(), time.perf_counter()
            C, scores = fit(X, y)
            row[adapter] = {
                "processor_seconds": round(time.process_time() - processor, 3),
                "seconds": round(time.perf_counter() - clock, 3),
                "C": C,
                "scores": scores.tolist(),
            }
        print(name, adapter, row[adapter], flush=True)
    if "exact" not in row:
        row["exact"] = ours(X, y, exact=True)[1].tolist()
    stored["machine"] = {**machine("scikit-learn", "scipy"), "threads": get_num_threads()}
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def table(stored: dict[str, Any]) -> str:
    lines = [
        "| set | solver | processor s | against Kullback | C chosen | worst score off by, nats |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in stored["path"].items():
        shape = " × ".join(str(n) for n in row["shape"])
        base = row["kullback"]["processor_seconds"]
        for adapter in ("kullback", *SOLVERS):
            if adapter in row:
                found = row[adapter]
                off = np.abs(np.array(found["scores"]) - row["exact"]).max()
                ratio = found["processor_seconds"] / base
                lines.append(
                    f"| {name} {shape} | {adapter} | {found['processor_seconds']:.2f} | {ratio:.1f}× "
                    f"| {found['C']:.3g} | {off:.1g} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:] == ["--table"]:
        print(table(json.loads(RESULTS.read_text())), end="")
        return
    measure(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
