"""A fit with a lasso, elastic net or group penalty: precisions, certificate, and which features are looked at.

Where features are many and few of them count, passes over all of them are rare. A pass over all gives a duality gap,
proves features zero once and for all, and chooses those with the largest violations; the solver then works on the
chosen ones alone, until their own gap is a fraction of the whole one.

Source: Massias, Gramfort & Salmon (2018), "Celer: a fast solver for the lasso with dual extrapolation", for working
sets of features on top of gap-safe screening.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import NO_PENALTY, Certificate
from kullback.linear.choice import Terms, precisions
from kullback.linear.design import DenseDesign, Design, SparseDesign
from kullback.linear.interruption import Stopped
from kullback.linear.penalties import Penalty
from kullback.linear.problem import relative_gap, unproved
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.rounding import lost_in_rounding
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import IterationRecord, Point, SolverResult
from kullback.linear.solvers.prox_newton import prox_newton
from kullback.linear.sparse_problem import Bound, SparseObjective
from kullback.linear.support_curvature import SupportCurvature

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]
# A start that took work, how often the data were read for it, and why the fit must stop, if it must.
First: TypeAlias = Callable[[int], tuple[Parameters, int, str]]

# Features first chosen, and how many times those in use are chosen later.
LEAST_CHOSEN = 64
GROWTH = 2
# A choice of more than this share of the features is a choice of all.
NEARLY_ALL = 0.5
# A dual point must hold the gradient to a share of the penalty, which is small itself: below this relative gap the
# rounding of float32 sums would be all that is left of it.
SINGLE_UNTIL = 1e-2
# With so few features a pass over all of them costs little more than over some.
FEW_COLUMNS = 1024
# Where more than this share of a few features would leave zero at once, most of them are likely to be used.
MANY = 0.5
# The share of the whole gap to which the chosen features are solved.
INNER = 0.2


@dataclass(frozen=True, eq=False)
class SparseFit(RawFit):
    """Where a fit ended.

    Attributes:
        screened: (d,) which features were proved to be zero along the way.
    """

    screened: NDArray[np.bool_]


class SparseLinearProblem:
    """A `SparseProblem`: its distance is the relative duality gap, or the violation where there is none.

    Args:
        design: the data, all or some of its columns.
        terms: the rest of the objective.
        scaling: of these columns.
        penalty: per example.
        tol: the distance that ends the fit.
        run: runs several calls at once and keeps their order.
        earlier: how often the fit that this one continues read the data.
    """

    def __init__(
        self,
        design: DenseDesign | SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        penalty: Penalty,
        *,
        tol: float,
        run: Run = map,
        earlier: int = 0,
    ) -> None:
        smooth = replace(terms, penalty=0.0)  # what is not smooth, and its ridge, are the SparseObjective's business

        def objective(of: Design) -> SparseObjective:
            return SparseObjective(smooth.objective(of, scaling, run), penalty)

        exact, fast = precisions(design, scaling)
        self.objective = objective(exact)
        self._fast = None if fast is None else objective(fast)
        self._active = self.objective if self._fast is None else self._fast
        self.curvature = SupportCurvature(self.objective, design, run, lambda: earlier + self.passes)
        self.tol = tol
        self.why_no_gap = why_no_gap(self.objective)
        self.dual, self.reason = -math.inf, self.why_no_gap
        self.proved: tuple[Bound, float] | None = None
        self._check_below = tol
        self._exact_at: tuple[Vector, Point] | None = None
        self.at = np.zeros(self.objective.size)  # the last point that was checked

    @property
    def rounding(self) -> float:
        """Relative rounding of a value."""
        return self._active.smooth.rounding

    @property
    def passes(self) -> int:
        """How often the data was read."""
        return self.objective.smooth.passes + (0 if self._fast is None else self._fast.smooth.passes)

    def evaluate(self, parameters: Vector) -> Point:
        """Objective, loss and the gradient of all but the norm."""
        return self._active.evaluate(parameters)

    @property
    def finest(self) -> bool:
        """Whether passes run in float64."""
        return self._active is self.objective

    def refine(self) -> bool:
        """Compute in float64 from now on; False if that is so already."""
        if self._active is self.objective:
            return False
        self._active = self.objective
        return True

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """The distance from the optimum, and the point as exactly as it has become known."""
        self.at = parameters
        cheap = self._cheap(parameters, point)
        if cheap <= SINGLE_UNTIL and self.refine():
            point = self.evaluate(parameters)
            cheap = self._cheap(parameters, point)
        if cheap > self._check_below:
            return unproved(cheap, relative_gap(point.objective, self.dual), self.tol), point
        exact = self.exactly(parameters, point)
        distance = self.violation(parameters, exact) if self.why_no_gap else self.prove(parameters, exact)
        if distance <= self.tol:
            return distance, exact
        self._check_below = cheap / 4
        return distance, point

    def prove(self, parameters: Vector, point: Point) -> float:
        """The relative gap at a point known in float64, from the best bound so far."""
        bound = self.objective.bound(parameters, point)
        self.reason = bound.reason or self.reason
        self.proved = (bound, point.objective - bound.value)
        self.dual = max(self.dual, bound.value)
        return relative_gap(point.objective, self.dual)

    def exactly(self, parameters: Vector, point: Point | None = None) -> Point:
        """The point in float64."""
        if self._exact_at is None or not np.array_equal(self._exact_at[0], parameters):
            known = point is not None and self._active is self.objective
            found = point if point is not None and known else self.objective.evaluate(parameters)
            self._exact_at = (parameters.copy(), found)
        return self._exact_at[1]

    def violation(self, parameters: Vector, point: Point) -> float:
        """The largest component of the least subgradient, per column standardised."""
        return float(self.objective.violations(parameters, point.gradient).max(initial=0.0))

    def _cheap(self, parameters: Vector, point: Point) -> float:
        if self.why_no_gap:
            return self.violation(parameters, point)
        return relative_gap(point.objective, self._active.bound(parameters, point, rough=True).value)


def why_no_gap(objective: SparseObjective) -> str:
    """Why a problem has no duality gap, or an empty string if it has one."""
    loss = objective.smooth.loss
    if not loss.convex:
        return f"{loss.name} is not convex, so no point can be proved optimal"
    if not (objective.penalty.lasso or objective.penalty.ridge):
        return NO_PENALTY
    return ""


def fit_sparse(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    penalty: Penalty,
    *,
    start: Parameters | None,
    tol: float,
    max_iter: int,
    first: First | None = None,
    follow: Follow | None = None,
    run: Run = map,
    earlier: int = 0,
) -> SparseFit:
    """Minimise the loss plus a penalty with a kink.

    Args:
        design: the data.
        terms: the rest of the objective; its `penalty` is not read.
        scaling: the change of variables.
        penalty: per example, its `lasso` above 0.
        start: raw weights (d, C) and intercepts (C,) to start from, or None for zeros.
        tol: the relative duality gap that ends the fit.
        max_iter: most accepted steps, of all working sets together.
        first: finds a better start, in at most so many steps; called where most of few features of dense data are
            likely to be used.
        follow: called with the record of every accepted step, and a function that gives the raw weights (d, C) and
            intercepts (C,) there. It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
        earlier: how often a fit that this one continues read the data; a long one is worth a better Hessian.
    """
    return _Fit(design, terms, scaling, penalty, tol, max_iter, follow, run, earlier).run(start, first)


class _Fit:
    def __init__(
        self,
        design: DenseDesign | SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        penalty: Penalty,
        tol: float,
        max_iter: int,
        follow: Follow | None,
        run: Run,
        earlier: int,
    ) -> None:
        self._design, self._terms, self._scaling, self._penalty = design, terms, scaling, penalty
        self._tol, self._max_iter, self._follow, self._map = tol, max_iter, follow, run
        self._earlier = earlier
        self._began = time.perf_counter()
        self._history: list[IterationRecord] = []
        self._other_passes = 0

    def run(self, start: Parameters | None, first: First | None) -> SparseFit:
        whole = self._problem(None, self._tol)
        at = np.zeros(whole.objective.size) if start is None else whole.objective.from_raw(*start)
        distance, point = whole.check(at, whole.evaluate(at))
        n_columns = self._design.shape[1]
        if first is not None and distance > self._tol and self._many_pulled(whole, at, point):
            at, distance, point, stopped = self._begin(whole, at, distance, point, first)
            if stopped:
                return self._finish(whole, at, distance, stopped, np.ones(n_columns, dtype=bool))
        alive = np.ones(n_columns, dtype=bool)
        reach = None if whole.why_no_gap else whole.objective.reach()
        while distance > self._tol:
            chosen = self._chosen(whole, at, point, alive)
            if n_columns <= FEW_COLUMNS or len(chosen) > NEARLY_ALL * n_columns or whole.why_no_gap:
                break
            part = self._problem(chosen, max(INNER * distance, 0.5 * self._tol))
            inner, stopped = self._solve(part, self._restrict(whole, at, chosen), chosen)
            at = self._enlarge(whole, inner, chosen)
            point = whole.exactly(at)
            distance = whole.prove(at, point)
            if reach is not None and whole.proved is not None and math.isfinite(whole.proved[1]):
                zero = whole.objective.zeros(whole.proved[0], whole.proved[1], reach)
                scaled, _ = whole.objective.split(at)
                alive &= ~zero | scaled.any(axis=1)
            if stopped:
                return self._finish(whole, at, distance, stopped, alive)
        result, stopped = self._solve(whole, at) if distance > self._tol or not self._history else (at, "")
        return self._finish(whole, result, math.nan, stopped, alive)

    def _problem(self, columns: Index | None, tol: float) -> SparseLinearProblem:
        design, scaling = self._design, self._scaling
        if columns is not None:
            scaling = replace(scaling, centre=scaling.centre[columns], scale=scaling.scale[columns])
            design = design.columns(columns)
        return SparseLinearProblem(
            design, self._terms, scaling, self._penalty, tol=tol, run=self._map, earlier=self._earlier
        )

    def _chosen(self, problem: SparseLinearProblem, at: Vector, point: Point, alive: NDArray[np.bool_]) -> Index:
        """The features in use and those with the largest violations, in order."""
        objective = problem.objective
        scaled, _ = objective.split(at)
        used = scaled.any(axis=1)
        found = objective.violations(at, point.gradient)[: scaled.size].reshape(scaled.shape)
        # In raw units every feature is held by the same threshold.
        pull = (found * objective.smooth.scaling.scale[:, None]).max(axis=1)
        pull[used | ~alive] = 0
        wanted = np.flatnonzero(pull > 0)
        most = max(LEAST_CHOSEN, (GROWTH - 1) * int(used.sum()))
        if len(wanted) > most:
            wanted = wanted[np.argpartition(-pull[wanted], most - 1)[:most]]
        return np.sort(np.concatenate([np.flatnonzero(used), wanted])).astype(np.int64)

    def _many_pulled(self, problem: SparseLinearProblem, at: Vector, point: Point) -> bool:
        """Whether the optimum is likely to use most of a few features of dense data."""
        rows, columns = self._design.shape
        if not isinstance(self._design, DenseDesign) or columns > min(FEW_COLUMNS, rows) or problem.why_no_gap:
            return False
        objective = problem.objective
        outputs = objective.n_outputs
        violations = objective.violations(at, point.gradient)[: columns * outputs].reshape(columns, outputs)
        return bool(violations.any(axis=1).sum() > MANY * columns)

    def _begin(
        self, problem: SparseLinearProblem, at: Vector, distance: float, point: Point, first: First
    ) -> tuple[Vector, float, Point, str]:
        """Where `first` leads from zeros, the distance and point there, and why the whole fit must stop, if it must."""

        def record() -> None:
            norm, seconds = problem.violation(at, point), time.perf_counter() - self._began
            found = IterationRecord(len(self._history), point.objective, point.loss, norm, distance, seconds)
            self._history.append(found)
            if self._follow is not None:
                self._follow(found, lambda: self._raw(problem, None))

        try:
            record()
            parameters, passes, stopped = first(self._max_iter)
            self._other_passes += passes
            at = problem.objective.from_raw(*parameters)
            distance, point = problem.check(at, problem.evaluate(at))
            record()
        except Stopped as stop:
            stopped = str(stop)
        return at, distance, point, stopped

    def _solve(self, problem: SparseLinearProblem, start: Vector, columns: Index | None = None) -> tuple[Vector, str]:
        """Parameters, and why the whole fit must stop, if it must."""
        done = len(self._history)

        def report(record: IterationRecord) -> None:
            # The start of a later working set is the end of the one before.
            if record.iteration == 0 and self._history:
                return
            numbered = replace(record, iteration=len(self._history))
            self._history.append(numbered)
            if self._follow is not None:
                self._follow(numbered, lambda: self._raw(problem, columns))

        try:
            result = prox_newton(
                problem,
                start,
                tol=problem.tol,
                max_iter=max(0, self._max_iter - max(0, done - 1)),
                callback=report,
                began=self._began,
            )
            if not result.converged and len(self._history) > self._max_iter:
                result = replace(result, reason=f"it used all {self._max_iter} iterations")
        except Stopped as stop:
            result = SolverResult(problem.at, False, str(stop), tuple(self._history))
        if columns is not None:
            self._other_passes += problem.passes
        return result.parameters, "" if result.converged else result.reason

    def _raw(self, problem: SparseLinearProblem, columns: Index | None) -> tuple[Vector, Vector]:
        """Raw weights of all columns and intercepts of the logits, where the solver is."""
        smooth = problem.objective.smooth
        weights, intercept = smooth.scaling.to_raw(*smooth.split(problem.objective.expand(problem.at)))
        if columns is not None:
            whole = np.zeros((self._design.shape[1], weights.shape[1]))
            whole[columns] = weights
            weights = whole
        return weights, intercept

    def _restrict(self, problem: SparseLinearProblem, at: Vector, columns: Index) -> Vector:
        scaled, intercept = problem.objective.split(at)
        parts = [scaled[columns].ravel()] + ([intercept] if self._terms.fit_intercept else [])
        return np.concatenate(parts)

    def _enlarge(self, problem: SparseLinearProblem, inner: Vector, columns: Index) -> Vector:
        objective = problem.objective
        out = np.zeros(objective.size)
        outputs = objective.n_outputs
        count = objective.n_columns * outputs
        out[:count].reshape(-1, outputs)[columns] = inner[: len(columns) * outputs].reshape(-1, outputs)
        out[count:] = inner[len(columns) * outputs :]
        return out

    def _finish(
        self, problem: SparseLinearProblem, at: Vector, distance: float, stopped: str, alive: NDArray[np.bool_]
    ) -> SparseFit:
        point = problem.exactly(at)
        if problem.why_no_gap:
            distance = problem.violation(at, point)
        else:
            distance = relative_gap(point.objective, problem.dual)
            if distance > self._tol:
                distance = problem.prove(at, point)
        converged = distance <= self._tol
        relative = math.inf if problem.why_no_gap else distance
        certificate = Certificate(
            primal=point.objective,
            dual=float(min(problem.dual, point.objective)),  # the bound may round to a hair above what it bounds
            gap=max(0.0, point.objective - problem.dual),
            relative_gap=relative,
            gradient_norm=problem.violation(at, point),
            passes=problem.passes + self._other_passes,
            seconds=time.perf_counter() - self._began,
            reason="" if math.isfinite(problem.dual) else problem.reason,
        )
        smooth = problem.objective.smooth
        weights, intercept = smooth.scaling.to_raw(*smooth.split(problem.objective.expand(at)))
        reason = "" if converged else stopped or "the last working set ended before the whole problem did"
        if reason and not problem.why_no_gap:
            why = lost_in_rounding(
                self._scaling.scale,
                lasso=self._penalty.lasso,
                ridge=self._penalty.ridge,
                tol=self._tol,
                objective=point.objective,
            )
            certificate = replace(certificate, reason=certificate.reason or why)
        result = SolverResult(at, converged, reason, tuple(self._history))
        return SparseFit(weights, intercept, result, certificate, ~alive)
