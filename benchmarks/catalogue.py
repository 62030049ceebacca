"""Value and gradient of every softmax loss against plain cross-entropy on class indices of the same logits.

Float32 and two threads for all, in one process. Turns and medians are those of losses.py. Losses over labels and hinges
are in labels_and_margins.py. Writes ``results/catalogue.json``.

    python benchmarks/catalogue.py [--rounds 15] [--threads 2] [--no-store]
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
import torch
from machine import machine

import kullback
from kullback.kernels import _native
from kullback.losses import (
    BalancedSoftmax,
    Brier,
    CrossEntropy,
    Deviance,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    KullbackLeibler,
    Ldam,
    Loss,
    OneVsRest,
    Poly,
    SmoothedZeroOne,
)
from kullback.targets import ClassMixture, ClassRows
from losses import turn

SHAPES = ((1_000_000, 10), (65_536, 100), (4096, 10_000))

# the most that a loss may take on each form of targets, in times of plain cross-entropy on indices
MOST = {"indices": 1.3, "rows": 1.7, "mixture": 1.7}
SLOW = 0.5  # seconds: a call that takes longer is measured once

Work = Callable[[], object]


def softmax_losses(n_classes: int) -> dict[str, Loss]:
    """The softmax family, each loss with its defaults, and cross-entropy with each of its options."""
    several = tuple(float(k % 5 + 1) for k in range(n_classes))
    return {
        "label smoothing": CrossEntropy(label_smoothing=0.1),
        "class weights": CrossEntropy(class_weight=several),
        "temperature": CrossEntropy(temperature=2.0),
        "priors": CrossEntropy(priors=several),
        "softcap": CrossEntropy(softcap=30.0),
        "z-loss": CrossEntropy(z_loss=1e-4),
        "balanced softmax": BalancedSoftmax(class_counts=several),
        "LDAM": Ldam(class_counts=several),
        "focal": Focal(),
        "focal, γ = 0.5": Focal(gamma=0.5),
        "generalised cross-entropy": GeneralisedCrossEntropy(),
        "poly-1": Poly(),
        "smoothed 0–1": SmoothedZeroOne(),
        "Brier": Brier(),
        "one-vs-rest": OneVsRest(),
        "Jensen–Shannon": JensenShannon(),
        "deviance": Deviance(),
    }


def compared(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median milliseconds of each; they take turns."""
    first = {}
    for name, work in works.items():
        start = time.perf_counter()
        work()
        first[name] = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name] += turn(work) if first[name] < SLOW else []
    return {name: statistics.median(samples or [first[name]]) * 1e3 for name, samples in times.items()}


def ours(loss: Loss, logits: Any, targets: Any, gradient: Any) -> Work:
    return lambda: loss.value_and_gradient(logits, targets, out=gradient)


def softmax(n: int, c: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    indices, gradient = rng.integers(0, c, n), np.zeros_like(logits)
    soft = rng.random((n, c), dtype=np.float32)
    soft /= soft.sum(axis=1, keepdims=True)
    rows, mixture = ClassRows(soft), ClassMixture(indices, rng.integers(0, c, n), rng.random(n))
    plain = "cross-entropy"
    losses = softmax_losses(c)
    on_rows = {plain: CrossEntropy(), "Kullback–Leibler": KullbackLeibler()} | losses
    works = {("indices", plain): ours(CrossEntropy(), logits, indices, gradient)}
    works |= {("indices", name): ours(loss, logits, indices, gradient) for name, loss in losses.items()}
    works |= {("rows", name): ours(loss, logits, rows, gradient) for name, loss in on_rows.items()}
    works |= {("mixture", name): ours(loss, logits, mixture, gradient) for name, loss in on_rows.items()}
    times = compared(works, rounds)
    base = times["indices", plain]
    results = []
    for (form, name), milliseconds in times.items():
        most = MOST[form]
        results.append(
            {
                "rows": n,
                "classes": c,
                "targets": form,
                "loss": name,
                "backend": on_rows[name].backend,
                "milliseconds": round(milliseconds, 3),
                "baseline_milliseconds": round(base, 3),
                "ratio": round(milliseconds / base, 2),
                "bar": most,
                "met": milliseconds <= most * base,
            }
        )
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-store", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kullback.set_num_threads(options.threads)
    results = []
    for n, c in SHAPES:
        for row in softmax(n, c, options.rounds):
            results.append(row)
            print(
                f"{f'({n}, {c})':>16} {row['targets']:>8} {row['loss']:<28}{row['milliseconds']:10.2f} ms"
                f"{row['ratio']:8.2f}x <= {row['bar']}{'' if row['met'] else '  missed'}",
                flush=True,
            )
    if not options.no_store:
        content = {
            "what": "value and gradient in one call, float32, in times of plain cross-entropy on class indices",
            "threads": options.threads,
            "instruction_level": _native.level(),
            "machine": machine("torch"),
            "results": results,
        }
        path = Path(__file__).parent / "results" / "catalogue.json"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"stored {path.relative_to(Path(__file__).parents[1])}")
    missed = sum(not row["met"] for row in results)
    print(f"{len(results) - missed} of {len(results)} within their bars")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
