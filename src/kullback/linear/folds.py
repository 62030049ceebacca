"""Held-out scores of a linear softmax model along a path of penalties, fold by fold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate
from kullback.linear.course import Course
from kullback.linear.interruption import INTERRUPTIONS, Stopped
from kullback.linear.path_point import PathPoint
from kullback.linear.penalties import Penalty
from kullback.linear.raw_fit import Follow, Parameters, Run
from kullback.linear.rotation import Rotation
from kullback.linear.separation import NOTHING, Finding, Separation
from kullback.linear.solvers import IterationRecord
from kullback.linear.task import RIDGE, FitTask
from kullback.losses import Loss
from kullback.targets import ClassIndices, ClassMixture, ClassRows, ClassTargets

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]

# A class that a fold's training rows lack gets probability e⁻⁴⁰ there, which is zero to double precision.
ABSENT = 40.0
# How a fit ends that is near enough to its minimum to be scored.
CLOSE = "close enough to be scored"


@dataclass(frozen=True, eq=False)
class Examples:
    """Everything a fold is cut from.

    Attributes:
        X: validated (N, d), or the rotated rows of it.
        targets: wrapped, of N rows.
        sample_weight: (N,) or None.
        loss: with class weights in it.
        n_classes: C.
        fit_intercept: whether there is one.
        penalty_factor: multiplies ½‖W‖².
        penalty: with λ = 1.
        rotation: where X comes from, if it is rotated.
    """

    X: Any
    targets: ClassTargets
    sample_weight: Vector | None
    loss: Loss
    n_classes: int
    fit_intercept: bool
    penalty_factor: float
    penalty: Penalty = RIDGE
    rotation: Rotation | None = None

    def with_rows(self, rotation: Rotation) -> Examples:
        """The same examples in the coordinates of a rotation."""
        return dataclasses.replace(self, X=rotation.rows, rotation=rotation)

    def to_columns(self, parameters: Parameters) -> Parameters:
        """Parameters of the data's own columns."""
        return parameters if self.rotation is None else self.rotation.to_columns(*parameters)

    def task(self, rows: Index | None = None, *, n_fits: int = 1) -> FitTask:
        """The fit of some rows, or of all, for so many values of C."""
        if rows is None:
            return self._task(self.X, self.targets, self.sample_weight, self.loss, self.n_classes, n_fits)
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return self._task(self.X[rows], self.targets[rows], weight, self.loss, self.n_classes, n_fits)

    def _task(
        self, X: Any, targets: ClassTargets, weight: Vector | None, loss: Loss, n_classes: int, n_fits: int = 1
    ) -> FitTask:
        return FitTask(
            X,
            targets,
            n_classes,
            loss,
            weight,
            fit_intercept=self.fit_intercept,
            penalty_factor=self.penalty_factor,
            penalty=self.penalty,
            n_fits=n_fits,
        )

    def logits(self, parameters: Parameters, rows: Index) -> Vector:
        """Logits (n, C) of some rows."""
        weights, intercept = parameters
        return np.asarray(self.X[rows] @ weights, dtype=np.float64) + intercept


