"""Times by CUDA events and peaks of device memory; on the CPU, one plain run to see that the code runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# What is measured must come from memory, not from a cache the previous repetition has filled.
CACHE_BYTES = 2**28


class Measured(NamedTuple):
    """Median milliseconds, how often measured, and the peak of memory beyond what was there before, in bytes."""

    milliseconds: float
    repetitions: int
    peak_bytes: int


class Gpu:
    """Measures on the current CUDA device."""

    device = "cuda"
    dry = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.flush = torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")

    def measure(self, call: Callable[[], object], clear: Callable[[], object] = bool) -> Measured:
        """Run `call` once to compile, twice to warm up, then until `seconds` are used or 50 times, at least 5.

        `clear` frees what the call leaves behind, so that its memory is counted as the call's own.
        """
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        clear()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        times: list[float] = []
        start = time.perf_counter()
        while len(times) < 5 or (time.perf_counter() - start < self.seconds and len(times) < 50):
            self.flush.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        clear()
        return Measured(statistics.median(times), len(times), peak)


class DryRun:
    """Runs everything once on the CPU; its times mean nothing."""

    device = "cpu"
    dry = True

    def measure(self, call: Callable[[], object], clear: Callable[[], object] = bool) -> Measured:
        """Run `call` once."""
        start = time.perf_counter()
        call()
        clear()
        return Measured((time.perf_counter() - start) * 1e3, 1, 0)


Meter = Gpu | DryRun


def attempt(
    meter: Meter, what: dict[str, Any], call: Callable[[], object], clear: Callable[[], object] = bool
) -> dict[str, Any]:
    """One result: what was measured and its figures, or why it could not run."""
    try:
        return {**what, **meter.measure(call, clear)._asdict()}
    except Exception as reason:  # out of memory, or a compiler's own: the others are to be measured all the same
        clear()
        return {**what, "failed": f"{type(reason).__name__}: {reason}"[:300]}
