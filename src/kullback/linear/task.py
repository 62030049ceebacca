"""One set of data and targets, ready to be fitted with any strength of the penalty.

What does not depend on the penalty is done once here: the data behind one interface, the moments of its columns, the
sum of the weights. A path of penalties fits the same task many times, each time from where the fit before it ended.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.errors import DataError
from kullback.linear.absent import absent_classes, ruled_out
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate, why_no_gap
from kullback.linear.choice import Choice, Curvature, Terms, choose
from kullback.linear.course import Course
from kullback.linear.design import DenseDesign, SparseDesign, as_design, without_empty_columns
from kullback.linear.hinge_duals import hinge_of
from kullback.linear.interior_fit import fit_interior, fits_at_once
from kullback.linear.interruption import Stopped
from kullback.linear.kinks import bends_suddenly, has_kinks
from kullback.linear.penalties import Penalty, weight_rows
from kullback.linear.problem import Watched
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.ridge_start import ridge_start
from kullback.linear.rotation import Rotation, is_wide, rotate, rotation_pays
from kullback.linear.rounding import lost_in_rounding
from kullback.linear.row_fit import fit_rows, suits_rows
from kullback.linear.scaling import ColumnScaling, column_scaling
from kullback.linear.separation import Finding, find_separation
from kullback.linear.smoothed_fit import fit_smoothed
from kullback.linear.solvers import IterationRecord, SolverResult, find_solver
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING
from kullback.linear.solvers.newton import newton
from kullback.linear.sparse_fit import fit_sparse
from kullback.linear.support_curvature import MOST_IN_BLOCK, passes_for_hessian
from kullback.losses import Loss
from kullback.losses.base import Batch
from kullback.targets import ClassRows, LabelRows, Targets

Vector: TypeAlias = NDArray[np.float64]
Fit: TypeAlias = Callable[..., RawFit]

# Up to so many multiplications a pass takes less time than calling for another thread.
FEW_PRODUCTS = 1 << 21
# Newton steps after a solver that has come to the end of rounding, and how many of them may come no closer.
LAST_STEPS, LAST_PATIENCE = 10, 2
# Steps after which pairs have learnt all that they will, where curvature comes and goes from row to row. Elsewhere they
# may take as many passes as the Hessian itself so many times, if that is more.
PAIRS_LEARN, HESSIANS = 100, 5.0
# The L2 penalty alone.
RIDGE = Penalty(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a fit ended.

    Attributes:
        weights: (d, C) of the logits.
        intercept: (C,).
        result: what the solver says; its parameters are the scaled ones.
        certificate: what is proved.
        solver: the solver that ran.
        reason: why that one.
    """

    weights: Vector
    intercept: Vector
    result: SolverResult
    certificate: Certificate
    solver: str
    reason: str


