"""A fit of sparse data with fewer rows than columns; see `row_space` for what makes it cheap."""

from __future__ import annotations

import math
import time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kullback.linear.certificate import Certificate
from kullback.linear.choice import Terms
from kullback.linear.design import DenseDesign, SparseDesign
from kullback.linear.interruption import Stopped
from kullback.linear.problem import relative_gap
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.row_curvature import has_dual
from kullback.linear.row_space import RowSpace, Trial
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import History, IterationRecord, Point, SolverResult
from kullback.linear.solvers.inner_products import InnerProductPairs
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING, PATIENCE
from kullback.linear.solvers.line_search import search

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]

# Columns of one scale: the standardised weights would differ from the raw ones by no more than this factor. The space
# of rows knows only one scale for all.
ONE_SCALE = 200.0
# Pairs kept, and the memory that they may fill before fewer do.
MOST_PAIRS, LEAST_PAIRS = 12, 5
PAIR_BYTES = 1 << 28
# Problems of fewer multiplications a pass gain nothing from float32.
SMALL_WORK = 10**6
# The intercepts' curvature is the sum over so many parts of the rows, one of which is computed anew in every step.
PARTS = 4
# What steadies the intercepts' curvature, as a share of its largest entry: a class that hardly any row gives a chance
# must not be moved far.
STEADY = 1e-6
# After so many proofs that fell short of what float32 promised, the fit goes on in float64.
MOST_FAILED = 4


def suits_rows(design: DenseDesign | SparseDesign, terms: Terms, scaling: ColumnScaling) -> bool:
    """Whether a fit in the space of rows is possible and likely to be the fastest."""
    if not isinstance(design, SparseDesign) or terms.penalty <= 0:
        return False
    if not terms.loss.convex or not has_dual(terms.loss):
        return False
    few = design.shape[0] < design.shape[1]
    return few and float(scaling.scale.max()) <= ONE_SCALE * float(scaling.scale.min())


def fit_rows(
    design: SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    *,
    start: Parameters | None,
    tol: float,
    max_iter: int,
    follow: Follow | None = None,
    run: Run = map,
) -> RawFit:
    """Minimise the loss plus an L2 penalty.

    Args:
        design: the data.
        terms: the rest of the objective, for which `suits_rows` holds.
        scaling: of its columns.
        start: raw weights (d, C) and intercepts (C,) to start from, or None for zeros.
        tol: the relative duality gap that ends the fit.
        max_iter: most accepted steps.
        follow: called with the record of every accepted step, and a function that gives the raw weights and intercepts
            there. It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
    """
    return _Fit(design, terms, scaling, start, tol, max_iter, follow, run).run()


