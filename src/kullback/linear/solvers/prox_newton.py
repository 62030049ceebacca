"""Proximal Newton steps on a working set, for penalties with a kink at zero.

Each step lowers a quadratic model of the loss plus the penalty itself over a working set: the weights that are not
zero and the zeros that the gradient pulls on most. The model's second derivatives are those among the working set
(`SupportCurvature`); what they leave out is learnt from the last steps by limited-memory BFGS on top of them. The
model's minimiser (`QuadraticModel`) is tried in a line search. The working set grows by the largest violations, so
early steps, far from the answer, are cheap.

Sources: Lee, Sun & Saunders (2014), "Proximal Newton-type methods for minimizing composite functions"; Yuan, Ho & Lin
(2012), "An improved GLMNET for L1-regularized logistic regression"; Byrd, Nocedal & Schnabel (1994), "Representations
of quasi-Newton matrices and their use in limited memory methods", for the compact form.
"""

from __future__ import annotations

import math
import time
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.solvers.base import Callback, History, Point, SolverResult, Vector
from kullback.linear.solvers.quadratic_model import QuadraticModel
from kullback.linear.solvers.support_newton import newton_on_support, support_of
from kullback.linear.sparse_problem import SparseObjective
from kullback.linear.support_curvature import Blocks, SupportCurvature

Index: TypeAlias = NDArray[np.int64]

# Pairs kept for the quasi-Newton part.
MEMORY = 10
# Rounds of descent and Newton steps on a model that is the truth, and on one that is not.
ROUNDS = 12
ROUNDS_ROUGH = 2
# Zeros taken into a fresh working set: as many as there are nonzero groups, and at least so many per output.
LEAST_NEW = 20
# So few new weights in all are taken in at once, whatever their number.
ALL_NEW = 400
# The working set is made afresh when weights outside it are violated by this share of what those inside are.
OUTSIDE = 0.3
# A Hessian is made afresh once so many times the steps since have cost as much as it would, and at the latest after
# so many steps.
PASSES_FOR_HESSIAN = 3.0
# What the minimiser of an exact model costs besides, as a multiple of the cube of its variables.
FACTORISATIONS = 1.0
OLDEST = 25
# What a model is held by if its minimiser is of no use, as shares of its mean curvature, and how that changes.
FIRST_HELD, MOST_HELD, HELD_MORE, HELD_LESS = 1e-8, 1.0, 100.0, 10.0
# The share of the predicted decrease that a step must reach.
SUFFICIENT = 1e-4
PATIENCE = 10
# A model that promises to lower the objective by so many times itself is not the truth.
BROKEN = 4.0
# A step that lowers the objective by less than this share of it is one near the optimum.
NEAR = 0.01
# Near the optimum an objective may rise by so many times its rounding if the gradient falls.
BLURRED = 100.0
# A Newton step on the support is worth its products once a step changes no more than this share of it.
STILL_CHANGING = 0.3


class SparseProblem(Protocol):
    """An objective with a kink, and how far a point is from its optimum."""

    objective: SparseObjective
    curvature: SupportCurvature

    @property
    def rounding(self) -> float:
        """How far two values may lie apart, as a share of either, without meaning anything."""

    @property
    def finest(self) -> bool:
        """Whether nothing can be computed more exactly."""

    def evaluate(self, parameters: Vector) -> Point:
        """Objective, loss and the gradient of all but the norm."""

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """The distance from the optimum, in the unit of the tolerance, and the point as now known."""

    def refine(self) -> bool:
        """Compute more exactly from now on; False if nothing more exact is left."""


