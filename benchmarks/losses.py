"""Cross-entropy value and gradient against torch's forward and backward pass, and against a copy of the logits.

Float32, two threads for both, all in one process. They take turns; a turn is a few calls in a row, the first of
which does not count: for some milliseconds after a call, a library's threads keep a processor busy waiting for the
next, which would be counted against whoever comes then. The median of all counted calls. The gradient goes to an
array that exists already, as in a training loop; torch's backward pass allocates its own. Writes
``results/losses.json``.

    python benchmarks/losses.py [--rounds 5] [--threads 2] [--no-store]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from machine import machine

import kullback
from kullback.kernels import _native

# (N, C), and the least torch time / ours and the most ours / copy that are asked for
BARS = {
    (1_000_000, 3): (8.0, None),
    (1_000_000, 10): (10.0, 5.0),
    (65_536, 1000): (6.0, 1.6),
    (4096, 32_000): (6.0, 1.6),
    (1024, 128_256): (6.0, 1.6),
}
COUNTED_CALLS = 3  # in a turn, after one that is not counted
TORCH_ROUNDS = 3


def turn(work: Callable[[], object]) -> list[float]:
    """Seconds of each counted call."""
    work()
    samples = []
    for _ in range(COUNTED_CALLS):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return samples


def measure(n: int, c: int, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((n, c), dtype=np.float32) * 3
    classes = rng.integers(0, c, n)
    gradient = np.zeros_like(logits)
    loss = kullback.CrossEntropy()
    torch_logits = torch.from_numpy(logits).requires_grad_()
    torch_classes = torch.from_numpy(classes)
    source, target = torch.from_numpy(logits), torch.from_numpy(gradient)

    def ours() -> float:
        return loss.value_and_gradient(logits, classes, out=gradient)[0]

    def theirs() -> float:
        torch_logits.grad = None
        value = F.cross_entropy(torch_logits, torch_classes)
        value.backward()
        return value.item()

    times: dict[str, list[float]] = {"kullback": [], "value_only": [], "torch": [], "copy": []}
    for index in range(rounds):
        times["kullback"] += turn(ours)
        times["value_only"] += turn(lambda: loss(logits, classes))
        times["copy"] += turn(lambda: target.copy_(source))
        if index < TORCH_ROUNDS:
            times["torch"] += turn(theirs)
    value = ours()
    largest = float(np.abs(gradient).max())
    assert torch_logits.grad is not None
    difference = float(np.abs(gradient - torch_logits.grad.numpy()).max()) / largest
    assert abs(value - theirs()) < 1e-5 * value, "the two losses differ"
    # measured against float64, torch's own float32 error reaches 1e-5 at 32000 classes
    assert difference < 1e-4, "the two gradients differ"
    return {name: statistics.median(samples) * 1e3 for name, samples in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-store", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kullback.set_num_threads(options.threads)

    columns = ("ours ms", "value ms", "torch ms", "copy ms", "torch/ours", "ours/copy")
    print(f"{'shape':>16}" + "".join(f"{name:>11}" for name in columns))
    rows, missed = [], 0
    for (n, c), (least_speedup, most_copies) in BARS.items():
        times = measure(n, c, options.rounds)
        speedup, copies = times["torch"] / times["kullback"], times["kullback"] / times["copy"]
        met = speedup >= least_speedup and (most_copies is None or copies <= most_copies)
        missed += not met
        print(
            f"{f'({n}, {c})':>16}{times['kullback']:11.2f}{times['value_only']:11.2f}{times['torch']:11.2f}"
            f"{times['copy']:11.2f}{speedup:10.1f}x{copies:10.2f}x{'' if met else '  missed'}",
            flush=True,
        )
        rows.append(
            {
                "rows": n,
                "classes": c,
                "milliseconds": {name: round(value, 3) for name, value in times.items()},
                "torch_over_ours": round(speedup, 2),
                "ours_over_copy": round(copies, 2),
                "bars": {"torch_over_ours": least_speedup, "ours_over_copy": most_copies},
                "met": met,
            }
        )
    if not options.no_store:
        result = {
            "what": "cross-entropy value and gradient in one call, float32",
            "threads": options.threads,
            "instruction_level": _native.level(),
            "machine": machine("torch"),
            "results": rows,
        }
        path = Path(__file__).parent / "results" / "losses.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"stored {path.relative_to(Path(__file__).parents[1])}")
    print("all bars met" if not missed else f"{missed} of {len(rows)} shapes miss a bar")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
