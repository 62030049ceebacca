"""A pass over dense data, loss and gradient of a linear model, in one call of the kernels and made of BLAS products.

Random float32 data of the shapes of well-known sets, one thread, medians, in turns:

- ``one_call``: what fits use; ``of_columns``: the same of data whose columns are contiguous, as pandas keeps them;
- ``by_blocks``: the same pass in Python, block by block, with NumPy's products;
- ``blas_and_loss``: the least that a pass made of BLAS products could take: NumPy's two products of blocks that stay in
  cache, at the best of several block sizes, without what calling them from Python costs, and the loss of logits that
  are there already.

Stores ``results/dense_pass.json``.

    python benchmarks/dense_pass.py [--rounds 25] [--no-store]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from machine import machine

import kullback
from kullback import CrossEntropy
from kullback.linear.choice import Terms
from kullback.linear.design import DenseDesign
from kullback.linear.scaling import column_scaling
from kullback.targets import ClassIndices

RESULTS = Path(__file__).resolve().parent / "results" / "dense_pass.json"
SHAPES = {  # rows, columns, classes
    "digits": (1797, 64, 10),
    "letter": (20_000, 16, 26),
    "diamonds": (53_940, 22, 5),
    "shuttle": (58_000, 9, 7),
    "mnist": (10_000, 784, 10),
}
BLOCKS = (128, 256, 512, 1024, 2048)


def products(X: np.ndarray, n_classes: int, block: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Both products of all blocks; and as many that have nothing to multiply."""
    blocks = [X[i : i + block] for i in range(0, len(X), block)]
    weights = np.ones((X.shape[1], n_classes), X.dtype)
    logits, gradient = np.empty((block, n_classes), X.dtype), np.empty_like(weights)
    one = np.ones((1, 1), X.dtype)

    def multiply() -> None:
        for rows in blocks:
            here = logits[: len(rows)]
            np.dot(rows, weights, out=here)
            np.dot(rows.T, here, out=gradient)

    def nothing() -> None:
        for _ in blocks:
            np.dot(one, one, out=one)
            np.dot(one, one, out=one)

    return multiply, nothing


def measure(shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    n_rows, n_columns, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_columns), dtype=np.float32)
    classes = rng.integers(0, n_classes, n_rows)
    design = DenseDesign(X, np.dtype(np.float32))
    scaling = column_scaling(design, None, penalty=1e-3, curvature=0.2, fit_intercept=True)
    terms = Terms(CrossEntropy(), ClassIndices(classes), None, n_classes, float(n_rows), 1e-3, True)
    whole, parted = terms.objective(design, scaling, map), terms.objective(design, scaling, map).by_blocks()
    turned = terms.objective(DenseDesign(np.asfortranarray(X), np.dtype(np.float32)), scaling, map)
    parameters = 0.01 * rng.standard_normal(whole.size)
    logits = rng.standard_normal((n_rows, n_classes), dtype=np.float32)
    gradient = np.empty_like(logits)
    works: dict[str, Callable[[], object]] = {
        "one_call": lambda: whole.evaluate(parameters),
        "of_columns": lambda: turned.evaluate(parameters),
        "by_blocks": lambda: parted.evaluate(parameters),
        "loss": lambda: CrossEntropy().value_and_gradient(logits, classes, out=gradient),
    }
    for block in BLOCKS:
        works[f"products {block}"], works[f"calls {block}"] = products(X, n_classes, block)
    samples: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 2):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= 2:
                samples[name].append(1e3 * (time.perf_counter() - start))
    wanted = parted.evaluate(parameters)
    for other in (whole, turned):
        found = other.evaluate(parameters)
        assert np.allclose(found.gradient, wanted.gradient, rtol=0, atol=1e-4 * np.abs(wanted.gradient).max())
    ms = {name: statistics.median(times) for name, times in samples.items()}
    blas = min(ms[f"products {block}"] - ms[f"calls {block}"] for block in BLOCKS)
    figures = {name: ms[name] for name in ("one_call", "of_columns", "by_blocks")} | {
        "blas_and_loss": blas + ms["loss"]
    }
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--no-store", action="store_true", help="print only")
    options = parser.parse_args()
    kullback.set_num_threads(1)
    results = []
    with threadpoolctl.threadpool_limits(1):
        for name, shape in SHAPES.items():
            results.append({"shape": name, "sizes": list(shape), "milliseconds": measure(shape, options.rounds)})
            print(name, results[-1]["milliseconds"], flush=True)
    if not options.no_store:
        content = {"machine": {**machine("scipy"), "threads": 1}, "results": results}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