class WorkingModel:
    """The quadratic model, its working set and its pairs.

    Args:
        problem: what is minimised.
    """

    def __init__(self, problem: SparseProblem) -> None:
        self._objective = problem.objective
        self._curvature = problem.curvature
        self._blocks: Blocks | None = None
        self._steps: list[Vector] = []
        self._changes: list[Vector] = []
        self._age = 0
        self._held = 0.0

    def forget(self) -> bool:
        """Drop the pairs and the Hessian; False if there are none."""
        had = self._blocks is not None and (bool(self._steps) or self._age > 1)
        self._blocks, self._steps, self._changes, self._age = None, [], [], 0
        return had

    def hold(self) -> bool:
        """Hold the next model's minimiser closer; False if that is done as far as makes sense.

        Where rows are few or certain, the Hessian leaves directions free that the loss soon bends along.
        """
        self._held = max(FIRST_HELD, HELD_MORE * self._held)
        self._blocks = None
        return self._held <= MOST_HELD

    def trust(self) -> None:
        """Hold the next one less: the last minimiser was as good as the model said."""
        self._held = self._held / HELD_LESS if self._held > FIRST_HELD else 0.0

    def learn(self, step: Vector, change: Vector) -> None:
        """Take in a (P,) step and the change of gradient over it."""
        width, length = float(step @ change), float(change @ change)
        if not width > 1e-10 * length or (self._blocks is not None and self._blocks.exact):
            return
        self._steps.append(step)
        self._changes.append(change)
        if len(self._steps) > MEMORY:
            del self._steps[0], self._changes[0]

    def minimiser(self, parameters: Vector, point: Point) -> Vector:
        """The (P,) parameters that minimise the model around (P,) parameters."""
        violation = self._objective.violations(parameters, point.gradient)
        if self._stale(violation):
            self._renew(parameters, violation)
        self._age += 1
        assert self._blocks is not None
        blocks = self._blocks
        left, right = self._low_rank(blocks)
        groups = self._groups(blocks.places)
        model = QuadraticModel(
            blocks, left, right, *groups, point.gradient[blocks.places], parameters[blocks.places].copy()
        )
        x = model.minimise(ROUNDS if blocks.exact else ROUNDS_ROUGH)
        wanted = parameters.copy()
        wanted[blocks.places] = x
        return wanted

    def on_support(self, before: Vector, parameters: Vector, point: Point) -> Vector | None:
        """Where a Newton step on the support leads, or None while the support still changes too much for one.

        Args:
            before: (P,) the point before the last step.
            parameters: (P,).
            point: the objective there.
        """
        assert self._blocks is not None
        one_block = len(self._blocks.offset) == 1 and not self._objective.penalty.grouped
        if self._blocks.exact or one_block:
            return None
        support = support_of(self._objective, parameters)
        changed = int(np.count_nonzero(support != support_of(self._objective, before)))
        if changed > STILL_CHANGING * int(support.sum()):
            return None
        places = np.flatnonzero(support).astype(np.int64)
        if not np.isin(places, self._blocks.places, assume_unique=True).all():
            return None
        product = self._curvature.products(parameters, places)
        return newton_on_support(self._objective, self._blocks, product, parameters, point, places)

    def _stale(self, violation: Vector) -> bool:
        if self._blocks is None:
            return True
        inside = np.zeros(len(violation), dtype=bool)
        inside[self._blocks.places] = True
        outside = float(violation[~inside].max(initial=0.0))
        if outside > OUTSIDE * float(violation[inside].max(initial=0.0)):
            return True
        outputs = self._objective.n_outputs
        counts = np.bincount(self._blocks.places % outputs, minlength=outputs)
        step = PASSES_FOR_HESSIAN * self._curvature.one_pass()
        if self._blocks.exact:
            step += FACTORISATIONS * float((np.diff(self._blocks.start).astype(float) ** 3).sum())
        worth = self._curvature.work(counts) / step
        return self._age >= min(max(1.0, worth), OLDEST)

    def _renew(self, parameters: Vector, violation: Vector) -> None:
        """Choose the working set and make its Hessian."""
        objective = self._objective
        outputs = objective.n_outputs
        count = objective.n_columns * outputs
        if objective.penalty.grouped:
            used = parameters[:count].reshape(-1, outputs).any(axis=1)
            pull = violation[:count].reshape(-1, outputs)[:, 0].copy()
            unit = 1
        else:
            used = parameters[:count] != 0
            pull = violation[:count].copy()
            unit = outputs
        # A pair is of use as long as its step lies within the working set, so what moved lately stays in it.
        moved = np.zeros(count, dtype=bool)
        for step in self._steps:
            moved |= step[:count] != 0
        used |= moved.reshape(-1, outputs).any(axis=1) if objective.penalty.grouped else moved
        pull[used] = 0
        wanted = int((pull > 0).sum())
        most = max(LEAST_NEW * unit, int(used.sum()), ALL_NEW // (outputs // unit))
        if wanted > most:
            chosen = np.argpartition(-pull, most - 1)[:most]
        else:
            chosen = np.flatnonzero(pull > 0)
        taken = np.concatenate([np.flatnonzero(used), chosen]).astype(np.int64)
        if objective.penalty.grouped:
            taken = (taken[:, None] * outputs + np.arange(outputs)).ravel()
        places = np.sort(np.concatenate([taken, np.arange(count, objective.size)])).astype(np.int64)
        self._blocks = self._curvature.at(parameters, places)
        if self._held:
            for block in range(len(self._blocks.offset)):
                diagonal = np.einsum("ii->i", self._blocks.matrix(block))
                diagonal += self._held * diagonal.mean()
        self._age = 0
        if self._blocks.exact:
            self._steps, self._changes = [], []

    def _low_rank(self, blocks: Blocks) -> tuple[Vector, Vector]:
        """L and R of the quasi-Newton update A + L·R', both (m, 2·pairs)."""
        if not self._steps:
            return np.zeros((len(blocks.places), 0)), np.zeros((len(blocks.places), 0))
        steps = np.stack([step[blocks.places] for step in self._steps], axis=1)
        changes = np.stack([change[blocks.places] for change in self._changes], axis=1)
        moved = blocks.times(steps)
        products = steps.T @ changes
        lower = np.tril(products, -1)
        middle = np.block([[steps.T @ moved, lower], [lower.T, -np.diag(np.diag(products))]])
        right = np.concatenate([moved, changes], axis=1)
        # Scaled to a unit diagonal first: steps shrink by orders of magnitude as a fit converges.
        unit = 1.0 / np.sqrt(np.abs(np.diag(middle)))
        inverse = np.linalg.pinv(middle * unit[:, None] * unit, rcond=1e-10) * unit[:, None] * unit
        return -right @ inverse, right

    def _groups(self, places: Index) -> tuple[Index, Index, Vector]:
        """Where each group begins, its variables, and its threshold."""
        objective = self._objective
        outputs, count = objective.n_outputs, objective.n_columns * objective.n_outputs
        is_weight = places < count
        column = np.where(is_weight, places // outputs, 0)
        threshold = np.where(is_weight, objective.thresholds[column] if objective.n_columns else 0.0, 0.0)
        if not objective.penalty.grouped:
            every = np.arange(len(places), dtype=np.int64)
            return np.arange(len(places) + 1, dtype=np.int64), every, threshold
        key = np.where(is_weight, column, places)
        key = np.where(is_weight, key, objective.n_columns + places)
        member = np.argsort(key, kind="stable").astype(np.int64)
        first = np.flatnonzero(np.diff(key[member], prepend=-1))
        start = np.concatenate([first, [len(places)]]).astype(np.int64)
        return start, member, threshold[member[first]]


def prox_newton(
    problem: SparseProblem, start: Vector, *, tol: float, max_iter: int, callback: Callback, began: float | None = None
) -> SolverResult:
    """Minimise; see `Solver` for the arguments.

    Args:
        problem: what to minimise.
        start: (P,) starting parameters.
        tol: stop once the distance from the optimum is not above this.
        max_iter: stop after this many accepted steps.
        callback: called with the record of every accepted step, the start included.
        began: the time that records count from; now, by default.
    """
    objective = problem.objective
    history = History(callback, time.perf_counter() if began is None else began)

    def record(at: Vector, point: Point, distance: float) -> float:
        norm = float(objective.violations(at, point.gradient).max(initial=0.0))
        history.add(point, norm, distance)
        return norm

    at = start
    distance, point = problem.check(at, problem.evaluate(at))
    best = record(at, point, distance)
    model = WorkingModel(problem)
    stalled = 0
    while distance > tol:
        if len(history) > max_iter:
            return history.result(at, f"it used all {max_iter} iterations")
        wanted = model.minimiser(at, point)
        found = _search(problem, at, point, wanted)
        if found is None or stalled >= (PATIENCE if problem.finest else 2):
            if problem.refine():
                distance, point = problem.check(at, problem.evaluate(at))
                stalled = 0
            elif found is None and (model.forget() or model.hold()):
                pass
            else:
                return history.result(at, BEYOND_ROUNDING)
            continue
        if found[0] is wanted:
            model.trust()
        new, new_point = objective.centred(*found)
        model.learn(new - at, new_point.gradient - point.gradient)
        before, before_step, at = point.objective, at, new
        distance, point = problem.check(at, new_point)
        near = before - point.objective < NEAR * abs(before)
        if near and distance > tol and (wanted_there := model.on_support(before_step, at, point)) is not None:
            better = _search(problem, at, point, wanted_there)
            if better is not None and better[1].objective < point.objective:
                at, point = objective.centred(*better)
                distance, point = problem.check(at, point)
        norm = record(at, point, distance)
        moved = point.objective < before - problem.rounding * abs(before) or norm < 0.9 * best
        best, stalled = min(best, norm), 0 if moved else stalled + 1
    return history.result(at)


def _search(problem: SparseProblem, at: Vector, point: Point, wanted: Vector) -> tuple[Vector, Point] | None:
    """The first of full, half, quarter … steps that lowers the objective enough, and the objective there."""
    objective = problem.objective
    step = wanted - at
    if not step.any():
        return None
    here = point.objective - point.loss
    slope = float(point.gradient @ step)
    smooth_penalty = _ridge(objective, at)
    norms = here - smooth_penalty
    predicted = slope + (objective.penalty_at(wanted) - _ridge(objective, wanted)) - norms
    slack = 2 * problem.rounding * abs(point.objective)
    if not math.isfinite(predicted):
        return None
    if not predicted < -slack:
        # Beyond the resolution of the objective; the gradient tells more, since the objective is flat at its least.
        found = problem.evaluate(wanted)
        return (wanted, found) if _better(objective, at, point, wanted, found, slack) else None
    length, whole = 1.0, point
    # No loss is below zero, so of a model that promises more than there is to gain only the direction counts.
    if predicted < -BROKEN * point.objective:
        length = 0.5 ** math.ceil(math.log2(-predicted / (BROKEN * point.objective)))
    for _ in range(12):
        new = wanted if length == 1.0 else at + length * step
        found = problem.evaluate(new)
        if found.objective <= point.objective + SUFFICIENT * length * predicted + slack:
            return new, found
        whole = found if length == 1.0 else whole
        length *= 0.5
    # Columns that nearly cancel leave values rounded by more than their own last digits.
    blurred = predicted >= -BLURRED * slack and _better(objective, at, point, wanted, whole, slack)
    return (wanted, whole) if blurred else None


def _better(objective: SparseObjective, at: Vector, point: Point, wanted: Vector, found: Point, slack: float) -> bool:
    """Whether a point whose objective is as good as the same is nearer to the optimum by its gradient.

    The violation may be the largest in one column and yet matter in another, whose threshold is lower: what the dual
    point must be shrunk by is the largest violation as a share of the threshold.
    """
    before, after = (objective.violations(x, p.gradient) for x, p in ((at, point), (wanted, found)))
    if found.objective <= point.objective + slack and after.max(initial=0.0) < before.max(initial=0.0):
        return True
    if not objective.penalty.lasso:
        return False
    shares = [
        float((objective.split(v)[0].max(axis=1) / objective.thresholds).max(initial=0.0)) for v in (before, after)
    ]
    return found.objective <= point.objective + BLURRED * slack and shares[1] < 0.5 * shares[0]


def _ridge(objective: SparseObjective, parameters: Vector) -> float:
    if not objective.penalty.ridge:
        return 0.0
    scaled, _ = objective.split(parameters)
    return 0.5 * float(np.vdot(objective.ridges[:, None] * scaled, scaled))


BEYOND_ROUNDING = "no step of the model lowered the objective beyond rounding"
