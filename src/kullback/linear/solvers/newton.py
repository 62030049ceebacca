"""Newton's method with steps by conjugate gradients, for curvature that comes and goes from row to row.

It also ends fits that a quasi-Newton method leaves at the rounding of the objective: what that learns from differences
of gradients is noise by then, and the Hessian at hand is not.

Of a rounded-off hinge only the rows within its curve bend, and sharply; what a quasi-Newton method learns of them in
one step is gone in the next. The Hessian at hand is exact. Without a penalty it may be singular, and the slope not be
in its range: a direction that it shows no curvature along is then gone by itself, as far as that goes down.

Source: Nocedal & Wright (2006), "Numerical Optimization", algorithm 7.1; Qi & Sun (1993), "A nonsmooth version of
Newton's method", for gradients with kinks.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np

from kullback.linear.solvers.base import Apply, Callback, History, Problem, SolverResult, Vector
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING, PATIENCE
from kullback.linear.solvers.line_search import search
from kullback.linear.solvers.quadratic_model import conjugate_gradients

# Products with the Hessian that a step may take, and the share of the slope that it need not go below.
MOST_PRODUCTS, FINEST = 200, 1e-4


def newton(
    problem: Problem,
    start: Vector,
    *,
    tol: float,
    max_iter: int,
    callback: Callback,
    patience: int = PATIENCE,
    products: int = sys.maxsize,
    between: Callable[[], object] = lambda: None,
) -> SolverResult:
    """Minimise by Newton steps.

    See `Solver` for the arguments not named here.

    Args:
        patience: the number of steps that may come no closer before it ends.
        products: most products with the Hessian, of all steps together.
        between: called before each of them; what it raises passes through.
    """
    history = History(callback, time.perf_counter())
    at = start
    distance, point = problem.check(at, problem.evaluate(at))
    norm = float(np.abs(point.gradient).max(initial=0.0))
    history.add(point, norm, distance)
    least, best, stalled = point.objective, norm, 0
    left = products
    flat: Vector | None = None

    def product(along: Vector) -> Vector:
        nonlocal left
        between()
        left -= 1
        return problem.hessian_product(at, along)

    while distance > tol:
        if left <= 0:
            return history.result(at, BEYOND_ROUNDING)
        if len(history) > max_iter:
            return history.result(at, f"it used all {max_iter} iterations")
        rounding = problem.rounding * abs(point.objective)
        step = None
        if flat is not None:
            step, flat = search(problem.evaluate, at, point, flat, length=1.0, rounding=rounding), None
        if step is None:
            condition = problem.precondition(at) or np.copy
            direction, flat = _direction(product, condition, point.gradient, min(MOST_PRODUCTS, left))
            step = search(problem.evaluate, at, point, direction, length=1.0, rounding=rounding)
        if step is None or stalled >= patience:
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


def _direction(product: Apply, condition: Apply, gradient: Vector, products: int) -> tuple[Vector, Vector | None]:
    """Minus the inverse Hessian times the gradient, as far as so many conjugate gradients get.

    Returns it, and a direction without curvature if they came upon one.
    """
    # The closer the end, the more exact a step is worth it.
    enough = min(0.1, max(FINEST, math.sqrt(float(np.linalg.norm(gradient)))))
    found, flat = conjugate_gradients(product, condition, -gradient, products=products, residual=enough)
    return (found if found.any() else -gradient), flat