class FitTask:
    """Data and targets of a linear model.

    Args:
        X: validated (N, d).
        targets: wrapped, of N rows.
        n_outputs: C.
        loss: with class weights already in it.
        sample_weight: validated (N,) or None.
        fit_intercept: whether there is one.
        penalty_factor: multiplies ½‖W‖².
        penalty: with λ = 1; the L2 penalty by default.
        n_fits: for how many values of C it will be solved; what serves all of them may cost more, and is kept.
    """

    def __init__(
        self,
        X: Any,
        targets: Targets,
        n_outputs: int,
        loss: Loss,
        sample_weight: Vector | None,
        *,
        fit_intercept: bool,
        penalty_factor: float,
        penalty: Penalty = RIDGE,
        n_fits: int = 1,
    ) -> None:
        self.shape = (X.shape[1], n_outputs)
        # A column of zeros has weights of exactly zero at the optimum, and no gradient on the way there.
        self._kept, used = without_empty_columns(X)
        self.design = as_design(used)
        self._matrix, self._targets = used, targets
        self._batch = Batch(loss, (self.design.shape[0], n_outputs), targets, sample_weight, "mean")
        self._loss = loss
        self._sample_weight = sample_weight
        self._fit_intercept = fit_intercept
        self._penalty_factor = penalty_factor
        # Weights and intercepts are reported with mean zero over the classes where their mean changes nothing.
        self._shift_free = loss.ignores_level
        self._penalty = penalty
        self._curvature = _curvature_at_start(loss, n_outputs)
        self._absent = (
            absent_classes(loss, self._batch.targets, n_outputs, self._batch.row_weight) if fit_intercept else None
        )
        self._moments: _Moments | None = None
        self._n_fits = n_fits
        self._rotated: tuple[Rotation, FitTask] | None = None
        self._estimate: Curvature | None = None

    @property
    def n_at_once(self) -> int:
        """How many calls may run side by side: one where a pass over the data is over before other threads wake."""
        design, n_outputs = self.design, self.shape[1]
        if isinstance(design, DenseDesign) and design.shape[0] * design.shape[1] * n_outputs <= FEW_PRODUCTS:
            return 1
        return max(2, len(design.blocks(n_outputs)))

    def solve(
        self,
        C: float,
        *,
        tol: float,
        max_iter: int,
        solver: str = "auto",
        start: Parameters | None = None,
        follow: Follow | None = None,
        announce: Callable[[str], object] | None = None,
        between: Callable[[], object] = lambda: None,
        run: Run = map,
    ) -> Solution:
        """Minimise for one C.

        Args:
            C: inverse strength of the penalty.
            tol: the relative gap to reach.
            max_iter: most iterations.
            solver: its name, or ``"auto"``.
            start: weights (d, C) and intercepts (C,) to start from, or None for zeros.
            follow: called with the record of every iteration, and a function that gives the weights and intercepts
                there. It may raise `Stopped`.
            announce: called once with the solver and the reason for it.
            between: called between the passes of a step that takes many. It may raise `Stopped`.
            run: runs several calls at once and keeps their order.
        """
        batch, n_outputs = self._batch, self.shape[1]
        fresh = start is None
        if start is not None and self._shift_free and self._penalty.lasso == 0:
            # The estimate of the Hessian holds shifts of all classes, so a solver would take many steps to undo one.
            start = start[0] - start[0].mean(axis=1, keepdims=True), start[1] - start[1].mean()
        if self._absent is not None:
            nowhere = np.zeros(self.shape), np.zeros(n_outputs)
            smooth = self._penalty.lasso == 0
            start = ruled_out(nowhere if start is None else start, self._absent, self._loss, centred=smooth)
        parts = self._penalty.scaled(1.0 / (float(C) * batch.divisor))
        penalty = self._penalty_factor * parts.ridge
        if self._loss.target_form == "classes" and n_outputs == 2 == weight_rows(self._loss, n_outputs):
            parts = parts.of_both()  # where norms are added they are otherwise of the difference alone
        terms = Terms(
            self._loss, batch.targets, self._sample_weight, n_outputs, batch.divisor, penalty, self._fit_intercept
        )
        if self._moments is None:
            with np.errstate(over="ignore", invalid="ignore"):
                moments = self.design.column_moments(self._sample_weight, run)
            self._check_moments(*moments)
            self._moments = _Moments(self.design.dtype, *moments)
        scaling = column_scaling(
            self._moments,  # type: ignore[arg-type]
            self._sample_weight,
            penalty=penalty + self._penalty_factor * parts.lasso,
            curvature=self._curvature,
            fit_intercept=self._fit_intercept,
        )
        fit: Fit
        hinge = hinge_of(self._loss) if solver == "auto" else None
        at_once = fits_at_once(self.design.shape[1], n_outputs)
        if solver == "auto" and has_kinks(self._loss):
            fit = partial(fit_smoothed, self.design, terms, scaling, parts, tol=tol, max_iter=max_iter, run=run)
            # A penalty with a kink leaves few columns in use, which are enough for the steps.
            if hinge is not None and (parts.lasso > 0 or at_once):
                why = f"{self._loss.name} has kinks, which a convex program has not"
                fit = partial(
                    fit_interior, self.design, terms, scaling, hinge, parts, fit, tol=tol, max_iter=max_iter, run=run
                )
                return self._solve_raw("interior_point", why, fit, start, follow, announce)
            why = f"{self._loss.name} has kinks, which are rounded off less and less"
            return self._solve_raw("smoothed", why, fit, start, follow, announce)
        if parts.lasso > 0 and hinge is not None and at_once:
            why = f"the penalty and the slopes of {self._loss.name} have kinks, which a convex program has not"
            fit = partial(
                fit_interior, self.design, terms, scaling, hinge, parts, None, tol=tol, max_iter=max_iter, run=run
            )
            return self._solve_raw("interior_point", why, fit, start, follow, announce)
        if parts.lasso > 0:
            ridge = replace(terms, penalty=self._penalty_factor * (parts.ridge + parts.lasso))

            def first(max_iter: int) -> tuple[Parameters, int, str]:
                found, passes, ended = ridge_start(
                    self.design, ridge, scaling, max_iter=max_iter, between=between, run=run
                )
                if self._absent is not None:
                    found = ruled_out(found, self._absent, self._loss, centred=False)
                return found, passes, ended

            fit = partial(fit_sparse, self.design, terms, scaling, parts, tol=tol, max_iter=max_iter, run=run)
            fit = partial(fit, first=first if fresh else None)
            return self._solve_raw("prox_newton", "the penalty has a kink at zero", fit, start, follow, announce)
        # Without a penalty nothing keeps the weights in the space that the rows span.
        if solver == "auto" and penalty > 0 and self._rotation_pays(scaling, penalty):
            return self._solve_rotated(C, terms, scaling, tol, max_iter, start, follow, announce, between, run)
        if solver == "auto" and suits_rows(self.design, terms, scaling):
            assert isinstance(self.design, SparseDesign)
            rows, columns = self.design.shape
            why = f"{rows} rows are fewer than {columns} columns of similar scale"
            fit = partial(fit_rows, self.design, terms, scaling, tol=tol, max_iter=max_iter, run=run)
            return self._solve_raw("row_space", why, fit, start, follow, announce)
        choice = choose(
            self.design, terms, scaling, solver=solver, tol=tol, run=run, n_fits=self._n_fits, kept=self._estimate
        )
        if self._n_fits > 1:
            self._estimate = choice.curvature
        if announce is not None:
            announce(f"solver {choice.solver}: {choice.reason}")
        return self._solve_columns(choice, self._scaled(choice, start), tol, max_iter, follow, between)

    def _rotation_pays(self, scaling: ColumnScaling, penalty: float) -> bool:
        if self._rotated is not None or not is_wide(self._matrix):
            return self._rotated is not None
        # N rows that stand all but at right angles share the sum of the variances among them.
        longest = float(self._moments.variance.sum()) / self.design.shape[0]  # type: ignore[union-attr]
        ratio = self._curvature * longest / penalty
        return rotation_pays(self._matrix, self.shape[1], scaling.scale, ratio, n_fits=self._n_fits)

    def _scaled(self, choice: Choice, start: Parameters | None) -> Vector:
        """The (P,) parameters to start from."""
        objective = choice.problem.exact
        if start is None:
            return np.zeros(objective.size)
        weights, intercept = start
        weights = weights if self._kept is None else weights[self._kept]
        return objective.join(*objective.scaling.from_raw(weights, intercept))

    def _solve_columns(
        self,
        choice: Choice,
        at: Vector,
        tol: float,
        max_iter: int,
        follow: Follow | None,
        between: Callable[[], object],
        history: Sequence[IterationRecord] = (),
    ) -> Solution:
        """On the data's own columns.

        Args:
            choice: the problem and its solver.
            at: (P,) parameters to start from.
            tol: the relative gap to reach.
            max_iter: most iterations, those of `history` included.
            follow: as in `solve`.
            between: as in `solve`.
            history: records of the way to `at`, if it was another solver's; they have been followed.
        """
        objective, scaling = choice.problem.exact, choice.problem.exact.scaling

        def parameters_of(scaled: Vector) -> Parameters:
            return self._reported(*scaling.to_raw(*objective.split(scaled)))

        watched = Watched(choice.problem, at)
        course = Course(list(history))

        def step(record: IterationRecord) -> None:
            continued = course.add(record)
            if continued is not None and follow is not None:
                follow(continued, lambda: parameters_of(watched.parameters))

        stopped, more = False, 0
        try:
            left, sudden = max(0, max_iter - course.done), bends_suddenly(self._loss)
            # One that was asked for goes on as long as it may; after a rotation it only ends what that has begun.
            asked = choice.solver == "lbfgs" and not history
            most = left if asked and not sudden else min(left, self._pairs_worth(choice))
            result = find_solver(choice.solver)(watched, at, tol=tol, max_iter=most, callback=step)
            if not result.converged and self._loss.convex and course.done < max_iter:
                course, left = Course(course.history), max_iter - course.done
                options: dict[str, Any] = {"callback": step, "between": between}
                if result.reason == BEYOND_ROUNDING:
                    # They may read the data as often as the fit has so far.
                    options |= {"patience": LAST_PATIENCE, "products": choice.problem.passes}
                    result = newton(watched, result.parameters, tol=tol, max_iter=min(LAST_STEPS, left), **options)
                    result = replace(result, reason="" if result.converged else BEYOND_ROUNDING)
                elif objective.size <= MOST_IN_BLOCK or self._is_program(choice):
                    result, more = self._without_pairs(choice, watched, tol, left, step)
                else:
                    result = newton(watched, result.parameters, tol=tol, max_iter=left, **options)
            result = replace(result, history=tuple(course.history))
            if not result.converged and course.done >= max_iter:
                result = replace(result, reason=f"it used all {max_iter} iterations")
        except Stopped as stop:
            stopped = True
            result = SolverResult(watched.parameters.copy(), False, str(stop), tuple(course.history))
        solution = self._proved(choice, result, tol, stopped=stopped)
        passes = solution.certificate.passes + more
        return replace(solution, certificate=replace(solution.certificate, passes=passes))

    def _is_program(self, choice: Choice) -> bool:
        """Whether the loss is a hinge that interior-point steps can solve for on these columns."""
        columns, outputs = choice.problem.exact.design.shape[1], choice.problem.exact.n_outputs
        return hinge_of(self._loss) is not None and fits_at_once(columns, outputs)

    def _pairs_worth(self, choice: Choice) -> int:
        """How many quasi-Newton steps are worth it before those with the Hessian itself."""
        objective = choice.problem.exact
        if bends_suddenly(self._loss):
            return PAIRS_LEARN
        if objective.size > MOST_IN_BLOCK:
            return sys.maxsize
        return max(PAIRS_LEARN, int(HESSIANS * passes_for_hessian(objective.design.shape[1], objective.n_outputs)))

    def _without_pairs(
        self, choice: Choice, watched: Watched, tol: float, max_iter: int, step: Callable[[IterationRecord], None]
    ) -> tuple[SolverResult, int]:
        """Go on without pairs, and say how often that read the data.

        A hinge is the convex program that it is. Others take Newton steps with the Hessian itself: the solver for norms
        makes that anyway; here it has no norm to look at.
        """
        objective = choice.problem.exact
        scaling = objective.scaling

        def follow(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
            watched.parameters = objective.join(*scaling.from_raw(*parameters()))
            step(record)

        terms = Terms(
            self._loss,
            objective.targets,
            self._sample_weight,
            objective.n_outputs,
            objective.total_weight,
            0.0,
            self._fit_intercept,
        )
        # What pairs could not tell is often what float32 rounds.
        design = self.design.in_precision(np.float64) if isinstance(self.design, SparseDesign) else self.design
        of = design, terms, scaling
        penalty = Penalty(0.0, objective.penalty / self._penalty_factor)
        options: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "follow": follow, "run": objective.run}
        start = scaling.to_raw(*objective.split(watched.parameters))
        if self._is_program(choice):
            found = fit_interior(*of, hinge_of(self._loss), penalty, None, start=start, **options)  # type: ignore[arg-type]
        else:
            found = fit_sparse(*of, penalty, start=start, earlier=objective.passes, **options)
        choice.problem.prove(found.certificate.dual)
        at = objective.join(*scaling.from_raw(found.weights, found.intercept))
        return replace(found.result, parameters=at), found.certificate.passes

    def _proved(self, choice: Choice, result: SolverResult, tol: float, *, stopped: bool) -> Solution:
        """The solution at the parameters that a solver ended with."""
        objective = choice.problem.exact
        if self._shift_free:
            result = replace(result, parameters=choice.problem.centred(result.parameters))
        certificate = choice.problem.certificate(result.parameters)
        if certificate.relative_gap <= tol and not result.converged and not stopped:
            # The solver could not tell, but the proof does.
            result = replace(result, converged=True, reason="")
        elif not result.converged and not why_no_gap(objective):
            # Where nothing could be proved of the point at hand, that may be for the same reason.
            scale, penalty = objective.scaling.scale, objective.penalty
            why = lost_in_rounding(scale, lasso=0.0, ridge=penalty, tol=tol, objective=certificate.primal)
            certificate = replace(certificate, reason=why or certificate.reason)
        weights, intercept = self._reported(*objective.scaling.to_raw(*objective.split(result.parameters)))
        return Solution(weights, intercept, result, certificate, choice.solver, choice.reason)

    def _solve_rotated(
        self,
        C: float,
        terms: Terms,
        scaling: ColumnScaling,
        tol: float,
        max_iter: int,
        start: Parameters | None,
        follow: Follow | None,
        announce: Callable[[str], object] | None,
        between: Callable[[], object],
        run: Run,
    ) -> Solution:
        """On the rows' own coordinates, and then on the columns as far as rounding has left something to do there."""
        choice = choose(self.design, terms, scaling, solver="lbfgs", tol=tol, run=run)
        rows, columns = self.design.shape
        why = f"{columns} columns are many for {rows} rows, which have no more than {rows} coordinates of their own"
        choice = replace(choice, reason=why)
        if announce is not None:
            announce(f"solver rotated: {why}")
        at, began = self._scaled(choice, start), time.perf_counter()
        history: tuple[IterationRecord, ...] = ()
        stopped = ""
        # Where an earlier fit ended may be good enough.
        if start is None or choice.problem.check(at, choice.problem.evaluate(at))[0] > tol:
            if self._rotated is None:
                rotation = rotate(self._matrix, centred=self._fit_intercept, run=run)
                self._rotated = rotation, self._on_rows(rotation)
            rotation, task = self._rotated
            taken = time.perf_counter() - began

            def step(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
                nonlocal stopped
                try:
                    if follow is not None:
                        later = replace(record, seconds=record.seconds + taken)
                        follow(later, lambda: self._reported(*rotation.to_columns(*parameters())))
                except Stopped as stop:
                    stopped = str(stop)
                    raise

            def asked() -> None:
                nonlocal stopped
                try:
                    between()
                except Stopped as stop:
                    stopped = str(stop)
                    raise

            if start is not None and self._kept is not None:
                start = start[0][self._kept], start[1]
            turned = None if start is None else rotation.from_columns(*start)
            found = task.solve(C, tol=tol, max_iter=max_iter, start=turned, follow=step, between=asked, run=run)
            history = tuple(replace(record, seconds=record.seconds + taken) for record in found.result.history)
            objective = choice.problem.exact
            at = objective.join(*scaling.from_raw(*rotation.to_columns(found.weights, found.intercept)))
        if stopped:
            solution = self._proved(choice, SolverResult(at, False, stopped, history), tol, stopped=True)
        else:
            solution = self._solve_columns(choice, at, tol, max_iter, follow, between, history)
        return replace(solution, solver="rotated")

    def _on_rows(self, rotation: Rotation) -> FitTask:
        """The same task in the coordinates of a rotation."""
        return FitTask(
            rotation.rows,
            self._targets,
            self.shape[1],
            self._loss,
            self._sample_weight,
            fit_intercept=self._fit_intercept,
            penalty_factor=self._penalty_factor,
            penalty=self._penalty,
            n_fits=self._n_fits,
        )

    def separation(self, parameters: Parameters) -> Finding:
        """What the columns tell apart, so that no finite optimum exists without a penalty.

        Args:
            parameters: weights (d, C) and intercepts (C,) where a fit without a penalty ended.
        """
        weights, intercept = parameters
        with block_map(1):  # many small products, which BLAS would spread over threads
            return find_separation(
                self._matrix,
                self._targets,
                self._sample_weight,
                self._loss,
                weights if self._kept is None else weights[self._kept],
                intercept,
                fit_intercept=self._fit_intercept,
            )

    def _check_moments(self, mean: Vector, variance: Vector) -> None:
        """Refuse columns whose squares overflow."""
        bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(variance)))
        if len(bad):
            column = int(bad[0] if self._kept is None else self._kept[bad[0]])
            raise DataError(
                f"column {column} of X holds numbers so large that their squares are beyond {self.design.dtype}; "
                "divide it by a power of ten" + (", or pass float64" if self.design.dtype == np.float32 else "")
            )

    def _solve_raw(
        self,
        name: str,
        why: str,
        fit: Fit,
        start: Parameters | None,
        follow: Follow | None,
        announce: Callable[[str], object] | None,
    ) -> Solution:
        """With a solver that starts, reports and ends at raw weights of the columns that are used."""
        if announce is not None:
            announce(f"solver {name}: {why}")
        if start is not None and self._kept is not None:
            start = start[0][self._kept], start[1]

        def step(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
            if follow is not None:
                follow(record, lambda: self._reported(*parameters()))

        found = fit(start=start, follow=step)
        weights, intercept = self._reported(found.weights, found.intercept)
        return Solution(weights, intercept, found.result, found.certificate, name, why)

    def _reported(self, weights: Vector, intercept: Vector) -> Parameters:
        """Raw weights of all columns, in the gauge that is reported."""
        if self._kept is not None:
            whole = np.zeros(self.shape)
            whole[self._kept] = weights
            weights = whole
        if not self._fit_intercept:
            intercept = np.zeros(self.shape[1])
        if self._shift_free:
            # The norms are not free of shifts: of all that give the same logits, they have chosen one with zeros.
            if self._penalty.lasso == 0:
                weights = weights - weights.mean(axis=1, keepdims=True)
            intercept = intercept - (intercept if self._absent is None else intercept[~self._absent]).mean()
        return weights, intercept


@dataclass(frozen=True, eq=False)
class _Moments:
    """Column moments already known, in the place of the design that they are of."""

    dtype: np.dtype[Any]
    mean: Vector
    variance: Vector

    def column_moments(self, sample_weight: Vector | None, run: Run = map) -> Parameters:
        return self.mean, self.variance


def _curvature_at_start(loss: Loss, n_outputs: int) -> float:
    """Mean second derivative of one example's loss in one logit, at equal logits and uniform targets."""
    zero = np.zeros((1, n_outputs))
    if loss.target_form == "labels":
        uniform: Targets = LabelRows(np.full((1, n_outputs), 0.5))
    else:
        uniform = ClassRows(np.full((1, n_outputs), 1.0 / n_outputs))
    curvature = float(np.mean(loss.hessian_diagonal(zero, uniform, reduction="sum")))
    return curvature if curvature > 0 and math.isfinite(curvature) else 0.25
