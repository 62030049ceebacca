"""The PyTorch functions on the CPU against eager PyTorch and ``torch.compile``: forward and backward pass.

Everything whose time is compared runs in one process, in turns; the figures are medians. Each contender has a gradient
of its own, and dropping its last one belongs to its step. Memory is measured in a process for each contender. Writes
``results/torch_cpu.json``, one entry per set; ``--only`` measures some sets and leaves the others as they are. Without
it everything is measured but ``layer-bfloat16-whole``, which alone takes a quarter of an hour where the processor has
no bfloat16 products: eager PyTorch's time, once.

    python benchmarks/torch_cpu.py [--only float32-3 ...] [--rounds 7] [--threads 2] [--no-store] [--quick] [--list]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from machine import forget_peak, machine, resident

import kullback
import kullback.torch as kt

RESULT = Path(__file__).parent / "results" / "torch_cpu.json"

# (N, C): the least speedup asked for over eager PyTorch and over torch.compile, in float32
SHAPES = {
    (1_000_000, 3): 8.0,
    (1_000_000, 10): 10.0,
    (65_536, 1000): 6.0,
    (4096, 32_000): 6.0,
    (1024, 128_256): 6.0,
}
BFLOAT16_BAR = 6.0
LAYER = (2048, 1024, 64_000)  # N, D, C
# Eager PyTorch needs half a minute for these rows, and a quarter of an hour for those, where the processor has no
# bfloat16 products.
BFLOAT16_LAYER = (64, 1024, 64_000)
QUICK_LAYER = (64, 256, 8000)
SLOW = "layer-bfloat16-whole"
# at most, of eager PyTorch's time and memory, and of the time of PyTorch's own chunked function
TIME_BARS = {"eager": 1.0, "torch_chunked": 1.0}
MEMORY_BARS = {"eager": 1 / 8}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Loss = Callable[..., torch.Tensor]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(
    works: dict[str, Callable[[], object]], rounds: int, *, warm_up: int = 1, calls: int = 1
) -> dict[str, float]:
    """Milliseconds of each, taken in turns of some calls; the turns to warm up are nobody's figure.

    With several calls the first of a turn does not count: it finds the caches full of what the contender before has
    written, which memory has yet to take, and that one's threads still waiting for more.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + warm_up):
        for name, work in works.items():
            elapsed = [seconds(work) for _ in range(calls)]
            if turn >= warm_up:
                times[name] += elapsed[1:] or elapsed
    return {name: round(statistics.median(samples) * 1e3, 3) for name, samples in times.items()}


