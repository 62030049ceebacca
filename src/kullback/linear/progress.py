"""What a fit shows while it runs: a bar on a terminal, plain lines anywhere else.

The bar measures the way in the logarithm of the gap, since a fit gains about as many digits in every step: from the
gap at its start to the one asked for. Nothing is drawn unless `verbose` asks for it.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kullback.linear.solvers import IterationRecord


class Silent:
    """Shows nothing."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def step(self, record: IterationRecord, of: str = "") -> None:
        """Show an iteration; `of` says of which fit."""

    def fitted(self, text: str, *, minor: bool = False) -> None:
        """Show that one of several fits is done; a minor one gets no line unless iterations do."""


class Lines(Silent):
    """Plain lines on standard output.

    Args:
        iterations: whether every iteration gets one.
    """

    def __init__(self, *, iterations: bool) -> None:
        self._iterations = iterations

    def line(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def step(self, record: IterationRecord, of: str = "") -> None:
        """Print an iteration, if they are wanted."""
        if self._iterations:
            self.line(
                f"{of}iteration {record.iteration:5d}  loss {record.loss:.6f} nats  objective {record.objective:.6f}  "
                f"gradient {record.gradient_norm:.2e}  gap {record.distance:.2e}  {record.seconds:.2f} s"
            )

    def fitted(self, text: str, *, minor: bool = False) -> None:
        """Print what is said of a fit."""
        if self._iterations or not minor:
            self.line(text)


class Bar(Silent):
    """Bars of rich, one for the gap of a single fit, or one for how many of several fits are done.

    Args:
        display: a `rich.progress.Progress` that is shown already.
        goal: the gap that ends a single fit.
        fits: how many fits there are; None for the gap of a single one.
    """

    def __init__(self, display: Any, goal: float, fits: int | None) -> None:
        self._display, self._goal, self._fits = display, goal, fits
        self._first: float | None = None
        self._task = display.add_task("gap" if fits is None else "fits", total=fits or 1.0, told="")
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._display.console.print(text, markup=False, highlight=False)

    def step(self, record: IterationRecord, of: str = "") -> None:
        """Move the bar of a single fit, or say how far the fit is that runs."""
        told = f"{of}iteration {record.iteration}  gap {record.distance:.2e}"
        with self._lock:
            if self._fits is not None:
                self._display.update(self._task, told=told)
                return
            if self._first is None and math.isfinite(record.distance):
                self._first = record.distance
            self._display.update(self._task, completed=way(self._first, record.distance, self._goal), told=told)

    def fitted(self, text: str, *, minor: bool = False) -> None:
        """Count a fit."""
        with self._lock:
            self._display.update(self._task, advance=1, told=text)


def way(first: float | None, now: float, goal: float) -> float:
    """The share of the way from the first gap to the goal that is behind, by the logarithm, from 0 to 1.

    >>> round(way(1.0, 1e-3, 1e-6), 9)
    0.5
    """
    if now <= goal:
        return 1.0
    if first is None or first <= goal or not math.isfinite(now):
        return 0.0
    return min(1.0, max(0.0, math.log(first / now) / math.log(first / goal)))


@contextmanager
def shown(verbose: int, goal: float, fits: int | None = None) -> Iterator[Silent]:
    """What shows a fit inside the ``with`` block.

    Args:
        verbose: 0 for nothing; 1 for a bar if standard output is a terminal, otherwise lines; 2 for a line for every
            iteration in any case.
        goal: the gap that ends a single fit.
        fits: None for a single fit, whose lines are one for each iteration; how many there are otherwise, with a line
            for each, and one for each iteration from 2 on.
    """
    if not verbose:
        yield Silent()
    elif verbose > 1 or not sys.stdout.isatty():
        yield Lines(iterations=fits is None or verbose > 1)
    else:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, TimeElapsedColumn()) as display:
            yield Bar(display, goal, fits)
