"""Every loss' value and gradient against plain cross-entropy, or against torch where torch has the loss.

Softmax losses stand beside plain cross-entropy on class indices of the same logits; losses on labels beside torch's
``binary_cross_entropy_with_logits``, hinges beside its ``multi_margin_loss``, forward and backward. Float32 and two
threads for all, in one process. Turns and medians are those of losses.py. Writes ``results/catalogue.json``.

    python benchmarks/catalogue.py [--rounds 5] [--threads 2] [--no-store]
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
import torch.nn.functional as F  # noqa: N812
from machine import machine

import kullback
from kullback.kernels import _native
from kullback.losses import (
    Asymmetric,
    BalancedSoftmax,
    BinaryCrossEntropy,
    Brier,
    CrammerSinger,
    CrossEntropy,
    Deviance,
    Focal,
    GeneralisedCrossEntropy,
    KullbackLeibler,
    Ldam,
    Loss,
    OneVsRest,
    Poly,
    SigmoidBrier,
    SigmoidFocal,
    SmoothedZeroOne,
    WestonWatkins,
)
from kullback.targets import ClassRows
from losses import turn

SOFTMAX_SHAPES = ((1_000_000, 10), (65_536, 100), (4096, 10_000))
SIGMOID_SHAPES = ((65_536, 100),)
MARGIN_SHAPES = ((65_536, 100), (4096, 10_000))

# the most that a loss may take, in times of plain cross-entropy on indices; the least that torch must take, in ours
MOST_ON_INDICES, MOST_ON_ROWS, LEAST_FOR_TORCH = 1.3, 1.7, 6.0
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


def theirs(function: Callable[[Any], Any], logits: Any) -> Work:
    tensor = torch.from_numpy(logits).requires_grad_()

    def work() -> float:
        tensor.grad = None
        value = function(tensor)
        value.backward()
        return float(value.item())

    return work


def softmax(n: int, c: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    indices, gradient = rng.integers(0, c, n), np.zeros_like(logits)
    soft = rng.random((n, c), dtype=np.float32)
    soft /= soft.sum(axis=1, keepdims=True)
    rows = ClassRows(soft)
    plain = "cross-entropy"
    losses = softmax_losses(c)
    on_rows = {plain: CrossEntropy(), "Kullback–Leibler": KullbackLeibler()} | losses
    works = {("indices", plain): ours(CrossEntropy(), logits, indices, gradient)}
    works |= {("indices", name): ours(loss, logits, indices, gradient) for name, loss in losses.items()}
    works |= {("rows", name): ours(loss, logits, rows, gradient) for name, loss in on_rows.items()}
    times = compared(works, rounds)
    base = times["indices", plain]
    results = []
    for (form, name), milliseconds in times.items():
        most = MOST_ON_INDICES if form == "indices" else MOST_ON_ROWS
        loss = on_rows[name]
        results.append(
            entry("softmax", n, c, name, loss, milliseconds, form=form, baseline=base, ratio=milliseconds / base)
            | {"bar": most, "met": milliseconds <= most * base}
        )
    return results


def against_torch(
    family: str, n: int, c: int, losses: dict[str, Loss], logits: Any, targets: Any, torch_work: Work, rounds: int
) -> list[dict[str, Any]]:
    gradient = np.zeros_like(logits)
    works = {"torch": torch_work} | {name: ours(loss, logits, targets, gradient) for name, loss in losses.items()}
    times = compared(works, rounds)
    results = []
    for name, loss in losses.items():
        speedup = times["torch"] / times[name]
        results.append(
            entry(family, n, c, name, loss, times[name], form="indices", baseline=times["torch"], ratio=speedup)
            | {"bar": LEAST_FOR_TORCH, "met": speedup >= LEAST_FOR_TORCH}
        )
    return results


def sigmoid(n: int, c: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    labels = (rng.random((n, c)) < 0.1).astype(np.float32)
    tensor = torch.from_numpy(labels)
    work = theirs(lambda z: F.binary_cross_entropy_with_logits(z, tensor), logits)
    losses: dict[str, Loss] = {
        "binary cross-entropy": BinaryCrossEntropy(),
        "positive weights": BinaryCrossEntropy(positive_weight=tuple(float(k % 5 + 1) for k in range(c))),
        "sigmoid focal": SigmoidFocal(),
        "asymmetric": Asymmetric(),
        "Brier, per label": SigmoidBrier(),
    }
    assert abs(BinaryCrossEntropy()(logits, labels) - float(work())) < 1e-5, "the two losses differ"  # type: ignore[arg-type]
    return against_torch("sigmoid", n, c, losses, logits, labels, work, rounds)


def margin(n: int, c: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    indices = rng.integers(0, c, n)
    tensor = torch.from_numpy(indices)
    results = []
    for power in (1, 2):
        work = theirs(lambda z, p=power: F.multi_margin_loss(z, tensor, p=p), logits)  # type: ignore[misc]
        losses: dict[str, Loss] = {
            "Weston–Watkins": WestonWatkins(squared=power == 2),
            "Crammer–Singer": CrammerSinger(squared=power == 2),
        }
        value = losses["Weston–Watkins"](logits, indices) / c
        assert abs(value - float(work())) < 1e-4 * value, "the two losses differ"  # type: ignore[arg-type]
        named = {name + (", squared" if power == 2 else ""): loss for name, loss in losses.items()}
        results += against_torch("margin", n, c, named, logits, indices, work, rounds)
    return results


def entry(
    family: str, n: int, c: int, name: str, loss: Loss, milliseconds: float, *, form: str, baseline: float, ratio: float
) -> dict[str, Any]:
    return {
        "family": family,
        "rows": n,
        "classes": c,
        "targets": "labels" if family == "sigmoid" else form,
        "loss": name,
        "backend": loss.backend,
        "milliseconds": round(milliseconds, 3),
        "baseline_milliseconds": round(baseline, 3),
        "ratio": round(ratio, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-store", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kullback.set_num_threads(options.threads)
    results = []
    for measure, shapes in ((softmax, SOFTMAX_SHAPES), (sigmoid, SIGMOID_SHAPES), (margin, MARGIN_SHAPES)):
        for n, c in shapes:
            for row in measure(n, c, options.rounds):
                results.append(row)
                sign = "<=" if row["family"] == "softmax" else ">="
                print(
                    f"{f'({n}, {c})':>16} {row['targets']:>8} {row['loss']:<28}{row['milliseconds']:10.2f} ms"
                    f"{row['ratio']:8.2f}x {sign} {row['bar']}{'' if row['met'] else '  missed'}",
                    flush=True,
                )
    if not options.no_store:
        content = {
            "what": "value and gradient in one call, float32: softmax losses in times of plain cross-entropy on class "
            "indices, the others how many times as long torch's loss takes",
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
