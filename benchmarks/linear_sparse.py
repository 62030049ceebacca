"""Time to a true gap on sparse data, and with penalties that leave weights at zero.

Each row is a data set with a penalty, at C = 1 and a free intercept. Every solver runs a ladder of its own tolerances
in a process of its own; each answer's objective is recomputed in float64 and compared with a lower bound of the
optimum that Kullback proves (the tightest duality gap of its own ladder, stored beside the times). What counts is the
fastest run within the stated true gap. Every rival has a time cap on the clock on the wall for all of its runs,
``max(60 s, 5 × Kullback's ladder)`` unless `ROWS` or ``--cap`` sets one, and a cell ``> t`` says how long the run under
way had taken by then, none before it having come within the gap.

liblinear is not here: it fits one class against the rest, which is another objective. Results go to
``results/linear_sparse.json``, row by row, so that rows can be measured one at a time.
"""

from __future__ import annotations

import argparse
import json
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
from scipy import sparse

RESULTS = Path(__file__).resolve().parent / "results" / "linear_sparse.json"
GAPS = (1e-3, 1e-6)
LEAST_CAP, CAP_FACTOR = 60.0, 5.0

Matrix = Any
Answer = tuple[Matrix, Matrix]


# ---------------------------------------------------------------- data


def _udhr(languages: int | None = None) -> Answer:
    X = sparse.load_npz(datasets.udhr()).tocsr()
    y = np.unique(np.load(datasets.udhr().with_name("udhr_languages.npy")), return_inverse=True)[1]
    if languages is not None:
        keep = y < languages
        X, y = X[keep], y[keep]
        X = X[:, np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]))].tocsr()
    return X, y


def _spam() -> Answer:
    X = sparse.load_npz(datasets.spam()).tocsr()
    return X, np.load(datasets.spam().with_name("spam_folders.npy"))


def _flights() -> Answer:
    import pandas as pd

    frame = pd.read_parquet(datasets.flights()).drop(columns=["tailnum", "flight", "time_hour"])
    y = np.unique(frame.pop("carrier").astype(str), return_inverse=True)[1]
    parts = []
    for _, values in frame.items():
        if pd.api.types.is_numeric_dtype(values):
            column = values.fillna(values.mean()).to_numpy(np.float32)
            parts.append(sparse.csr_matrix(((column - column.mean()) / column.std())[:, None]))
        else:
            codes = values.astype("category").cat.codes.to_numpy()
            ones = np.ones(len(codes), np.float32)
            parts.append(sparse.csr_matrix((ones, (np.arange(len(codes)), codes))))
    return sparse.hstack(parts, format="csr"), y


def _dense(name: str) -> Callable[[], Answer]:
    def load() -> Answer:
        import linear

        X, y = linear.DATA[name]()
        return np.ascontiguousarray(X), y

    return load


DATA: dict[str, Callable[[], Answer]] = {
    "letter": _dense("letter"),
    "digits": _dense("digits"),
    "mnist": _dense("mnist"),
    "spam": _spam,
    "flights_csr": _flights,
    "udhr_100": lambda: _udhr(100),
    "udhr": _udhr,
}
# What is measured unless rows are named. Where one run takes minutes, Kullback's ladder is short, and so is what the
# others are given; scikit-learn's default gets more, and none of it goes to a tolerance that leaves it far from 1e-3.
ROWS: dict[str, dict[str, Any]] = {
    "spam:l2": {},
    "udhr:l2": {
        "ladders": {"kullback": (1e-1, 1e-3, 1e-6), "sklearn lbfgs": (3e-4, 1e-4, 1e-5, 1e-6)},
        "cap": 150.0,
        "caps": {"sklearn lbfgs": 900.0},
    },
    **{
        f"{data}:{kind}": {"cap": 60.0}
        for data in ("digits", "letter", "mnist")
        for kind in ("l1", "elasticnet", "group")
    },
}


# ---------------------------------------------------------------- solvers: tolerance -> weights (C, d), intercepts (C,)


def _kullback(X: Matrix, y: Matrix, penalty: str, tol: float) -> tuple[Matrix, Matrix, Any]:
    from kullback import SoftmaxClassifier

    model = SoftmaxClassifier(penalty=penalty, tol=tol, max_iter=10_000).fit(X, y)
    return model.coef_, model.intercept_, model.certificate_


def _sklearn(solver: str) -> Callable[..., tuple[Matrix, Matrix, Any]]:
    def fit(X: Matrix, y: Matrix, penalty: str, tol: float) -> tuple[Matrix, Matrix, Any]:
        from sklearn.linear_model import LogisticRegression

        ratio = {"l2": 0.0, "elasticnet": 0.5, "l1": 1.0}[penalty]
        model = LogisticRegression(solver=solver, l1_ratio=ratio, tol=tol, max_iter=100_000).fit(X, y)
        return model.coef_, model.intercept_, None

    return fit


