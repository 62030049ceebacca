"""Limited-memory quasi-Newton, on SciPy's L-BFGS-B.

Source: Byrd, Lu, Nocedal & Zhu (1995), "A limited memory algorithm for bound constrained optimization". No bounds
are used; what is taken from it is the two-loop curvature estimate and the strong-Wolfe line search.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from kullback.linear.solvers.base import Callback, IterationRecord, Point, Problem, SolverResult, Vector

# Pairs of steps and gradient changes kept. On tables of 5 to 64 columns and 2 to 26 classes, 20 needed up to a fifth
# fewer iterations than 10, and twenty more vectors of parameters are little memory beside the data.
MEMORY = 20


def lbfgs(problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback) -> SolverResult:
    """Minimise with limited-memory BFGS; see `Solver` for the arguments."""
    run = _Run(problem, callback)
    first = run.evaluate(start)
    run.record(start, first)
    if first.gradient.size == 0 or np.abs(first.gradient).max() <= tol:
        return SolverResult(start, True, "", tuple(run.history))

    def step(intermediate_result: OptimizeResult) -> None:
        x = intermediate_result.x
        run.record(x, run.evaluate(x))

    outcome = minimize(
        run.value_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        callback=step,
        options={
            "maxiter": max_iter,
            "maxfun": 20 * max_iter,
            "maxcor": MEMORY,
            "maxls": 40,
            "gtol": tol,
            # Only the gradient decides: a small decrease may be a slow stretch rather than the end.
            "ftol": 0.0,
        },
    )
    return _result(run, np.asarray(outcome.x, dtype=np.float64), tol, max_iter)


class _Run:
    """One minimisation: remembers the last point, so that a step costs no second evaluation."""

    def __init__(self, problem: Problem, callback: Callback) -> None:
        self.problem = problem
        self.callback = callback
        self.history: list[IterationRecord] = []
        self.began = time.perf_counter()
        self._x: Vector | None = None
        self._point: Point | None = None

    def evaluate(self, x: Vector) -> Point:
        if self._point is None or self._x is None or not np.array_equal(x, self._x):
            self._point = self.problem.evaluate(x)
            self._x = x.copy()
        return self._point

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        point = self.evaluate(x)
        return point.objective, point.gradient

    def record(self, x: Vector, point: Point) -> None:
        norm = float(np.abs(point.gradient).max(initial=0.0))
        seconds = time.perf_counter() - self.began
        record = IterationRecord(len(self.history), point.objective, point.loss, norm, seconds)
        self.history.append(record)
        self.callback(record)


def _result(run: _Run, x: Vector, tol: float, max_iter: int) -> SolverResult:
    last = run.history[-1]
    converged = last.gradient_norm <= tol
    if converged:
        reason = ""
    elif last.iteration >= max_iter:
        reason = f"it used all {max_iter} iterations"
    else:
        reason = "no step along the search direction lowered the objective beyond rounding"
    return SolverResult(x, converged, reason, tuple(run.history))