class Fold:
    """One split: a path of fits on its training rows.

    Args:
        examples: what is cut.
        train: rows to fit on.
        n_fits: for how many values of C.
    """

    def __init__(self, examples: Examples, train: Index, *, n_fits: int = 1) -> None:
        self._examples = examples
        self._train = train
        weight = np.ones(len(train)) if examples.sample_weight is None else examples.sample_weight[train]
        targets = examples.targets[train]
        present = np.flatnonzero(targets.class_mass(examples.n_classes, weight) > 0)
        self._present: Index | None = None
        self._unfitted: float | None = None
        self._task: FitTask | None = None
        narrowed = None if len(present) == examples.n_classes else _narrowed(targets, examples.loss, present)
        if narrowed is None:
            self._task = examples.task(train, n_fits=n_fits)
            return
        self._present = present
        if len(present) > 1:
            fewer, loss = narrowed
            sample_weight = None if examples.sample_weight is None else weight
            self._task = examples._task(examples.X[train], fewer, sample_weight, loss, len(present), n_fits)

    def path(
        self,
        Cs: Vector,
        *,
        tol: float,
        max_iter: int,
        solver: str,
        follow: Callable[[Course], Follow],
        run: Run,
        done: Sequence[PathPoint] = (),
    ) -> Iterator[PathPoint]:
        """The fit of every C, each starting from the one before; Cs ascend.

        A fit that was interrupted is the last, and is given too. Parameters are of the classes that the training rows
        hold; see `widened`.

        Args:
            Cs: (n,) ascending.
            tol: the gap that ends a fit, as a share of the objective at zero weights.
            max_iter: most iterations of each fit.
            solver: its name, or ``"auto"``.
            follow: gives what follows a fit, from what takes its records; see `FitTask.solve`.
            run: runs several calls at once and keeps their order.
            done: the fits of the first Cs, where they are known already.
        """
        points = list(done)
        yield from points
        for C in Cs[len(points) :]:
            before = points[-1] if points else None
            points.append(self._point(float(C), before, tol, max_iter, solver, follow, run))
            yield points[-1]
            if points[-1].ended in INTERRUPTIONS:
                return

    def _point(
        self,
        C: float,
        before: PathPoint | None,
        tol: float,
        max_iter: int,
        solver: str,
        follow: Callable[[Course], Follow],
        run: Run,
    ) -> PathPoint:
        if self._task is None:
            return self._without_choice()
        course = Course([])
        following = follow(course)

        def until_close(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
            if self._unfitted is None:
                self._unfitted = record.objective
            following(record, parameters)
            if record.distance * record.objective <= tol * self._unfitted:
                raise Stopped(CLOSE)

        start = None
        if before is not None:
            start = before.weights, before.intercept
            if self._unfitted is None:
                self._unfitted = before.base
        solution = self._task.solve(
            C, tol=tol, max_iter=max_iter, solver=solver, start=start, follow=until_close, run=run
        )
        close = solution.result.converged or solution.result.reason == CLOSE
        assert self._unfitted is not None
        point = PathPoint.of(solution, course.history)
        return dataclasses.replace(point, converged=close, ended="" if close else point.ended, base=self._unfitted)

    def separation(self, parameters: Parameters) -> Finding:
        """What separates the training rows, by the places of the classes that they have; see `FitTask.separation`.

        Args:
            parameters: of all classes, where the fit without a penalty ended.
        """
        if self._task is None:
            return NOTHING
        weights, intercept = parameters
        here = slice(None) if self._present is None else self._present
        found = self._task.separation((weights[:, here], intercept[here]))
        if self._present is None or found.separation is None:
            return found
        pairs = tuple((int(self._present[a]), int(self._present[b])) for a, b in found.separation.pairs)
        return found._replace(separation=Separation(found.separation.complete, pairs))

    def _without_choice(self) -> PathPoint:
        """Where the training rows hold one class only there is nothing to fit."""
        nothing = np.zeros((self._examples.X.shape[1], 0))
        proved = Certificate(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, "")
        return PathPoint(
            nothing,
            nothing[0],
            [IterationRecord(0, 0.0, 0.0, 0.0, 0.0, 0.0)],
            proved,
            True,
            "",
            "none",
            "one class only",
        )

    def widened(self, point: PathPoint) -> Parameters:
        """Parameters of all classes, those that the training rows lack as good as impossible."""
        if self._present is None:
            return point.weights, point.intercept
        parameters = None if self._task is None else (point.weights, point.intercept)
        examples = self._examples
        weights = np.zeros((examples.X.shape[1], examples.n_classes))
        intercept = np.zeros(examples.n_classes)
        lowest = 0.0
        if parameters is not None:
            weights[:, self._present], intercept[self._present] = parameters
            logits = examples.logits(parameters, self._train)
            lowest = float(np.logaddexp.reduce(logits, axis=1).min())
        absent = np.setdiff1d(np.arange(examples.n_classes), self._present)
        if examples.fit_intercept:
            intercept[absent] = lowest - ABSENT
        return weights - weights.mean(axis=1, keepdims=True), intercept - intercept.mean()


def _narrowed(targets: ClassTargets, loss: Loss, present: Index) -> tuple[ClassTargets, Loss] | None:
    """Targets and loss over the present classes alone; None where the loss cannot be cut to them."""
    changes = {}
    for field in dataclasses.fields(loss):  # type: ignore[arg-type]
        value = getattr(loss, field.name)
        if isinstance(value, tuple | np.ndarray):
            if field.name != "class_weight":
                return None
            changes[field.name] = tuple(np.asarray(value)[present])
    if isinstance(targets, ClassIndices):
        fewer: ClassTargets = ClassIndices(np.searchsorted(present, np.asarray(targets.indices)))
    elif isinstance(targets, ClassRows):
        fewer = ClassRows(np.asarray(targets.rows)[:, present])
    else:
        first, second = (np.searchsorted(present, np.asarray(side)) for side in (targets.first, targets.second))
        fewer = ClassMixture(first, second, targets.share)
    return fewer, dataclasses.replace(loss, **changes)  # type: ignore[type-var]


def chosen_place(scores: Vector, selection: str) -> int:
    """Which of the ascending Cs to take, from scores (folds, Cs).

    ``"best"`` takes the highest mean score, ``"one-standard-error"`` the smallest C whose mean is within one standard
    error of that (Breiman et al., 1984, "Classification and Regression Trees", section 3.4.3).

    >>> scores = np.array([[0.5, 0.70, 0.72], [0.5, 0.74, 0.80]])
    >>> chosen_place(scores, "best"), chosen_place(scores, "one-standard-error")
    (2, 1)
    """
    mean = scores.mean(axis=0)
    best = int(np.argmax(mean))
    if selection == "best":
        return best
    error = float(scores[:, best].std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
    return int(np.flatnonzero(mean >= mean[best] - error)[0])


def finished_part(counts: Sequence[int]) -> tuple[list[int], int]:
    """Which folds and how many Cs to compare where a search was stopped, from how many Cs each fold has finished.

    Of all choices of folds with the Cs that all of them have finished it is the one with the most fits, and of several
    such the one with the most folds.

    >>> finished_part([10, 10, 4, 0, 0])
    ([0, 1], 10)
    >>> finished_part([5, 4, 4, 3, 4])
    ([0, 1, 2, 4], 4)
    """
    order = sorted(range(len(counts)), key=lambda fold: -counts[fold])
    n_folds = max(range(1, len(counts) + 1), key=lambda n: (n * counts[order[n - 1]], n))
    return sorted(order[:n_folds]), counts[order[n_folds - 1]]