def _cyanure(X: Matrix, y: Matrix, penalty: str, tol: float) -> tuple[Matrix, Matrix, Any]:
    from cyanure.estimators import Classifier

    lam = 1.0 / X.shape[0]
    kind, first, second = {
        "l2": ("l2", lam, 0.0),
        "l1": ("l1", lam, 0.0),
        "elasticnet": ("elasticnet", 0.5 * lam, 0.5 * lam),
        "group": ("l1l2", lam, 0.0),
    }[penalty]
    model = Classifier(
        loss="multiclass-logistic",
        penalty=kind,
        lambda_1=first,
        lambda_2=second,
        fit_intercept=True,
        tol=tol,
        max_iter=100_000,
        verbose=False,
        n_threads=threads(),
    ).fit(X.astype(np.float32), y)
    weights = np.asarray(model.coef_)
    return weights.T if weights.shape[0] == X.shape[1] else weights, np.ravel(model.intercept_), None


def _adelie(X: Matrix, y: Matrix, penalty: str, tol: float) -> tuple[Matrix, Matrix, Any]:
    import linear

    return *linear.adelie(X, y, tol, alpha={"l2": 0.0, "group": 1.0}[penalty]), None


# A solver, the penalties it knows, and its tolerances.
SOLVERS: dict[str, tuple[Callable[..., tuple[Matrix, Matrix, Any]], tuple[str, ...], tuple[float, ...]]] = {
    "kullback": (_kullback, ("l2", "l1", "elasticnet", "group"), (1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
    "sklearn lbfgs": (_sklearn("lbfgs"), ("l2",), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
    "sklearn newton-cg": (_sklearn("newton-cg"), ("l2",), (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    "sklearn saga": (_sklearn("saga"), ("l2", "l1", "elasticnet"), (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    "cyanure float32": (_cyanure, ("l2", "l1", "elasticnet", "group"), (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)),
    "adelie": (_adelie, ("l2", "group"), (1e-3, 1e-5, 1e-7, 1e-9)),
}


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def objective(X: Matrix, y: Matrix, weights: Matrix, intercept: Matrix, penalty: str) -> float:
    """Mean nats plus the penalty, in float64; two-class models of one row are spread over both classes."""
    from kullback.linear.penalties import resolve_penalty

    weights = np.asarray(weights, dtype=np.float64).T
    intercept = np.asarray(intercept, dtype=np.float64)
    cost = resolve_penalty(penalty, None).value(weights)
    if weights.shape[1] == 1:
        weights, intercept = weights * [[-0.5, 0.5]], intercept * [-0.5, 0.5]
    elif penalty == "l2":
        cost -= 0.5 * weights.shape[1] * float(np.square(weights.mean(axis=1)).sum())
    total = 0.0
    for begin in range(0, X.shape[0], 4096):
        logits = X[begin : begin + 4096] @ weights + intercept
        of_rows = y[begin : begin + 4096]
        top = logits.max(axis=1)
        total += float((np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top).sum())
        total -= float(logits[np.arange(len(of_rows)), of_rows].sum())
    return (total + cost) / X.shape[0]


def child(data: str, penalty: str, solver: str, own: list[float] | None) -> None:
    """One ladder in this process: a line of JSON a run."""
    import resource

    fit, _, tolerances = SOLVERS[solver]
    if own:
        tolerances = tuple(own)
    X, y = DATA[data]()
    warnings.simplefilter("ignore")
    few = np.unique(np.concatenate([np.flatnonzero(y == k)[:2] for k in range(int(y.max()) + 1)]))
    if len(few) < 200:
        fit(X[few], y[few], penalty, 0.5)  # imports, thread pools
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best: float | None = None
    for tol in tolerances:
        print(json.dumps({"began": time.time()}), flush=True)
        for _ in range(3):
            start, used = time.perf_counter(), time.process_time()
            weights, intercept, certificate = fit(X, y, penalty, tol)
            seconds, processor = time.perf_counter() - start, time.process_time() - used
            # Every run with its own objective: some solvers draw the order of the rows.
            run = {
                "tol": tol,
                "seconds": round(seconds, 4),
                "processor_seconds": round(processor, 4),
                "objective": objective(X, y, weights, intercept, penalty),
                "zeros": round(float((np.asarray(weights) == 0).mean()), 4),
                "more_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
            }
            if certificate is not None:
                run |= {"dual": float(certificate.dual), "relative_gap": float(certificate.relative_gap)}
            if solver == "kullback" and not np.isfinite(run["dual"]):
                run["dual"] = None
            print(
                json.dumps(run | {"rows": X.shape[0], "columns": X.shape[1], "classes": int(y.max()) + 1}), flush=True
            )
            if seconds > 2:
                break
        # A rival's ladder ends where a finer tolerance changes nothing that is asked for; ours also gives the bound.
        if solver != "kullback" and best is not None and abs(best - run["objective"]) < 1e-9 * abs(best):
            break
        best = run["objective"]


def ladder(
    data: str, penalty: str, solver: str, cap: float | None, own: list[float] | None
) -> tuple[list[dict[str, Any]], float | None]:
    """The runs of one solver, in a process of its own, and after how many seconds the cap cut the last one short."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", data, penalty, solver]
    command += ["--ladder", *map(str, own)] if own else []
    number = str(threads())
    environment = {**os.environ, "OMP_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number}
    environment["KULLBACK_NUM_THREADS"] = number
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=cap, env=environment, check=False)
        printed, cut = done.stdout, None
        if done.returncode:
            print(f"    {data} {penalty} {solver} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
    except subprocess.TimeoutExpired as stopped:
        printed, cut = (stopped.stdout or b"").decode() if isinstance(stopped.stdout, bytes) else "", time.time()
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    if cut is not None:
        cut -= max((line["began"] for line in lines if "began" in line), default=cut)
    return [line for line in lines if "began" not in line], cut


def measure(
    data: str,
    penalty: str,
    rivals: list[str],
    ladders: dict[str, list[float]],
    cap: float | None,
    caps: dict[str, float],
) -> dict[str, Any]:
    """Kullback and some rivals on one row, each with its own tolerances and seconds where there are any for it."""
    began = time.perf_counter()
    own, _ = ladder(data, penalty, "kullback", None, ladders.get("kullback"))
    if cap is None:
        cap = max(LEAST_CAP, CAP_FACTOR * (time.perf_counter() - began))
    dual = max(run["dual"] for run in own if run["dual"] is not None)
    least = min(run["objective"] for run in own)
    held: dict[str, Any] = {
        "data": data,
        "penalty": penalty,
        **{name: own[0][name] for name in ("rows", "columns", "classes")},
        "proved_within": least / dual - 1,
        "more_mb": max(run["more_mb"] for run in own),
        "zeros": own[-1]["zeros"],
        "cap": round(cap, 1),
        "solvers": {},
    }
    for solver, (_, penalties, _) in SOLVERS.items():
        if penalty not in penalties or solver not in ("kullback", *rivals):
            continue
        runs, cut = own, None
        if solver != "kullback":
            runs, cut = ladder(data, penalty, solver, caps.get(solver, cap), ladders.get(solver))
        held["solvers"][solver] = {
            **({"cap": caps[solver]} if solver in caps else {}),
            **({} if cut is None else {"stopped_after": round(cut, 1)}),
            "runs": [
                {name: run[name] for name in ("tol", "seconds", "processor_seconds")}
                | {"gap": run["objective"] / dual - 1}
                for run in runs
            ],
        }
        times = [to_gap(held["solvers"][solver]["runs"], gap) for gap in GAPS]
        print(f"{data:>12} {penalty:<10} {solver:<18} {times}{f' (cut after {cut:.1f})' if cut else ''}", flush=True)
    return held


def to_gap(runs: list[dict[str, float]], gap: float, clock: str = "seconds") -> float | None:
    """Seconds of the fastest run within a true gap."""
    return min((run[clock] for run in runs if run["gap"] <= gap), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="data:penalty")
    parser.add_argument("--threads", type=int, default=threads(), help="of every solver")
    parser.add_argument("--child", nargs=3, metavar=("DATA", "PENALTY", "SOLVER"), help="one ladder, in this process")
    rivals = [name for name in SOLVERS if name != "kullback"]
    parser.add_argument("--rivals", nargs="*", default=rivals, choices=rivals)
    parser.add_argument("--ladder", nargs="*", type=float, help="Kullback's tolerances")
    parser.add_argument("--cap", type=float, help="seconds that each other solver has for all of its runs")
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.ladder)
        return
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    from machine import machine

    for name in options.rows:
        data, _, penalty = name.partition(":")
        chosen = {"ladders": {}, "cap": None, "caps": {}, **ROWS.get(name, {})}
        if options.ladder:
            chosen["ladders"] = {**chosen["ladders"], "kullback": options.ladder}
        if options.cap is not None:
            chosen |= {"cap": options.cap, "caps": {}}
        found = measure(data, penalty, options.rivals, **chosen)
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
        stored["rows"][name] = found | {"threads": threads()}
        stored["machine"] = machine("scikit-learn", "scipy", "cyanure", "adelie")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
