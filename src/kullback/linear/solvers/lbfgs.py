"""Limited-memory BFGS.

Source: Nocedal (1980), "Updating quasi-Newton matrices with limited storage"; Nocedal & Wright (2006), "Numerical
Optimization", algorithms 7.4 (two-loop recursion) and 7.5.

Its own work per step is four sweeps over the kept pairs, at the speed of memory. That matters for sparse text, where
the parameters outnumber the data's non-zeros.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from kullback.linear.solvers.base import Callback, IterationRecord, Point, Problem, SolverResult, Vector
from kullback.linear.solvers.line_search import search

# Pairs of steps and gradient changes kept. On tables of 5 to 64 columns and 2 to 26 classes, 20 needed up to a fifth
# fewer iterations than 10; where the pairs would fill more memory than this, fewer serve as well as more.
MEMORY = 20
LEAST_MEMORY = 6
MEMORY_BYTES = 1 << 26
# A fit that has not lowered its objective or its gradient beyond rounding for so many steps is at its end.
PATIENCE = 15


class Curvature:
    """An estimate of the inverse Hessian from the last steps and gradient changes.

    Args:
        size: P.
        precondition: applies a first estimate of the inverse Hessian to a (P,) vector; None for a multiple of the
            identity that follows the last pair.
    """

    def __init__(self, size: int, precondition: Callable[[Vector], Vector] | None = None) -> None:
        kept = min(MEMORY, max(LEAST_MEMORY, MEMORY_BYTES // max(16 * size, 1)))
        self._steps, self._changes = np.empty((kept, size)), np.empty((kept, size))
        self._inverse = np.empty(kept)
        self._order: list[int] = []
        self._precondition = precondition
        self._step, self._spare = np.empty(size), np.empty(size)
        self._scale = 1.0

    @property
    def empty(self) -> bool:
        """Whether no pair is kept."""
        return not self._order

    def forget(self) -> None:
        """Drop every pair."""
        self._order.clear()

    def learn(self, before: Vector, after: Vector, gradient: Vector, new_gradient: Vector) -> None:
        """Take in one step; a pair without positive curvature beyond rounding is left out."""
        # Built beside the kept pairs, so that a pair that is refused costs no old one.
        step, change = np.subtract(after, before, out=self._step), np.subtract(new_gradient, gradient, out=self._spare)
        width, length = float(step @ change), float(change @ change)
        if not width > 1e-14 * length:
            return
        place = len(self._order) if len(self._order) < len(self._inverse) else self._order.pop(0)
        self._steps[place], self._changes[place] = step, change
        self._inverse[place] = 1.0 / width
        self._scale = width / length
        self._order.append(place)

    def direction(self, gradient: Vector) -> Vector:
        """Minus the estimated inverse Hessian times a (P,) gradient."""
        found = -gradient
        shares = {}
        for place in reversed(self._order):
            share = self._inverse[place] * float(self._steps[place] @ found)
            shares[place] = share
            found -= np.multiply(self._changes[place], share, out=self._spare)
        if self._precondition is not None:
            found = self._precondition(found)
        else:
            found *= self._scale
        for place in self._order:
            share = shares[place] - self._inverse[place] * float(self._changes[place] @ found)
            found += np.multiply(self._steps[place], share, out=self._spare)
        return found


def lbfgs(problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback) -> SolverResult:
    """Minimise with limited-memory BFGS; see `Solver` for the arguments."""
    began = time.perf_counter()
    history: list[IterationRecord] = []

    def record(point: Point) -> float:
        norm = float(np.abs(point.gradient).max(initial=0.0))
        seconds = time.perf_counter() - began
        history.append(IterationRecord(len(history), point.objective, point.loss, norm, seconds))
        callback(history[-1])
        return norm

    at, point = start, problem.evaluate(start)
    norm = record(point)
    curvature = Curvature(problem.size)
    least, best_norm, stalled = point.objective, norm, 0
    while norm > tol:
        if len(history) > max_iter:
            return SolverResult(at, False, f"it used all {max_iter} iterations", tuple(history))
        direction = curvature.direction(point.gradient)
        # Without any curvature yet, the step's length is a guess: at most one unit of scaled parameters.
        length = min(1.0, 1.0 / float(np.linalg.norm(point.gradient))) if curvature.empty else 1.0
        rounding = problem.rounding * abs(point.objective)
        step = search(problem.evaluate, at, point, direction, length=length, rounding=rounding)
        if step is None and not curvature.empty:
            curvature.forget()
            continue
        if step is None or stalled >= PATIENCE:
            return SolverResult(at, False, BEYOND_ROUNDING, tuple(history))
        curvature.learn(at, step.parameters, point.gradient, step.point.gradient)
        at, point = step.parameters, step.point
        norm = record(point)
        moved = point.objective < least - rounding or norm < 0.9 * best_norm
        stalled = 0 if moved else stalled + 1
        least, best_norm = min(least, point.objective), min(norm, best_norm)
    return SolverResult(at, True, "", tuple(history))


BEYOND_ROUNDING = "no step along the search direction lowered the objective beyond rounding"
