"""Losses over labels and hinges, value and gradient, against torch's forward and backward pass.

Float32, two threads for both, all in one process. Turns and medians are those of losses.py. The gradient goes to an
array that exists already, as in a training loop; torch's backward pass allocates its own. Every loss over labels is
compared with torch's ``binary_cross_entropy_with_logits``, whatever the loss: that is what it replaces. Writes
``results/labels_and_margins.json``.

    python benchmarks/labels_and_margins.py [--rounds 5] [--threads 2] [--no-store] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from machine import machine

import kullback
from kullback.kernels import _native
from kullback.losses import Asymmetric, CrammerSinger, SigmoidBrier, SigmoidFocal, WestonWatkins
from losses import TORCH_ROUNDS, turn

BAR = 6.0  # torch's time over ours, at the least

LABELS = {
    "binary_cross_entropy": kullback.BinaryCrossEntropy(),
    "binary_cross_entropy, weighted": kullback.BinaryCrossEntropy(
        positive_weight=np.linspace(1, 5, 100), label_smoothing=0.1, temperature=1.5
    ),
    "binary_cross_entropy, some unknown": kullback.BinaryCrossEntropy(ignore_index=-100),
    "sigmoid_focal(gamma=0)": SigmoidFocal(gamma=0),
    "sigmoid_focal(gamma=1)": SigmoidFocal(gamma=1),
    "sigmoid_focal(gamma=2)": SigmoidFocal(),
    "sigmoid_focal(gamma=2, alpha=0.25)": SigmoidFocal(alpha=0.25),
    "sigmoid_focal(gamma=1.5)": SigmoidFocal(gamma=1.5),
    "asymmetric": Asymmetric(),
    "asymmetric(1, 4)": Asymmetric(gamma_positive=1),
    "asymmetric(0, 4, clip=0)": Asymmetric(clip=0),
    "asymmetric(0.5, 2.5)": Asymmetric(gamma_positive=0.5, gamma_negative=2.5),
    "sigmoid_brier": SigmoidBrier(),
}
HINGES = {
    "weston_watkins": WestonWatkins(),
    "weston_watkins, squared": WestonWatkins(squared=True),
    "crammer_singer": CrammerSinger(),
    "crammer_singer, squared": CrammerSinger(squared=True),
}


def medians(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds):
        for name, work in works.items():
            if name != "torch" or index < TORCH_ROUNDS:
                times[name] += turn(work)
    return {name: statistics.median(samples) * 1e3 for name, samples in times.items()}


def labels(n: int, c: int, rounds: int, only: str | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    held = rng.random((n, c)) < 0.1
    forms = {"float32": held.astype(np.float32), "uint8": held.astype(np.uint8), "bool": held}
    unknown = np.where(rng.random((n, c)) < 0.1, -100, held)
    gradient = np.zeros_like(logits)
    torch_logits, torch_held = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(forms["float32"])
    source, target = torch.from_numpy(logits), torch.from_numpy(gradient)

    def theirs() -> None:
        torch_logits.grad = None
        F.binary_cross_entropy_with_logits(torch_logits, torch_held).backward()

    works: dict[str, Callable[[], object]] = {"torch": theirs, "copy": lambda: target.copy_(source)}
    for name, loss in LABELS.items():
        if only and only not in name:
            continue
        for form, rows in forms.items():
            given = unknown.astype(np.float32 if form == "float32" else np.int8) if "unknown" in name else rows
            if form == "bool" and "unknown" in name:
                continue
            wrapped = kullback.LabelRows(given)
            works[f"{name} / {'int8' if form == 'uint8' and 'unknown' in name else form}"] = (
                lambda loss=loss, wrapped=wrapped: loss.value_and_gradient(logits, wrapped, out=gradient)
            )
    times = medians(works, rounds)
    value, _ = kullback.BinaryCrossEntropy().value_and_gradient(logits, forms["float32"], out=gradient)
    theirs()
    assert torch_logits.grad is not None
    difference = np.abs(gradient - torch_logits.grad.numpy()).max() / np.abs(gradient).max()
    assert difference < 1e-6, "the two gradients differ"
    assert abs(value - F.binary_cross_entropy_with_logits(torch_logits, torch_held).item()) < 1e-5 * value
    return {"what": "labels", "rows": n, "columns": c, "milliseconds": times}


def hinges(n: int, c: int, rounds: int, only: str | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    classes = rng.integers(0, c, n)
    gradient = np.zeros_like(logits)
    torch_logits, torch_classes = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(classes)
    source, target = torch.from_numpy(logits), torch.from_numpy(gradient)

    def theirs() -> None:
        torch_logits.grad = None
        F.multi_margin_loss(torch_logits, torch_classes).backward()

    works: dict[str, Callable[[], object]] = {"torch": theirs, "copy": lambda: target.copy_(source)}
    for name, loss in HINGES.items():
        if not only or only in name:
            works[name] = lambda loss=loss: loss.value_and_gradient(logits, classes, out=gradient)
    times = medians(works, rounds)
    WestonWatkins().value_and_gradient(logits, classes, out=gradient)
    theirs()
    assert torch_logits.grad is not None
    assert np.allclose(gradient, torch_logits.grad.numpy() * c, atol=1e-4 * np.abs(gradient).max())
    return {"what": "hinges", "rows": n, "columns": c, "milliseconds": times}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-store", action="store_true", help="print only")
    parser.add_argument("--only", help="only losses with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kullback.set_num_threads(options.threads)

    results = [
        labels(65_536, 100, options.rounds, options.only),
        hinges(65_536, 100, options.rounds, options.only),
        hinges(4096, 10_000, options.rounds, options.only),
    ]
    missed = 0
    for result in results:
        times = result["milliseconds"]
        print(f"{result['what']} ({result['rows']}, {result['columns']}): torch {times['torch']:.1f} ms, "
              f"copy {times['copy']:.2f} ms")  # fmt: skip
        result["torch_over_ours"] = {}
        for name, time_of in times.items():
            if name in ("torch", "copy"):
                continue
            faster = times["torch"] / time_of
            missed += faster < BAR
            result["torch_over_ours"][name] = round(faster, 2)
            print(f"  {name:<52}{time_of:8.2f} ms{faster:8.1f}x{'' if faster >= BAR else '  missed'}", flush=True)
        result["milliseconds"] = {name: round(value, 3) for name, value in times.items()}
    if not options.no_store:
        stored = {
            "what": "value and gradient in one call, float32; torch: binary_cross_entropy_with_logits and "
            "multi_margin_loss, forward and backward",
            "threads": options.threads,
            "instruction_level": _native.level(),
            "machine": machine("torch"),
            "bar": BAR,
            "results": results,
        }
        path = Path(__file__).parent / "results" / "labels_and_margins.json"
        path.write_text(json.dumps(stored, indent=2) + "\n")
        print(f"stored {path.relative_to(Path(__file__).parents[1])}")
    print("all bars met" if not missed else f"{missed} miss the bar")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
