"""Newton's method with steps by conjugate gradients, for curvature that comes and goes from row to row.

Of a rounded-off hinge only the rows within its curve bend, and sharply; what a quasi-Newton method learns of them in
one step is gone in the next. The Hessian at hand is exact.

Source: Nocedal & Wright (2006), "Numerical Optimization", algorithm 7.1; Qi & Sun (1993), "A nonsmooth version of
Newton's method", for gradients with kinks.
"""

from __future__ import annotations

import math
import time

import numpy as np

from kullback.linear.solvers.base import Callback, History, Problem, SolverResult, Vector
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING, PATIENCE
from kullback.linear.solvers.line_search import search

# Products with the Hessian that a step may take.
MOST_PRODUCTS = 200


def newton(problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback) -> SolverResult:
    """Minimise by Newton steps; see `Solver` for the arguments."""
    history = History(callback, time.perf_counter())
    at = start
    distance, point = problem.check(at, problem.evaluate(at))
    norm = float(np.abs(point.gradient).max(initial=0.0))
    history.add(point, norm, distance)
    least, best, stalled = point.objective, norm, 0
    while distance > tol:
        if len(history) > max_iter:
            return history.result(at, f"it used all {max_iter} iterations")
        rounding = problem.rounding * abs(point.objective)
        direction = _direction(problem, at, point.gradient)
        step = search(problem.evaluate, at, point, direction, length=1.0, rounding=rounding)
        if step is None or stalled >= PATIENCE:
            if not problem.refine():
                return history.result(at, BEYOND_ROUNDING)
            distance, point = problem.check(at, problem.evaluate(at))
            least, best, stalled = point.objective, math.inf, 0
            continue
        at = step.parameters
        distance, point = problem.check(at, step.point)
        norm = float(np.abs(point.gradient).max(initial=0.0))
        history.add(point, norm, distance)
        moved = point.objective < least - rounding or norm < 0.9 * best
        stalled = 0 if moved else stalled + 1
        least, best = min(least, point.objective), min(norm, best)
    return history.result(at)


def _direction(problem: Problem, at: Vector, gradient: Vector) -> Vector:
    """Minus the inverse Hessian times the gradient, as far as conjugate gradients get."""
    found, left = np.zeros_like(gradient), -gradient
    along = left.copy()
    square = float(left @ left)
    # The closer the end, the more exact a step is worth it.
    enough = min(0.1, math.sqrt(math.sqrt(square))) * math.sqrt(square)
    for _ in range(MOST_PRODUCTS):
        product = problem.hessian_product(at, along)
        bend = float(along @ product)
        if bend <= 1e-15 * float(along @ along):
            break
        length = square / bend
        found += length * along
        left -= length * product
        before, square = square, float(left @ left)
        if math.sqrt(square) <= enough:
            break
        along = left + (square / before) * along
    return found if found.any() else -gradient
