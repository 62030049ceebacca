"""A fit of a loss with kinks: with the kinks rounded off less and less, each from where the ones before point to.

See `kinks` for what a rounded-off loss is. Its dual points are those of the loss itself, where they are worth more, so
every stage proves a bound of the whole. What keeps the two apart are the few rows within the curve: the gap is of the
order of μ times their share, and falls as μ does.

A stage that its solver does not end is solved in another way, where there is one (`_problem`).

Without a penalty a stage ends by its gradient, and the fit where that and what the rounding leaves of the loss are both
below the tolerance: its dual point is then that of an optimum but for as much.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import NO_PENALTY, Certificate, balance, weight_gap
from kullback.linear.choice import Terms, precisions
from kullback.linear.design import DenseDesign, SparseDesign
from kullback.linear.interruption import Stopped
from kullback.linear.kinks import without_kinks
from kullback.linear.objective import Block, LinearObjective
from kullback.linear.penalties import Penalty
from kullback.linear.problem import LinearProblem, relative_gap
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.rounded_penalty import RoundedPenalty
from kullback.linear.rounding import lost_in_rounding
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import IterationRecord, Point, SolverResult
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING
from kullback.linear.solvers.newton import newton
from kullback.linear.solvers.prox_newton import prox_newton
from kullback.linear.sparse_fit import SparseLinearProblem
from kullback.linear.sparse_problem import SparseObjective
from kullback.linear.support_curvature import MOST_IN_BLOCK, passes_for_hessian
from kullback.losses import Loss

Vector: TypeAlias = NDArray[np.float64]

# μ of the first stage and of the last, in margins, and what it is divided by from one to the next.
FIRST, LAST, FINER = 1.0, 1e-8, 8.0
# A stage that is not solved and leaves more than this share of the gap is solved in another way, as those after it are.
GAINED = 0.5
# Conjugate gradients that the Newton steps of a stage may take: so many, or as many as read the data for as long as so
# many Hessians of all parameters take, if those are more. Steps with the Hessian itself do what they leave.
PRODUCTS, HESSIANS = 200, 10.0
# What μ begins with, in relative gaps of the fit that is continued.
NEARER = 1e3
# How far a stage is solved: to this share of μ, but no further than to this one of the tolerance.
STAGE, SHARE = 1e-3, 0.3


def fit_smoothed(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    penalty: Penalty,
    *,
    start: Parameters | None,
    tol: float,
    max_iter: int,
    follow: Follow,
    run: Run = map,
    earlier: RawFit | None = None,
) -> RawFit:
    """Minimise a loss with kinks plus any penalty, or none.

    Args:
        design: the data.
        terms: the rest of the objective, with the loss itself.
        scaling: the change of variables.
        penalty: per example; of an L2 penalty alone `terms` has the strength.
        start: raw weights (d, C) and intercepts (C,) to start from, or None for zeros.
        tol: the relative duality gap that ends the fit; without a penalty, how far the dual point may be from a proof.
        max_iter: most steps, of all stages together.
        follow: called with the record of every step, and a function that gives the raw weights and intercepts there.
            Its gap is that of the last stage that is done. It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
        earlier: a fit of the same that this one goes on from, with what it has proved.
    """
    return _Fit(design, terms, scaling, penalty, tol, max_iter, follow, run, earlier).run(start)


class _Proof(NamedTuple):
    """What the end of a stage proves: a bound, or how far it is from a proof, and why there is neither."""

    dual: float
    distance: float
    reason: str


class _Fit:
    """What `fit_smoothed` does, with its arguments."""

    def __init__(
        self,
        design: DenseDesign | SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        penalty: Penalty,
        tol: float,
        max_iter: int,
        follow: Follow,
        run: Run,
        earlier: RawFit | None,
    ) -> None:
        self._design, self._terms, self._scaling, self._penalty = design, terms, scaling, penalty
        self._tol, self._max_iter, self._follow, self._run = tol, max_iter, follow, run
        self._began = time.perf_counter()
        self._exact, _ = precisions(design, scaling)
        if penalty.lasso:
            self._terms = replace(terms, penalty=0.0)  # norms and their ridge are the business of `SparseObjective`
        self._whole = self._objective(self._terms.loss)
        self._records: list[IterationRecord] = [] if earlier is None else list(earlier.result.history)
        self._before = 0.0 if earlier is None else earlier.certificate.seconds
        self._passes = 0 if earlier is None else earlier.certificate.passes
        self._dual = -math.inf if earlier is None else earlier.certificate.dual
        self._earlier = earlier
        # The first stage that did not come to its end: its loss, and the raw weights and intercepts it ended with.
        self._unsolved: tuple[Loss, Parameters] | None = None
        # Whether stages are solved in the second way, because the first did not end one.
        self._other_way = False

    @property
    def _bounded(self) -> bool:
        """Whether a penalty leaves the dual a finite value off the optimum."""
        return bool(self._penalty.lasso or self._terms.penalty)

    def run(self, start: Parameters | None) -> RawFit:
        if self._earlier is not None:
            start = self._earlier.weights, self._earlier.intercept
        if start is None:
            start = np.zeros((self._design.shape[1], self._terms.n_outputs)), np.zeros(self._terms.n_outputs)
        at, mu, known, reason = start, FIRST, math.inf, ""
        ends: list[Parameters] = []  # of the last two stages
        if self._earlier is not None and self._bounded:
            mu = min(FIRST, NEARER * self._earlier.certificate.relative_gap)
        while True:
            found = without_kinks(self._terms.loss, mu)
            assert found is not None
            begin = at if len(ends) < 2 else self._start(found[0], *ends)
            at, ended, stopped, done = self._stage(found[0], begin, mu, known)
            ends = [*ends[-1:], at]
            if not done and self._unsolved is None:
                self._unsolved = found[0], at
            point = self._whole.evaluate(self._whole.join(*self._scaling.from_raw(*ended)))
            primal = point.loss + self._penalised(ended)
            proof = self._proof(*found, at, primal)
            norm = self._records[-1].gradient_norm if self._bounded else proof.distance
            self._dual, reason = max(self._dual, proof.dual), proof.reason or reason
            before, known = known, relative_gap(primal, self._dual) if self._bounded else proof.distance
            if known <= self._tol and not stopped:
                return self._finish(ended, primal, known, norm, reason, "")
            fails = not done and not known <= GAINED * before < math.inf
            if fails and not self._other_way and self._has_other_way(primal):
                # Norms that are rounded off take steps of their own from the first stage on.
                self._other_way, ends, mu = True, [], FIRST if self._penalty.grouped else mu
            else:
                mu /= FINER
            if not stopped and len(self._records) > self._max_iter:
                stopped = f"it used all {self._max_iter} iterations"
            if stopped or mu < LAST:
                return self._finish(ended, primal, known, norm, reason, stopped or BEYOND_ROUNDING)

    def _start(self, loss: Loss, before: Parameters, last: Parameters) -> Parameters:
        """Where a stage starts: at the end of the last one, or where the last two point to if that is lower.

        What pulls on an example that lies on a kink hardly changes from one stage to the next, so its lead there, and
        with it the weights, change in proportion to μ. Where they were, all those examples lie beyond the next stage's
        curve, and its Hessian does not see them.

        Args:
            loss: the rounded-off loss.
            before: raw weights and intercepts at the end of the stage before the last one.
            last: those at the end of the last one.
        """
        # μ fell from FINER·μ to μ, and now falls by 1/FINER of that.
        weights, intercept = (now + (now - then) / FINER for now, then in zip(last, before, strict=True))
        if self._penalty.lasso and not self._penalty.grouped:
            # A weight goes no further than to zero, and stays there.
            weights = np.where(weights * last[0] > 0, weights, 0.0)
        ahead, objective = (weights, intercept), self._objective(loss)
        costs = [
            objective.evaluate(objective.join(*self._scaling.from_raw(*at))).loss + self._penalised(at)
            for at in (last, ahead)
        ]
        self._passes += objective.passes
        return ahead if costs[1] < costs[0] else last

    def _objective(self, loss: Loss) -> LinearObjective:
        return replace(self._terms, loss=loss).objective(self._exact, self._scaling, self._run)

    def _penalised(self, at: Parameters) -> float:
        """The penalty at raw weights (d, C)."""
        if not self._penalty.lasso:
            return 0.5 * self._terms.penalty * float(np.vdot(at[0], at[0]))
        sparse = SparseObjective(self._whole, self._penalty)
        return sparse.penalty_at(sparse.from_raw(*at))

    # ------------------------------------------------------------ one stage

    def _stage(
        self, loss: Loss, start: Parameters, mu: float, known: float
    ) -> tuple[Parameters, Parameters, str, bool]:
        """Minimise with one rounded-off loss, and perhaps penalty.

        Returns raw weights and intercepts, the same with zeros where the weights tend to zero, why the whole fit must
        stop, if it must, and whether the stage came to its end.

        Args:
            loss: the rounded-off loss.
            start: raw weights and intercepts.
            mu: how much it is rounded off.
            known: how far the stage before ended from the optimum.
        """
        left = max(0, self._max_iter - max(0, len(self._records) - 1))
        solver, problem, tol = self._problem(loss, mu)
        objective = problem.exact if isinstance(problem, _Remembering) else problem.objective.smooth
        if isinstance(problem, _Remembering):
            at = objective.join(*self._scaling.from_raw(*start))
        else:
            at = problem.objective.from_raw(*start)

        def raw(parameters: Vector) -> Parameters:
            whole = parameters if isinstance(problem, _Remembering) else problem.objective.expand(parameters)
            return self._scaling.to_raw(*objective.split(whole))

        def step(record: IterationRecord) -> None:
            if record.iteration == 0 and self._records:  # the end of the stage before
                return
            seconds = self._before + time.perf_counter() - self._began
            distance = max(record.distance, known)
            self._records.append(replace(record, iteration=len(self._records), distance=distance, seconds=seconds))
            self._follow(self._records[-1], lambda: raw(problem.at))

        stopped, done = "", False
        try:
            result = solver(problem, at, tol=tol, max_iter=left, callback=step)
            at, done = result.parameters, result.converged
        except Stopped as stop:
            stopped, at = str(stop), problem.at.copy()
        self._passes += problem.passes
        zeros = problem.with_zeros(at) if isinstance(problem, RoundedPenalty) else at
        return raw(at), raw(zeros), stopped, done

    def _problem(self, loss: Loss, mu: float) -> tuple[Any, SparseLinearProblem | RoundedPenalty | _Remembering, float]:
        """Of a stage: the solver, its problem, and how far it is solved.

        Beside norms that is the solver for these, with the Hessian itself; for groups, in the other way, one for what
        has no kinks, with those of the norms rounded off too. Beside an L2 penalty it takes conjugate gradients,
        because the Hessian is dear, and in the other way the Hessian.
        """
        tol = max(SHARE * self._tol, STAGE * mu)
        objective = self._objective(loss)
        if self._penalty.grouped and self._other_way:
            return newton, RoundedPenalty(SparseObjective(objective, self._penalty), mu), tol
        if not (self._penalty.lasso or self._other_way):
            return partial(newton, products=self._products()), _Remembering(objective, None, tol=tol), tol
        of = self._design, replace(self._terms, loss=loss), self._scaling, self._penalty
        return prox_newton, SparseLinearProblem(*of, tol=tol, run=self._run, earlier=self._passes), tol

    def _has_other_way(self, primal: float) -> bool:
        """Whether there are two ways to solve a stage, and it is not rounding that one comes to nothing for.

        Args:
            primal: the objective.
        """
        if self._penalty.grouped:
            return not self._lost_in_rounding(primal)
        return self._takes_hessian

    @property
    def _takes_hessian(self) -> bool:
        """Whether the other way is that with the Hessian itself."""
        few = (self._design.shape[1] + 1) * self._terms.n_outputs <= MOST_IN_BLOCK
        return self._bounded and not self._penalty.lasso and few

    def _products(self) -> int:
        """How many conjugate gradients a stage is worth before steps with the Hessian itself."""
        if not self._takes_hessian:
            return sys.maxsize
        return max(PRODUCTS, int(HESSIANS * passes_for_hessian(self._design.shape[1], self._terms.n_outputs)))

    def _proof(self, smooth: Loss, worth: Loss, at: Parameters, primal: float) -> _Proof:
        """What the end of a stage proves of the loss itself.

        Args:
            smooth: the rounded-off loss.
            worth: what the conjugate of the loss itself is lower by.
            at: raw weights and intercepts.
            primal: the objective itself there.
        """
        objective = self._objective(smooth)

        def more(parameters: Vector) -> float:
            def of_block(logits: Vector, block: Block) -> Vector:
                return np.array([worth(logits, block.targets, sample_weight=block.sample_weight, reduction="sum")])

            return float(objective.over_logits(parameters, of_block)[0]) / objective.total_weight

        try:
            if self._penalty.lasso:
                sparse = SparseObjective(objective, self._penalty)
                parameters = sparse.from_raw(*at)
                bound = sparse.bound(parameters, sparse.evaluate(parameters), more=more)
                return _Proof(bound.value, math.inf, bound.reason)
            parameters = objective.join(*self._scaling.from_raw(*at))
            point = objective.evaluate(parameters)
            if not self._bounded:
                slack = primal - point.objective - more(parameters)
                return _Proof(-math.inf, max(float(np.abs(point.gradient).max(initial=0.0)), slack), NO_PENALTY)
            balanced = balance(objective, parameters, point)
            if balanced.reason:
                return _Proof(-math.inf, math.inf, balanced.reason)
            below = balanced.fenchel + weight_gap(objective, balanced.gradient)
            return _Proof(point.objective - below + more(balanced.parameters), math.inf, "")
        finally:
            self._passes += objective.passes

    def _finish(self, at: Parameters, primal: float, known: float, norm: float, reason: str, stopped: str) -> RawFit:
        if math.isfinite(self._dual):
            reason = ""
        if stopped and not reason:
            reason = self._lost_in_rounding(primal)
            if not reason and stopped == BEYOND_ROUNDING:
                reason = f"kinks rounded off over {LAST:g} margins prove no more, and float64 has no digits for less"
        certificate = Certificate(
            primal=primal,
            dual=float(min(self._dual, primal)),  # the bound may round to a hair above what it bounds
            gap=max(0.0, primal - self._dual),
            relative_gap=known if self._bounded else math.inf,
            gradient_norm=norm,
            passes=self._passes + self._whole.passes,
            seconds=self._before + time.perf_counter() - self._began,
            reason=reason,
        )
        scaled = self._whole.join(*self._scaling.from_raw(*at))
        result = SolverResult(scaled, not stopped, stopped, tuple(self._records))
        return RawFit(*at, result, certificate)

    def _lost_in_rounding(self, primal: float) -> str:
        """Why rounding forbids a proof, or an empty string; see `rounding`."""
        of: dict[str, float] = {"lasso": self._penalty.lasso, "ridge": self._penalty.ridge, "tol": self._tol}
        return lost_in_rounding(self._scaling.scale, objective=primal, kinks=self._rounded_at_kinks(), **of)

    def _rounded_at_kinks(self) -> float:
        """What the first stage that was not solved rounds a standardised gradient by, in nats; see `rounding`."""
        if self._unsolved is None:
            return 0.0
        loss, at = self._unsolved
        objective = self._objective(loss)

        def of_block(logits: Vector, block: Block) -> Vector:
            weighted: dict[str, Any] = {"sample_weight": block.sample_weight, "reduction": "sum"}
            bend = loss.hessian_diagonal(logits, block.targets, **weighted)
            return np.array([np.vdot(bend, np.abs(logits))])

        moved = float(objective.over_logits(objective.join(*self._scaling.from_raw(*at)), of_block)[0])
        self._passes += objective.passes
        return float(np.finfo(np.float64).eps) * moved / objective.total_weight


class _Remembering(LinearProblem):
    """A problem that remembers the last point a solver accepted: every such point is checked."""

    at: Vector

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        self.at = parameters
        return super().check(parameters, point)
