"""Runs that are stopped when they take too long, each in a process of its own."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def clock() -> float:
    """Seconds: wall clock, or, where KULLBACK_BENCHMARK_CLOCK says ``cpu``, the processor time of this process.

    On one thread the two agree on a machine that does nothing else; on a busy one only processor time can be compared.
    """
    return time.process_time() if clock_name() == "cpu" else time.perf_counter()


def clock_name() -> str:
    return os.environ.get("KULLBACK_BENCHMARK_CLOCK", "wall")


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def choose(n_threads: int, name: str) -> None:
    """Settle the threads and the clock of all processes that follow."""
    os.environ.update(OMP_NUM_THREADS=str(n_threads), KULLBACK_BENCHMARK_CLOCK=name)


@contextmanager
def ended_after(cap: float) -> Iterator[None]:
    """Inside the ``with`` block this process ends after `cap` seconds of the clock in use, whatever it is doing."""
    timer = signal.ITIMER_PROF if clock_name() == "cpu" else signal.ITIMER_REAL
    if math.isfinite(cap):
        signal.setitimer(timer, cap)
    yield
    signal.setitimer(timer, 0)


def child(file: str, *arguments: str) -> tuple[list[Any], bool, str]:
    """Run a benchmark in a process of its own: the JSON lines it printed, whether it was stopped, and why it failed."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KULLBACK_NUM_THREADS")
    environment = {**os.environ, **{name: str(threads()) for name in names}}
    command = [sys.executable, file, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    stopped = done.returncode in (-signal.SIGALRM, -signal.SIGPROF)
    failed = "" if stopped or not done.returncode else (done.stderr.strip().splitlines() or ["?"])[-1]
    return lines, stopped, failed
