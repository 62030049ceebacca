"""Limited-memory BFGS.

Source: Nocedal (1980), "Updating quasi-Newton matrices with limited storage"; Nocedal & Wright (2006), "Numerical
Optimization", algorithms 7.4 (two-loop recursion) and 7.5.

Its own work per step is four sweeps over the kept pairs, at the speed of memory. That matters for sparse text, where
the parameters outnumber the data's non-zeros.
"""

from __future__ import annotations

import math
import time

import numpy as np

from kullback.linear.solvers.base import Apply, Callback, History, Point, Problem, SolverResult, Vector
from kullback.linear.solvers.line_search import search

# Pairs of steps and gradient changes kept. On tables of 5 to 64 columns and 2 to 26 classes, 20 needed up to a fifth
# fewer iterations than 10; where the pairs would fill more memory than this, fewer serve as well as more.
MEMORY = 20
LEAST_MEMORY = 6
MEMORY_BYTES = 1 << 26
# A fit that has not lowered its objective or its gradient beyond rounding for so many steps is at its end.
PATIENCE = 15
# How often it may begin anew from there, with nothing but a fresh estimate.
MOST_RESTARTS = 2


class Curvature:
    """An estimate of the inverse Hessian from the last steps and gradient changes.

    Args:
        size: P.
        precondition: applies a first estimate of the inverse Hessian to a (P,) vector; None for the identity. Either
            is scaled to agree with a pair: the identity with the last one, an estimate with the first one after it.
    """

    def __init__(self, size: int, precondition: Apply | None = None) -> None:
        kept = min(MEMORY, max(LEAST_MEMORY, MEMORY_BYTES // max(16 * size, 1)))
        self._steps, self._changes = np.empty((kept, size)), np.empty((kept, size))
        self._inverse = np.empty(kept)
        self._order: list[int] = []
        self._precondition = precondition
        self._step, self._spare = np.empty(size), np.empty(size)
        self._scale, self._scaled = 1.0, False

    @property
    def empty(self) -> bool:
        """Whether nothing is known of the curvature."""
        return not self._order and self._precondition is None

    def forget(self) -> None:
        """Drop every pair, and the first estimate with them."""
        self._order.clear()
        self._precondition = None
        self._scale = 1.0

    @property
    def learnt(self) -> bool:
        """Whether any pair is kept."""
        return bool(self._order)

    def restart(self, precondition: Apply | None) -> None:
        """Drop every pair, and replace the first estimate."""
        self.forget()
        self._precondition, self._scaled = precondition, False

    def renew(self, precondition: Apply | None) -> None:
        """Replace the first estimate, and drop the pairs: they are of a Hessian that is no longer there.

        Nothing is done for no estimate, or for the one that is there.
        """
        if precondition is None or precondition is self._precondition:
            return
        self._precondition, self._scaled = precondition, False
        if self._order:
            last = self._order[-1]
            change = self._changes[last]
            self._scale = 1.0 / (self._inverse[last] * float(change @ precondition(change)))
            self._order.clear()

    def first_length(self, gradient: Vector) -> float:
        """The length of step to try first."""
        if self._order or self._precondition is not None:
            return 1.0
        # Without any curvature yet it is a guess: at most one unit of scaled parameters.
        return min(1.0, 1.0 / float(np.linalg.norm(gradient)))

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
        if self._precondition is None:
            self._scale = width / length
        elif not self._scaled:
            self._scale, self._scaled = width / float(change @ self._precondition(change)), True
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
        found *= self._scale
        for place in self._order:
            share = shares[place] - self._inverse[place] * float(self._changes[place] @ found)
            found += np.multiply(self._steps[place], share, out=self._spare)
        return found


def lbfgs(problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback) -> SolverResult:
    """Minimise with limited-memory BFGS; see `Solver` for the arguments."""
    return _minimise(problem, start, tol, max_iter, callback, frozenset())


def preconditioned_lbfgs(
    problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback
) -> SolverResult:
    """Minimise with limited-memory BFGS on top of the problem's own estimate of the Hessian, renewed a few times."""
    return _minimise(problem, start, tol, max_iter, callback, RENEWED)


def _minimise(
    problem: Problem, start: Vector, tol: float, max_iter: int, callback: Callback, renewed: frozenset[int]
) -> SolverResult:
    history = History(callback, time.perf_counter())

    def record(point: Point, distance: float) -> float:
        norm = float(np.abs(point.gradient).max(initial=0.0))
        history.add(point, norm, distance)
        return norm

    at = start
    distance, point = problem.check(start, problem.evaluate(start))
    best_norm = record(point, distance)
    curvature = Curvature(problem.size, problem.precondition(at) if renewed else None)
    least, stalled, restarts, due, fresh = point.objective, 0, 0, False, 0
    while distance > tol:
        if len(history) > max_iter:
            return history.result(at, f"it used all {max_iter} iterations")
        direction = curvature.direction(point.gradient)
        rounding = problem.rounding * abs(point.objective)
        step = search(
            problem.evaluate, at, point, direction, length=curvature.first_length(point.gradient), rounding=rounding
        )
        if step is None or stalled >= PATIENCE:
            if problem.refine():
                distance, point = problem.check(at, problem.evaluate(at))
                least, best_norm, stalled = point.objective, float(np.abs(point.gradient).max(initial=0.0)), 0
                # The pairs hold the rounding of what was computed before.
                curvature.restart(problem.precondition(at) if renewed else None)
            elif curvature.learnt and renewed and (step is None or restarts < MOST_RESTARTS):
                # Pairs of steps near rounding may hold nothing else.
                curvature.restart(problem.precondition(at))
                restarts, stalled = restarts + (step is not None), 0
            elif step is None and not curvature.empty:
                curvature.forget()
            else:
                return history.result(at, BEYOND_ROUNDING)
            continue
        curvature.learn(at, step.parameters, point.gradient, step.point.gradient)
        at = step.parameters
        before = distance
        distance, point = problem.check(at, step.point)
        norm = record(point, distance)
        moved = point.objective < least - rounding or norm < 0.9 * best_norm
        stalled = 0 if moved else stalled + 1
        least, best_norm = min(least, point.objective), min(norm, best_norm)
        fresh += 1
        wait = max(AT_LEAST, REPAID * problem.estimate_passes) if renewed else math.inf
        due = due or len(history) - 1 in renewed or fresh >= wait
        if due and distance > tol and _steps_left(before, distance, tol) > FEW_STEPS:
            # A fresh estimate deserves its own steps: steps that stalled were those of the pairs it replaces.
            due, stalled, fresh = False, 0, 0
            curvature.renew(problem.precondition(at))
    return history.result(at)


def _steps_left(before: float, now: float, tol: float) -> float:
    """How many more steps it takes at the pace of the last one."""
    if not (math.isfinite(before) and 0 < now < before):
        return math.inf
    return math.log(now / tol) / math.log(before / now)


BEYOND_ROUNDING = "no step along the search direction lowered the objective beyond rounding"
# The estimate is not renewed where the end is no more steps away than these.
FEW_STEPS = 2.0
# Iterations after which the estimate of the Hessian is renewed: not before the probabilities have settled somewhat, and
# then less and less. On tables of 9 to 784 columns, renewing after 4, 12, 30, 80, … took 0.9 to 1.2 times as long,
# after 6, 18, 54, … 0.9 to 1.1 times, and after 2, 4, 7, 11, 18, … up to 1.6 times.
RENEWED = frozenset({6, 16, 40, 100, 250, 600})
# And once so many times the passes that an estimate takes as long as have gone by since the last one, and at least so
# many steps: where passes are slow, as they are on long tables of few columns, a better estimate is cheap. Shuttle's
# raw columns took 0.4 times as long with it, others 0.8 to 1.1 times.
REPAID, AT_LEAST = 3.0, 10