class _Fit:
    def __init__(
        self,
        design: SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        start: Parameters | None,
        tol: float,
        max_iter: int,
        follow: Follow | None,
        run: Run,
    ) -> None:
        self._design, self._terms, self._scaling, self._run = design, terms, scaling, run
        self._tol, self._max_iter, self._follow = tol, max_iter, follow
        self._start = None if start is None or not start[0].any() else start[0]
        small = design.n_entries * terms.n_outputs <= SMALL_WORK
        self._began = time.perf_counter()
        self._passes = 0
        self._space = self._space_in(np.float64 if small else np.float32)
        self._at = np.zeros(self._space.length, self._space.dtype)
        self._level = np.zeros(terms.n_outputs)
        if start is not None:
            if terms.fit_intercept:
                self._level = start[1] + scaling.centre @ start[0]
            if self._start is not None:
                self._at[-1] = 1.0
        self._dual, self._primal, self._reason = -math.inf, math.inf, ""
        # How many records there were at the last proof, and its relative gap.
        self._proved: tuple[int, float] | None = None
        self._check_below, self._failed = tol, 0
        self._pairs: InnerProductPairs | None = None
        self._history = History(self._report, self._began)

    def run(self) -> RawFit:
        try:
            result = self._minimise()
        except Stopped as stop:
            result = self._history.result(self._at, str(stop))
        self._pairs = None
        return self._finish(result)

    def _space_in(self, dtype: Any) -> RowSpace:
        return RowSpace(self._design, self._terms, self._scaling, dtype, self._run, self._start)

    def _report(self, record: IterationRecord) -> None:
        if self._follow is not None:
            self._follow(record, lambda: self._space.weights(self._at, self._level))

    def _minimise(self) -> SolverResult:
        stalled, first = 0, True
        while True:
            self._prepare()
            if first:
                distance = self._check()
                self._history.add(self._point(), self._steepest, distance)
                least, best, first = self._objective, self._steepest, False
            while True:
                if distance <= self._tol:
                    return self._history.result(self._at)
                if len(self._history) > self._max_iter:
                    return self._history.result(self._at, f"it used all {self._max_iter} iterations")
                rounding = self._space.rounding * abs(self._objective)
                if stalled >= PATIENCE or not self._step():
                    break
                distance = self._check()
                self._history.add(self._point(), self._steepest, distance)
                moved = self._objective < least - rounding or self._steepest < 0.9 * best
                stalled = 0 if moved else stalled + 1
                least, best = min(least, self._objective), min(best, self._steepest)
                if self._rounded and self._space.dtype != np.float64:
                    break
            if self._space.dtype == np.float64:
                return self._history.result(self._at, BEYOND_ROUNDING)
            self._refine()
            stalled, least, best = 0, math.inf, math.inf

    def _refine(self) -> None:
        """Compute in float64 from now on."""
        self._passes += self._space.passes
        self._pairs = None
        self._space = self._space_in(np.float64)
        self._at = self._at.astype(np.float64)

    def _prepare(self) -> None:
        """Everything at `_at`: logits, gradient and image."""
        space, at = self._space, self._at
        n_bytes = 4 * space.length * space.dtype.itemsize
        kept = min(MOST_PAIRS, max(LEAST_PAIRS, PAIR_BYTES // max(n_bytes, 1)))
        self._gradient, self._image = np.empty(space.length, space.dtype), np.empty(space.length, space.dtype)
        self._logits = np.empty(space.shape, space.dtype)
        if at[: space.count].any() or (self._start is not None and at[-1]):
            space.image(at, self._image)
            np.multiply(space.logits_part(self._image), space.dtype.type(space.square), out=self._logits)
        else:
            self._logits[:] = 0
        still = self._image
        still[:] = 0
        none = np.zeros_like(self._level)
        reached = space.along(self._logits, self._level, still, none, 0.0, self._gradient)
        self._loss, self._pull = reached.loss, reached.pull
        self._add_penalty(self._gradient)
        self._look(space.image(self._gradient, self._image))
        self._square = space.inner(self._gradient, self._image)
        self._weigh()
        self._rounded = False
        self._bent = [space.curvature(self._logits, self._level, part, PARTS) for part in range(PARTS)]
        bent = self._bend_intercepts()
        scale = 1.0 / float(np.diag(bent).mean())
        short = self._terms.n_outputs
        self._pairs = InnerProductPairs(space.length, short, kept, space.dtype, space.each, scale)

    def _bend_intercepts(self) -> Vector:
        """Invert the intercepts' curvature (C, C), the sum of its parts, and return it."""
        bent = np.sum(self._bent, axis=0)
        self._inverse = _steadied(bent, self._pull, self._terms)
        return np.asarray(bent)

    def _look(self, steepest: float) -> None:
        """Take note of the largest component of the gradient."""
        self._steepest = max(steepest, float(np.abs(self._pull).max()))

    def _add_penalty(self, gradient: Array) -> None:
        """From the loss's derivatives in the logits to the objective's gradient."""
        space, factor = self._space, self._space.dtype.type(self._terms.penalty)

        def one(piece: slice) -> None:
            gradient[piece] += factor * self._at[piece]

        space.each(one)

    def _weigh(self) -> None:
        self._weight_square = self._space.weight_square(self._at, self._logits)
        self._objective = self._loss + 0.5 * self._terms.penalty * self._weight_square

    def _point(self) -> Point:
        return Point(self._objective, self._loss, self._gradient)

    def _step(self) -> bool:
        """One step of L-BFGS; False where none lowers the objective beyond rounding."""
        space, pairs, terms = self._space, self._pairs, self._terms
        assert pairs is not None
        reached: dict[float, Trial] = {}
        while True:
            slope = pairs.propose(self._gradient, self._image, self._square, self._pull, self._inverse)
            direction, image = pairs.vectors[pairs.new_step], pairs.images[pairs.new_step]
            shift, pulls = pairs.shorts[pairs.new_step], pairs.vectors[pairs.new_change]
            # ‖W + t·D‖² = ‖W‖² + 2t·first + t²·second; the weights of a vector of scaled ones are 1/s² of it.
            second = space.inner(direction, image) / space.square
            first = space.inner(self._at, image)
            penalty = terms.penalty
            base = 0.5 * penalty * self._weight_square

            def evaluate(length: Vector) -> Point:
                t = float(length[0])
                trial = space.along(self._logits, self._level, image, shift, t, pulls)  # noqa: B023
                reached[t] = trial
                cost = base + penalty * (t * first + 0.5 * t * t * second)  # noqa: B023
                slope = np.array([trial.slope + penalty * (first + t * second)])  # noqa: B023
                return Point(trial.loss + cost, trial.loss, slope)

            try_first = 1.0
            if not len(pairs):
                bend = space.bend(self._logits, self._level, image, shift) + penalty * second
                try_first = -slope / bend if bend > 0 else 1.0
            found = search(
                evaluate,
                np.zeros(1),
                Point(self._objective, self._loss, np.array([slope])),
                np.ones(1),
                length=try_first,
                rounding=space.rounding * abs(self._objective),
            )
            if found is not None:
                break
            if not len(pairs):
                return False
            pairs.forget()
        self._advance(found.length, reached[found.length])
        return True

    def _advance(self, length: float, reached: Trial) -> None:
        """Move to the end of the step, whose derivatives stand in the row of the change."""
        space, pairs = self._space, self._pairs
        assert pairs is not None
        direction, image = pairs.vectors[pairs.new_step], pairs.images[pairs.new_step]
        change, change_image = pairs.vectors[pairs.new_change], pairs.images[pairs.new_change]
        step, square = space.dtype.type(length), space.dtype.type(space.square)
        flat, factor = self._logits.reshape(-1), space.dtype.type(self._terms.penalty)

        def move(piece: slice) -> None:
            self._at[piece] += (step / square) * direction[piece]
            inside = slice(piece.start, min(piece.stop, space.count))
            flat[inside] += step * image[inside]
            change[piece] += factor * self._at[piece]

        space.each(move)
        self._level = self._level + length * pairs.shorts[pairs.new_step]
        steepest = space.image(change, change_image)
        moved = reached.pull - self._pull
        self._loss, self._pull = reached.loss, reached.pull
        self._look(steepest)
        self._square = pairs.learn(length, self._gradient, self._image, moved)
        self._weigh()
        if self._terms.fit_intercept:
            part = len(self._history) % PARTS
            self._bent[part] = space.curvature(self._logits, self._level, part, PARTS)
            self._bend_intercepts()

    def _check(self) -> float:
        """The relative gap, as far as it is known here."""
        space, penalty = self._space, self._terms.penalty
        # What the intercepts leave to gain is known to second order without a pass over the data.
        steep = max(0.0, self._square) * space.square / (2 * penalty) + float(self._pull @ self._inverse @ self._pull)
        if not steep and not self._pull.any():
            cheap = 0.0
        else:
            cheap = steep / self._objective if self._objective > 0 else math.inf
        known = relative_gap(self._objective, self._dual)
        if cheap > self._check_below and known > self._tol:
            return min(cheap, known) if cheap > self._tol else known
        distance = self._prove()
        if distance > self._tol:
            self._failed += 1
            self._rounded = known <= self._tol or self._failed >= MOST_FAILED
            self._check_below = cheap / 4
        return distance

    def _prove(self) -> float:
        proof = self._space.prove(self._at, self._level)
        self._reason = proof.reason or self._reason
        dual = proof.objective - proof.gap
        if dual > max(self._dual, 0.0):
            distance = proof.gap / dual  # not from the difference of the two, which rounds
        else:
            distance = relative_gap(proof.objective, max(self._dual, dual))
        self._dual, self._primal = max(self._dual, dual), proof.objective
        self._proved = len(self._history), distance
        return distance

    def _finish(self, result: SolverResult) -> RawFit:
        space = self._space
        # A proof is made before the record of its point.
        done = self._proved is not None and self._proved[0] == len(self._history) - 1
        distance = self._proved[1] if self._proved is not None and done else self._prove()
        certificate = Certificate(
            primal=self._primal,
            dual=self._dual,
            gap=max(0.0, self._primal - self._dual),
            relative_gap=distance,
            gradient_norm=self._steepest,
            passes=self._passes + space.passes,
            seconds=time.perf_counter() - self._began,
            reason="" if math.isfinite(self._dual) else self._reason,
        )
        weights, intercept = space.weights(self._at, self._level)
        return RawFit(weights, intercept, result, certificate)


def _steadied(curvature: Vector, pull: Vector, terms: Terms) -> Vector:
    """The inverse of the intercepts' curvature (C, C), steadied; zero where there is no intercept.

    Where a class has far less probability than examples its curvature is that of the tail of an exponential, and grows
    along the way: with the derivative itself added no intercept moves by much more than the temperature at once.
    """
    if not terms.fit_intercept:
        return np.zeros_like(curvature)
    diagonal = np.diag(curvature)
    largest = float(diagonal.max())
    steadied = curvature + np.diag(STEADY * largest + np.abs(pull) / terms.loss.temperature)  # type: ignore[attr-defined]
    if terms.loss.link == "softmax":
        steadied += largest / len(curvature)  # nothing is bent along a shift of all classes
    return np.asarray(linalg.inv(steadied))