def cross_entropy(shape: tuple[int, int], dtype: str, bar: float, rounds: int) -> dict[str, Any]:
    n, c = shape
    logits = (3 * torch.randn(n, c)).to(DTYPES[dtype])
    target = torch.randint(0, c, (n,))
    copied = torch.empty_like(logits)
    losses: dict[str, Loss] = {
        "kullback": kt.cross_entropy,
        "eager": F.cross_entropy,
        "compiled": torch.compile(F.cross_entropy, dynamic=False),
    }
    leaves = {name: logits.detach().requires_grad_() for name in losses}

    def step(name: str) -> Callable[[], object]:
        loss, leaf = losses[name], leaves[name]

        def run() -> None:
            leaf.grad = None
            loss(leaf, target).backward()

        return run

    works = {name: step(name) for name in losses}
    works["copy"] = lambda: copied.copy_(logits)
    times = medians(works, rounds, warm_up=2, calls=3)
    gradients = {
        name: leaf.grad[: max(1, 2**16 // c)].float() for name, leaf in leaves.items() if leaf.grad is not None
    }
    error = float((gradients["kullback"] - gradients["eager"]).abs().max() / gradients["eager"].abs().max())
    assert error < (1e-4 if dtype == "float32" else 2e-2), "the gradients differ"
    faster = {name: round(times[name] / times["kullback"], 2) for name in ("eager", "compiled")}
    return {
        "what": "cross_entropy",
        "dtype": dtype,
        "shape": list(shape),
        "milliseconds": times,
        "times_faster_than": faster,
        "copies_of_the_logits": round(times["kullback"] / times["copy"], 2),
        "bar": bar,
        "met": min(faster.values()) >= bar,
    }


# ------------------------------------------------------------ the fused layer


def layer_losses() -> dict[str, Loss]:
    losses: dict[str, Loss] = {
        "kullback": kt.linear_cross_entropy,
        "eager": lambda x, w, y: F.cross_entropy(F.linear(x, w), y),
    }
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        losses["torch_chunked"] = lambda x, w, y: F.linear_cross_entropy(x, w, y, options=options)
    return losses


def layer_batch(shape: tuple[int, int, int], dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n, d, c = shape
    torch.manual_seed(0)
    input = torch.randn(n, d).to(DTYPES[dtype])
    weight = (torch.randn(c, d) / d**0.5).to(DTYPES[dtype])
    return input, weight, torch.randint(0, c, (n,))


def layer_times(shape: tuple[int, int, int], dtype: str, rounds: int, *names: str) -> dict[str, Any]:
    input, weight, target = layer_batch(shape, dtype)

    def step(loss: Loss) -> Callable[[], object]:
        x, w = input.detach().requires_grad_(), weight.detach().requires_grad_()

        def run() -> None:
            x.grad = w.grad = None
            loss(x, w, target).backward()

        return run

    works = {name: step(loss) for name, loss in layer_losses().items() if not names or name in names}
    times = medians(works, rounds, warm_up=int(rounds > 1))
    return compared("linear_cross_entropy", dtype, shape, "milliseconds", times, TIME_BARS)


def layer_memory(shape: tuple[int, int, int], dtype: str, threads: int) -> dict[str, Any]:
    sizes = {name: float(peak_memory_apart(name, shape, dtype, threads)) for name in ("kullback", *MEMORY_BARS)}
    what = "linear_cross_entropy, memory"
    if dtype != "float32":
        what += ", the weight's gradient alone"  # see peak_memory
    return compared(what, dtype, shape, "bytes_beyond_weight_gradient", sizes, MEMORY_BARS)


def compared(
    what: str, dtype: str, shape: tuple[int, ...], unit: str, figures: dict[str, float], bars: dict[str, float]
) -> dict[str, Any]:
    ratios = {name: round(figures["kullback"] / other, 4) for name, other in figures.items() if name != "kullback"}
    return {
        "what": what,
        "dtype": dtype,
        "shape": list(shape),
        unit: figures,
        "share_of": ratios,
        "bars": {name: bar for name, bar in bars.items() if name in ratios},
        "met": all(ratios[name] <= bar for name, bar in bars.items() if name in ratios),
    }


def peak_memory(name: str, shape: tuple[int, int, int], dtype: str) -> int:
    """Bytes a step takes at its peak, beyond what was there before and the weight's own gradient. In this process."""
    d = shape[1]
    loss = layer_losses()[name]
    loss(*(t.requires_grad_(t.is_floating_point()) for t in layer_batch((8, d, 64), dtype))).backward()  # libraries
    input, weight, target = layer_batch(shape, dtype)
    # eager PyTorch's bfloat16 product for the input's gradient takes a quarter of an hour: nobody is asked for that one
    input.requires_grad_(dtype == "float32")
    weight.requires_grad_()
    before = resident("VmRSS")
    forget_peak()
    loss(input, weight, target).backward()
    assert weight.grad is not None
    return resident("VmHWM") - before - weight.grad.numel() * weight.grad.element_size()


def peak_memory_apart(name: str, shape: tuple[int, int, int], dtype: str, threads: int) -> int:
    arguments = ["--peak", name, "--shape", *map(str, shape), "--dtype", dtype, "--threads", str(threads)]
    result = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return int(result.stdout)


# ------------------------------------------------------------ the sets


def sets(quick: bool) -> dict[str, Callable[[int, int], dict[str, Any]]]:
    found: dict[str, Callable[[int, int], dict[str, Any]]] = {}
    for dtype in DTYPES:
        for (n, c), float32_bar in SHAPES.items():
            bar = float32_bar if dtype == "float32" else BFLOAT16_BAR
            shape = (n // 64, c) if quick else (n, c)
            found[f"{dtype}-{c}"] = lambda rounds, threads, s=shape, d=dtype, b=bar: cross_entropy(s, d, b, rounds)
    for dtype in DTYPES:
        timed = QUICK_LAYER if quick else LAYER if dtype == "float32" else BFLOAT16_LAYER
        whole = QUICK_LAYER if quick else LAYER
        most = 3 if dtype == "float32" else 1
        found[f"layer-{dtype}"] = lambda rounds, threads, s=timed, d=dtype, m=most: layer_times(s, d, min(m, rounds))
        found[f"memory-{dtype}"] = lambda rounds, threads, s=whole, d=dtype: layer_memory(s, d, threads)
    whole = QUICK_LAYER if quick else LAYER
    found[SLOW] = lambda rounds, threads: layer_times(whole, "bfloat16", 1, "kullback", "eager")
    return found


def described(name: str, row: dict[str, Any]) -> str:
    if "milliseconds" in row:
        figures = "ms " + ", ".join(f"{who} {t:.1f}" for who, t in row["milliseconds"].items())
    else:
        sizes = row["bytes_beyond_weight_gradient"].items()
        figures = "MiB " + ", ".join(f"{who} {size / 2**20:.0f}" for who, size in sizes)
    if row["what"] == "cross_entropy":
        faster = row["times_faster_than"]
        rest = f"{faster['eager']:.1f}× and {faster['compiled']:.1f}× as fast (bar {row['bar']:g}×)"
    else:
        rest = ", ".join(f"{share} of {who}" for who, share in row["share_of"].items()) + f" (bars {row['bars']})"
    return f"{name:>16}: {figures}; {rest}{'' if row['met'] else '  missed'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="the sets to measure; all by default")
    parser.add_argument("--list", action="store_true", help="name the sets")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-store", action="store_true", help="print only")
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it runs; stores nothing")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kullback.set_num_threads(options.threads)
    if options.peak:
        print(peak_memory(options.peak, tuple(options.shape), options.dtype))
        return 0
    known = sets(options.quick)
    if options.list:
        print("\n".join(known))
        return 0
    if unknown := set(options.only) - set(known):
        parser.error(f"no such sets: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = {}
    for name in options.only or [name for name in known if name != SLOW]:
        torch._dynamo.reset()
        rows[name] = known[name](options.rounds, options.threads)
        print(described(name, rows[name]), flush=True)
    if not (options.no_store or options.quick):
        where = {"threads": options.threads, "machine": machine("torch")}
        stored = json.loads(RESULT.read_text())["results"] if RESULT.exists() else {}
        stored |= {name: row | where for name, row in rows.items()}
        what = "forward and backward pass on the CPU"
        ordered = {name: stored[name] for name in known if name in stored}
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"what": what, "results": ordered}, indent=2) + "\n")
        print(f"stored {RESULT.relative_to(RESULT.parents[2])}")
    missed = [name for name, row in rows.items() if not row["met"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} sets meet their bars")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
