"""A fit of a hinge with kinks: by hinges rounded off less and less, each from where the one before ended.

See `smoothed_hinge` for what a rounded-off hinge is. Its dual points are those of the hinge itself, where they are
worth ½μ·Σα² more, so every stage proves a bound of the whole. What keeps the two apart are the few rows within the
curve: the gap is of the order of μ times their share, and falls as μ does.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate, balance, weight_gap
from kullback.linear.choice import Terms, precisions
from kullback.linear.design import DenseDesign, SparseDesign
from kullback.linear.interruption import Stopped
from kullback.linear.objective import Block, LinearObjective
from kullback.linear.problem import LinearProblem, relative_gap
from kullback.linear.raw_fit import Follow, Parameters, RawFit, Run
from kullback.linear.scaling import ColumnScaling
from kullback.linear.smoothed_hinge import Rounding, SmoothedHinge
from kullback.linear.solvers.base import IterationRecord, Point, SolverResult
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING
from kullback.linear.solvers.newton import newton

Vector: TypeAlias = NDArray[np.float64]

# μ of the first stage and of the last, in margins, and what it is divided by from one to the next.
FIRST, LAST, FINER = 1.0, 1e-8, 8.0
# How far a stage is solved: to this share of μ, but no further than to this one of the tolerance.
STAGE, SHARE = 1e-3, 0.3


def fit_smoothed(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    hinge: SmoothedHinge,
    *,
    start: Parameters | None,
    tol: float,
    max_iter: int,
    follow: Follow,
    run: Run = map,
) -> RawFit:
    """Minimise a hinge plus an L2 penalty.

    Args:
        design: the data.
        terms: the rest of the objective, with the hinge itself and a penalty above 0.
        scaling: the change of variables.
        hinge: the same rounded off, by any μ.
        start: raw weights (d, C) and intercepts (C,) to start from, or None for zeros.
        tol: the relative duality gap that ends the fit.
        max_iter: most Newton steps, of all stages together.
        follow: called with the record of every step, and a function that gives the raw weights and intercepts there.
            Its gap is that of the last stage that is done. It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
    """
    began = time.perf_counter()
    exact, _ = precisions(design, scaling)
    whole = terms.objective(exact, scaling, run)
    at = np.zeros(whole.size) if start is None else whole.join(*scaling.from_raw(*start))
    records: list[IterationRecord] = []
    known, dual, passes, reason = math.inf, -math.inf, 0, ""
    point = whole.evaluate(at)
    mu = FIRST
    while True:
        loss = replace(hinge, smoothness=mu * hinge.margin)
        objective = replace(terms, loss=loss).objective(exact, scaling, run)
        problem = LinearProblem(objective, None, tol=max(SHARE * tol, STAGE * mu))
        last = at

        def step(record: IterationRecord) -> None:
            if record.iteration == 0 and records:  # the end of the stage before
                return
            seconds = time.perf_counter() - began
            distance = max(record.distance, known)  # noqa: B023
            records.append(replace(record, iteration=len(records), distance=distance, seconds=seconds))
            follow(records[-1], lambda: scaling.to_raw(*whole.split(last)))  # noqa: B023

        def watch(parameters: Vector, checked: Point, problem: LinearProblem = problem) -> tuple[float, Point]:
            nonlocal last
            last = parameters
            return LinearProblem.check(problem, parameters, checked)

        problem.check = watch  # type: ignore[method-assign, assignment]
        stopped = ""
        done = max(0, len(records) - 1)
        try:
            result = newton(problem, at, tol=problem.tol, max_iter=max(0, max_iter - done), callback=step)
        except Stopped as stop:
            stopped, result = str(stop), SolverResult(last.copy(), False, str(stop), ())
        at = result.parameters
        point = whole.evaluate(at)
        bound, why = _bound(objective, at)
        dual, reason = max(dual, bound), why or reason
        known = relative_gap(point.objective, dual)
        passes += objective.passes
        if known <= tol and not stopped:
            ended = ""
            break
        mu /= FINER
        if stopped or len(records) > max_iter or mu < LAST:
            ended = stopped or (f"it used all {max_iter} iterations" if len(records) > max_iter else BEYOND_ROUNDING)
            break
    certificate = Certificate(
        primal=point.objective,
        dual=dual,
        gap=max(0.0, point.objective - dual),
        relative_gap=known,
        gradient_norm=float(np.abs(point.gradient).max(initial=0.0)),
        passes=passes + whole.passes,
        seconds=time.perf_counter() - began,
        reason="" if math.isfinite(dual) else reason,
    )
    weights, intercept = scaling.to_raw(*whole.split(at))
    return RawFit(weights, intercept, SolverResult(at, not ended, ended, tuple(records)), certificate)


def _bound(objective: LinearObjective, parameters: Vector) -> tuple[float, str]:
    """What the optimum of the hinge itself cannot lie below, and why nothing is known of it."""
    point = objective.evaluate(parameters)
    balanced = balance(objective, parameters, point)
    if balanced.reason:
        return -math.inf, balanced.reason
    loss = objective.loss
    assert isinstance(loss, SmoothedHinge)
    rounding = Rounding.of(loss)

    def worth(logits: Vector, block: Block) -> Vector:
        return np.array([rounding(logits, block.targets, sample_weight=block.sample_weight, reduction="sum")])

    more = float(objective.over_logits(balanced.parameters, worth)[0]) / objective.total_weight
    return point.objective - balanced.fenchel - weight_gap(objective, balanced.gradient) + more, ""
