"""A fit of a hinge as the convex program that it is, by a primal-dual interior-point method.

With slacks for the hinges' leads and for the norms of the penalty (`hinge_duals`, `norm_cones`) nothing has a kink any
more, and each step solves one system in the weights: the sum of x·xᵀ ⊗ (what each example's duals move by), plus the
ridge and what holds the norms. The duals of the examples are a dual point of the fit: once they balance, as they do to
rounding after the first full step, they prove a bound, with no smoothing left to account for.

Where columns are many, the steps take some of them, and the bound from all tells which others to take as well.

Sources: Mehrotra (1992), "On the implementation of a primal-dual interior point method"; Wright (1997), "Primal-dual
interior-point methods".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import NO_PENALTY, Certificate
from kullback.linear.choice import Terms, precisions
from kullback.linear.design import DenseDesign, SparseDesign
from kullback.linear.hinge_duals import Hinge, HingeDuals
from kullback.linear.interior_program import ROWS_AT_ONCE, InteriorProgram
from kullback.linear.interruption import INTERRUPTIONS, Stopped
from kullback.linear.penalties import Penalty
from kullback.linear.problem import relative_gap
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.rounding import lost_in_rounding
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import IterationRecord, SolverResult
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING
from kullback.losses import base
from kullback.targets import ClassIndices, ClassMixture, ClassRows, counted_rows

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]

# Weights and intercepts that a step may solve for at once: their matrix takes 128 MB.
MOST_AT_ONCE = 4000
# Steps of what goes on where rounding allows no more.
LAST_STEPS = 100
TOO_MANY = "a step would have to solve for more weights at once than it can"
# Columns first taken, and how many times those in use are taken later.
LEAST_TAKEN, GROWTH = 64, 2
# Columns whose pull is this share of the threshold may be wanted next.
NEAR = 0.8
# So few columns are taken all at once.
FEW_COLUMNS = 256
# To what share of the tolerance some of the columns are solved; the others need the rest.
INNER = 0.3
# Norms are taken for zero below these shares of what their slopes leave to the threshold, the first that will do.
ZERO_SHARES = (1.0, 1e-2, 1e-4)
# Steps after which a fit that comes no closer, by so much in all, has come to the end of rounding. The first steps may
# gain that little: products of examples whose weights differ by orders of magnitude cut them short.
PATIENCE, CLOSER = 5, 1e-3
# Shares of the way from the dual point that the norms allow to the whole one, tried where a ridge allows both.
_SHARES = np.linspace(0.0, 1.0, 9)


def fits_at_once(n_columns: int, n_outputs: int) -> bool:
    """Whether a step can solve for all weights of so many columns and outputs."""
    return (n_columns + 1) * n_outputs <= MOST_AT_ONCE


def fit_interior(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    hinge: Hinge,
    penalty: Penalty,
    smoothed: Callable[..., RawFit] | None,
    *,
    start: Parameters | None,
    tol: float,
    max_iter: int,
    follow: Follow,
    run: Run = map,
) -> RawFit:
    """Minimise a hinge plus any penalty, or none.

    Args:
        design: the data.
        terms: the rest of the objective; its `penalty` is not read.
        scaling: the change of variables.
        hinge: what kind of hinge.
        penalty: per example.
        smoothed: goes on by `fit_smoothed` where more weights are in use than a step can solve for, or where a step's
            own rounding leaves more of the slopes than a weak penalty allows; None to end there.
        start: raw weights (d, C) and intercepts (C,) to start from, or None for zeros.
        tol: the relative duality gap that ends the fit; without a penalty, how far the dual point may be from a proof.
        max_iter: most steps.
        follow: called with the record of every step, and a function that gives the raw weights and intercepts there.
            It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
    """
    found = _Fit(design, terms, scaling, hinge, penalty, tol, max_iter, follow, run).run(start)
    if (
        smoothed is None
        or found.result.reason not in (TOO_MANY, BEYOND_ROUNDING)
        or (found.certificate.reason not in ("", NO_PENALTY))
    ):
        return found
    if found.result.reason == TOO_MANY:
        return smoothed(start=None, follow=follow, earlier=found)
    most = min(max_iter, len(found.result.history) - 1 + LAST_STEPS)
    more = smoothed(start=None, follow=follow, earlier=found, max_iter=most)
    ends = [(fit.certificate.relative_gap, fit.certificate.primal) for fit in (more, found)]
    if more.result.converged or ends[0] < ends[1]:
        return more
    # It may have proved something, but come no closer.
    dual, primal = max(more.certificate.dual, found.certificate.dual), found.certificate.primal
    certificate = replace(
        more.certificate,
        primal=primal,
        dual=dual,
        gap=primal - dual,
        relative_gap=relative_gap(primal, dual),
        gradient_norm=found.certificate.gradient_norm,
    )
    result = replace(found.result, history=more.result.history, reason=_ended(more, found))
    return replace(found, result=result, certificate=certificate)


def _ended(more: RawFit, found: RawFit) -> str:
    """Why a fit ended that went on in vain: because it was stopped, or because the first part had to end."""
    return more.result.reason if more.result.reason in INTERRUPTIONS else found.result.reason


class _Fit:
    """What `fit_interior` does, with its arguments."""

    def __init__(
        self,
        design: DenseDesign | SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        hinge: Hinge,
        penalty: Penalty,
        tol: float,
        max_iter: int,
        follow: Follow,
        run: Run,
    ) -> None:
        self._source, self._design = design, precisions(design, scaling)[0]
        self._terms, self._scaling, self._penalty = terms, scaling, penalty
        self._tol, self._max_iter, self._follow, self._run = tol, max_iter, follow, run
        self._began = time.perf_counter()
        self._records: list[IterationRecord] = []
        self._passes = 0
        self._primal, self._dual, self._residual = math.inf, -math.inf, math.inf
        self._rows, own, weight = _examples(terms)
        mass = np.bincount(own, weight, terms.n_outputs)
        # Nothing holds the intercept of a class without weight: at the end it is set below all others.
        self._held = mass > 0 if terms.fit_intercept else np.ones(terms.n_outputs, dtype=bool)
        shares = mass[self._held] if terms.fit_intercept else np.ones(terms.n_outputs)
        own = (np.cumsum(self._held) - 1)[own]
        self._duals = HingeDuals(hinge, own, weight, shares / shares.sum())
        # With two classes the penalty is on the difference of their weights.
        two = terms.n_outputs == 2
        self._spread = np.array([[-0.5, 0.5]]) if two else np.eye(int(self._held.sum()))
        self._weights, self._intercept = np.zeros((design.shape[1], len(self._spread))), np.zeros(len(self._spread))

    def run(self, start: Parameters | None) -> RawFit:
        if self._held.sum() < 2:
            self._primal = self._dual = self._residual = 0.0  # a hinge of one class is zero once that leads
            return self._finish("")
        if start is not None:
            weights, intercept = self._scaling.from_raw(*start)
            inverse = np.linalg.pinv(self._spread)
            self._weights, self._intercept = weights[:, self._held] @ inverse, intercept[self._held] @ inverse
        n_columns = len(self._weights)
        columns = np.arange(n_columns)
        if self._penalty.lasso and (n_columns > FEW_COLUMNS or not fits_at_once(n_columns, len(self._spread))):
            columns = self._more(np.empty(0, dtype=np.int64), self._slopes())
        while True:
            stopped = self._solve(columns)
            if len(columns) == n_columns or stopped:
                return self._finish(stopped)
            slopes = self._slopes()
            self._dual = max(self._dual, self._bound(slopes))
            if relative_gap(self._primal, self._dual) <= self._tol:
                return self._finish("")
            more = self._more(columns, slopes)
            if np.isin(more, columns).all():
                return self._finish(TOO_MANY if len(more) >= self._most else BEYOND_ROUNDING)
            columns = more

    # ------------------------------------------------------------ which columns

    @property
    def _most(self) -> int:
        """How many columns a step can solve for."""
        return MOST_AT_ONCE // len(self._spread) - 1

    def _more(self, taken: Index, slopes: Vector) -> Index:
        """The columns taken before, or those in use where that are too many, and others that the duals pull on most."""
        if GROWTH * len(taken) > self._most:
            taken = np.flatnonzero(self._weights.any(axis=1))
        pull = self._penalty.sizes(slopes).reshape(len(slopes), -1).max(axis=1)
        pull[taken] = 0
        wanted = np.flatnonzero(pull > NEAR * self._penalty.lasso)
        most = max(0, min(max(LEAST_TAKEN, (GROWTH - 1) * len(taken)), self._most - len(taken)))
        if len(wanted) > most:
            wanted = wanted[np.argsort(-pull[wanted], kind="stable")[:most]]
        return np.sort(np.concatenate([taken, wanted])).astype(np.int64)

    def _slopes(self) -> Vector:
        """(d, K) the sums of x and the examples' duals, over all raw columns."""
        pull = np.zeros((self._design.shape[0], len(self._spread)))
        np.add.at(pull, self._rows, self._duals.pull(self._duals.alpha) @ self._spread.T)
        total = -np.outer(self._scaling.centre, pull.sum(axis=0))
        blocks = self._design.blocks(pull.shape[1])
        for part in self._run(lambda rows: self._design.rows(rows).backward(pull[rows]), blocks):
            total += part
        self._passes += 1
        return total

    def _bound(self, slopes: Vector) -> float:
        """What the optimum cannot lie below, if the sums of x and the examples' duals are (p, K)."""
        largest = float(self._penalty.sizes(slopes).max(initial=0.0))
        feasible = min(1.0, self._penalty.lasso / largest) if largest > 0 else 1.0
        if not self._penalty.ridge:
            return self._duals.worth(feasible)
        shares = feasible + (1.0 - feasible) * _SHARES
        return max(self._duals.worth(share) - self._penalty.conjugate(share * slopes) for share in shares)

    # ------------------------------------------------------------ one program

    def _solve(self, columns: Index) -> str:
        """Fit some columns, all others zero; why the whole fit must stop, if it must."""
        whole, scale = len(columns) == len(self._weights), self._scaling.scale[columns]
        tol = self._tol if whole else INNER * self._tol
        at = self._weights[columns]
        if self._terms.fit_intercept:
            at = np.concatenate([at, self._intercept[None]])
        taken = self._taken(columns)
        program = InteriorProgram(taken, self._duals, self._spread, self._penalty, scale, at, self._run)
        best, waited = np.full(3, math.inf), 0
        begun = bool(self._records)  # then the start is the end of the program before
        while True:
            self._residual = float(np.abs(program.residual).max(initial=0.0))
            at, self._primal = program.at, program.value(program.at)
            dual = -math.inf
            if not (self._penalty.lasso or self._penalty.ridge):
                distance = max(program.products, self._residual)
            else:
                if program.balanced:
                    dual = self._bound(program.slopes * scale[:, None])
                distance = relative_gap(self._primal, dual)
                if distance <= tol and self._penalty.lasso:
                    at, self._primal = self._with_zeros(program, dual, tol)
                    distance = relative_gap(self._primal, dual)
            if whole:
                self._dual = max(self._dual, dual)
            self._weights = np.zeros_like(self._weights)
            self._weights[columns] = at[: len(columns)]
            self._intercept = at[len(columns) :].sum(axis=0)  # of its one row, or none
            try:
                if not begun:
                    self._record(distance, whole=whole)
            except Stopped as stop:
                return str(stop)
            begun = False
            if distance <= tol:
                return ""
            if len(self._records) > self._max_iter:
                return f"it used all {self._max_iter} iterations"
            measures = np.array([distance, program.products, self._residual])
            closer = measures < (1 - CLOSER) * best
            waited = 0 if closer.any() else waited + 1
            best = np.where(closer, measures, best)
            if waited >= PATIENCE or not program.advance():
                return BEYOND_ROUNDING
            self._passes += 4

    @staticmethod
    def _with_zeros(program: InteriorProgram, dual: float, tol: float) -> tuple[Vector, float]:
        """The weights with as many zeros as leave the gap within the tolerance, and the objective there."""
        for share in ZERO_SHARES:
            at = program.with_zeros(share)
            value = program.value(at)
            if relative_gap(value, dual) <= tol:
                return at, value
        return program.at, program.value(program.at)

    def _taken(self, columns: Index) -> Vector:
        """(E, p) standardised columns, and one of ones for the intercept."""
        source, count = self._source, len(columns)
        taken = np.ones((len(self._rows), count + self._terms.fit_intercept))
        centre, scale = self._scaling.centre[columns], self._scaling.scale[columns]
        part = source if count == source.shape[1] else source.columns(columns)
        for begin in range(0, len(taken), ROWS_AT_ONCE):
            piece = slice(begin, begin + ROWS_AT_ONCE)
            taken[piece, :count] = (part.take(self._rows[piece]) - centre) / scale
        self._passes += 1
        return taken

    def _record(self, distance: float, *, whole: bool) -> None:
        known = distance if whole else max(distance, relative_gap(self._primal, self._dual))
        seconds = time.perf_counter() - self._began
        loss = self._primal - self._penalty.value(self._weights / self._scaling.scale[:, None])
        record = IterationRecord(len(self._records), self._primal, loss, self._residual, known, seconds)
        self._records.append(record)
        self._follow(record, self._raw)

    def _raw(self) -> Parameters:
        """Raw weights (d, C) and intercepts (C,)."""
        n_outputs = self._terms.n_outputs
        if self._held.all():
            return self._scaling.to_raw(self._weights @ self._spread, self._intercept @ self._spread)
        weights, intercept = np.zeros((len(self._weights), n_outputs)), np.zeros(n_outputs)
        if self._held.sum() > 1:
            held = self._scaling.to_raw(self._weights @ self._spread, self._intercept @ self._spread)
            weights[:, self._held], intercept[self._held] = held
        intercept[~self._held] = self._below(weights, intercept)
        return weights, intercept

    def _below(self, weights: Vector, intercept: Vector) -> float:
        """An intercept so low that its class leads no example's own by more than −Δ."""
        own = np.flatnonzero(self._held)[self._duals.own]
        lowest = math.inf
        for begin in range(0, len(own), ROWS_AT_ONCE):
            piece = slice(begin, begin + ROWS_AT_ONCE)
            logits = self._source.take(self._rows[piece]) @ weights + intercept
            lowest = min(lowest, float(logits[np.arange(len(logits)), own[piece]].min()))
        return lowest - self._duals.margin

    def _finish(self, stopped: str) -> RawFit:
        lasso, ridge = self._penalty.lasso, self._penalty.ridge
        reason = "" if lasso or ridge else NO_PENALTY
        if stopped and not reason:
            scale = self._scaling.scale
            reason = lost_in_rounding(scale, lasso=lasso, ridge=ridge, tol=self._tol, objective=self._primal)
        certificate = Certificate(
            primal=self._primal,
            dual=float(min(self._dual, self._primal)),  # the bound may round to a hair above what it bounds
            gap=max(0.0, self._primal - self._dual),
            relative_gap=relative_gap(self._primal, self._dual),
            gradient_norm=self._residual,
            passes=self._passes,
            seconds=time.perf_counter() - self._began,
            reason=reason,
        )
        weights, intercept = self._raw()
        scaled = np.concatenate([weights.ravel(), intercept])
        return RawFit(weights, intercept, SolverResult(scaled, not stopped, stopped, tuple(self._records)), certificate)


def _examples(terms: Terms) -> tuple[Index, Index, Vector]:
    """The rows that count with each class that they hold, and the weight of both together, per example."""
    targets, loss = terms.targets, terms.loss
    assert isinstance(targets, ClassIndices | ClassRows | ClassMixture)
    counted = np.flatnonzero(counted_rows(targets, terms.sample_weight, loss.ignore_index))  # type: ignore[attr-defined]
    mass = targets[counted].dense(terms.n_outputs) / terms.total_weight
    if terms.sample_weight is not None:
        mass *= terms.sample_weight[counted, None]
    of_class = base.per_class("class_weight", loss.class_weight, terms.n_outputs)  # type: ignore[attr-defined]
    if of_class is not None:
        mass *= of_class
    place, own = np.nonzero(mass)
    return counted[place], own, mass[place, own]
