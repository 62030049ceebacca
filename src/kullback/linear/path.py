"""A softmax model for every penalty of a path."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from kullback.errors import InputError
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate
from kullback.linear.course import Course
from kullback.linear.cv import strengths
from kullback.linear.estimator import FitNotConvergedWarning
from kullback.linear.folds import Examples
from kullback.linear.inputs import check_number
from kullback.linear.interruption import INTERRUPTIONS, ctrl_c_stops
from kullback.linear.path_point import PathPoint
from kullback.linear.penalties import PenaltyName, resolve_searched_penalty
from kullback.linear.progress import Silent, shown
from kullback.linear.softmax_classifier import ClassWeight, SoftmaxClassifier, penalty_factor
from kullback.linear.solvers import IterationRecord
from kullback.losses import Loss

Vector = NDArray[np.float64]


class SoftmaxPath(SoftmaxClassifier):
    """One `SoftmaxClassifier` for every C, fitted from the strongest penalty to the weakest.

    Each fit starts where the one before ended, and what does not depend on C is done once. Data with many more
    columns than rows is rotated once into as many coordinates as it has rows; what is found there is checked, and
    finished if need be, on the data's own columns. Every C ends with a certificate of its own.

    `predict` and its relatives answer for the weakest penalty; `at` gives the model of any other.

    Args:
        Cs: the values of C, or how many to spread evenly in their logarithm from 1e-4 to 1e4.
        penalty: as in `SoftmaxClassifier`, and so is `l1_ratio`.
        loss: as in `SoftmaxClassifier`, and so are `class_weight`, `fit_intercept`, `tol`, `max_iter`, `solver`,
            and `recover`.
        callback: called after every iteration of every C with its `IterationRecord`. If it raises StopIteration, the
            path ends there, as after Ctrl-C.
        verbose: 1 for a bar on a terminal, elsewhere two lines per C; 2 for a line per iteration too.
        checkpoint: a file that holds the Cs that are done, written anew every few seconds. If it is there when a path
            of the same data and settings begins, that path goes on from it; it is deleted when the path is done.

    The first Ctrl-C ends the path at its next step: `fit` returns the Cs so far, with a warning that says how far the
    last of them is from its optimum. The second one raises KeyboardInterrupt as usual.

    Attributes:
        Cs_: (n,) the values, ascending; those so far, if the path was interrupted.
        coefs_: (n, C, d) weights, (n, 1, d) for two classes.
        intercepts_: (n, C) or (n, 1).
        points_: one `PathPoint` per C, with its certificate, its records, the solver and the reason for it.
        certificates_: one `Certificate` per C.
        n_iters_: (n,) iterations.
        classes_: (C,) labels in sorted order.
        converged_: whether every C came within `tol`.
        interrupted_: whether Ctrl-C or the callback ended the path.
        coef_: the weakest penalty's, as are `intercept_`, `certificate_`, `history_`, `n_iter_`, `solver_` and
            `solver_reason_`.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> path = SoftmaxPath(Cs=[100, 1, 0.01]).fit(X, y)
    >>> path.coefs_.shape
    (3, 3, 4)
    >>> [path.at(C).score(X, y).__round__(2) for C in path.Cs_]
    [0.87, 0.97, 0.98]
    """

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        penalty: PenaltyName | None = "l2",
        l1_ratio: float | None = None,
        loss: str | Loss = "cross_entropy",
        class_weight: ClassWeight = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        solver: str = "auto",
        recover: bool = True,
        callback: Callable[[IterationRecord], object] | None = None,
        verbose: int = 0,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        self.Cs = Cs
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.loss = loss
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.recover = recover
        self.callback = callback
        self.verbose = verbose
        self.checkpoint = checkpoint

    # What one fit has and a path has not.
    warm_start = False

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> SoftmaxPath:  # type: ignore[override]
        """Fit every C.

        Args:
            X: (N, d) float32 or float64, dense or sparse.
            y: as in `SoftmaxClassifier.fit`.
            sample_weight: (N,) non-negative, or None for all ones.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.

        Warns:
            NotConvergedWarning: once, with every C whose fit did not reach `tol`, and its gap.
        """
        self._check_effort()
        Cs = strengths(self.Cs)
        X, classes, targets, weight, loss = self._prepared(X, y, sample_weight)
        penalty = resolve_searched_penalty(self.penalty, self.l1_ratio)
        plain = Examples(
            X, targets, weight, loss, len(classes), self.fit_intercept, penalty_factor(len(classes)), penalty
        )
        checkpoint = self._search_checkpoint(X, targets, loss, weight, Cs=Cs)
        points = [] if checkpoint is None else checkpoint.of_fold(0)
        task = plain.task(n_fits=len(Cs))
        with (
            ctrl_c_stops() as interrupted,
            block_map(task.n_at_once) as run,
            shown(int(self.verbose), float(self.tol), len(Cs)) as show,
        ):
            for _ in points:
                show.fitted("from the checkpoint")
            for C in Cs[len(points) :]:
                course = Course([])
                solution = task.solve(
                    float(C),
                    start=(points[-1].weights, points[-1].intercept) if points else None,
                    follow=self._following(course, interrupted, show, of=f"C = {C:g}: "),
                    announce=partial(_announce, show, C),
                    run=run,
                    tol=float(self.tol),
                    max_iter=int(self.max_iter),
                    solver=self.solver,
                )
                point = PathPoint.of(solution, course.history)
                points.append(point)
                gap = point.certificate.relative_gap
                show.fitted(f"C = {C:g}: objective {point.certificate.primal:.6f}  gap {gap:.2e}")
                if point.ended in INTERRUPTIONS:
                    break
                if checkpoint is not None:
                    checkpoint.add(0, len(points) - 1, point)
        self._store(Cs, points, loss)
        self.classes_, self.loss_ = classes, loss
        if checkpoint is not None:
            checkpoint.finish(done=not self.interrupted_)
        if np.isinf(self.Cs_[-1]) and not self.interrupted_:
            last = points[-1]
            finding = task.separation((last.weights, last.intercept))
            judged = self._judged(finding, last.certificate, last.weights, classes.tolist(), stacklevel=3)
            points[-1] = dataclasses.replace(last, certificate=judged)
            self._store(Cs, points, loss)
        self._warn_of(Cs, points)
        return self

    def _store(self, Cs: Vector, points: list[PathPoint], loss: Loss) -> None:
        coefs, intercepts = [], []
        for point in points:
            self._store_parameters(point.weights, point.intercept, loss)
            coefs.append(self.coef_)
            intercepts.append(self.intercept_)
        last = points[-1]
        self.Cs_ = Cs[: len(points)]
        self.coefs_, self.intercepts_ = np.stack(coefs), np.stack(intercepts)
        self.points_ = points
        self.certificates_: list[Certificate] = [point.certificate for point in points]
        self.n_iters_ = np.array([point.n_iter for point in points], dtype=np.int32)
        self.interrupted_ = last.ended in INTERRUPTIONS
        self._store_about(last)
        self.converged_ = all(point.converged for point in points) and len(points) == len(Cs)

    def _warn_of(self, Cs: Vector, points: list[PathPoint]) -> None:
        """Say once which Cs fell short, and by how much."""
        short = [(C, point) for C, point in zip(Cs, points, strict=False) if not point.converged]
        if not short:
            return
        told = "; ".join(f"C = {C:g}: {point.ended}, {_distance_of(point)}" for C, point in short)
        what = f"{type(self).__name__} did not converge at {told} (tol {float(self.tol):.3g})."
        if self.interrupted_:
            left = f" {len(Cs) - len(points)} of {len(Cs)} Cs were not begun."
            advice = (
                "; with checkpoint= the same fit goes on from its finished Cs."
                if self.checkpoint is None
                else ("; the same fit with the same checkpoint= goes on from its finished Cs.")
            )
            what += left + " Fit again for all" + advice
        else:
            what += " What helps: raise max_iter, raise tol or leave out the weakest penalties."
        warnings.warn(what, FitNotConvergedWarning, stacklevel=3)

    def at(self, C: float) -> SoftmaxClassifier:
        """The model of one of the Cs.

        Raises:
            InputError: for a C that is not in `Cs_`.
        """
        check_is_fitted(self)
        check_number("C", C, "a number on this path", lambda v: v > 0)
        places = np.flatnonzero(np.isclose(self.Cs_, C, rtol=1e-9, atol=0))
        if len(places) == 0:
            raise InputError(f"C={C!r} is not on this path; it has {', '.join(f'{c:g}' for c in self.Cs_)}")
        place = int(places[0])
        names = ("penalty", "l1_ratio", "loss", "class_weight", "fit_intercept", "tol", "max_iter", "solver", "recover")
        model = SoftmaxClassifier(C=float(self.Cs_[place]), **{name: getattr(self, name) for name in names})
        for name, value in vars(self).items():
            if name in ("classes_", "loss_", "n_features_in_", "feature_names_in_"):
                setattr(model, name, value)
        model.coef_, model.intercept_ = self.coefs_[place].copy(), self.intercepts_[place].copy()
        model._store_about(self.points_[place])
        return model

    def plot_path(self, ax: Any = None, *, columns: int = 8) -> Any:
        """Draw the length of each column's weights, over the classes, against C; returns the matplotlib axes.

        Args:
            ax: where to draw; None for a new figure.
            columns: how many of the columns are named and coloured: those with the largest weights.
        """
        from kullback.linear.plots import plot_path

        return plot_path(self, ax, columns)


def _announce(show: Silent, C: float, line: str) -> None:
    show.line(f"C = {C:g}: {line}")


def _distance_of(point: PathPoint) -> str:
    known = point.certificate
    if np.isfinite(known.relative_gap):
        return f"relative duality gap {known.relative_gap:.3g}"
    if np.isfinite(known.gap):
        return f"duality gap {known.gap:.3g} nats"
    return f"scaled gradient norm {point.history[-1].gradient_norm:.3g}, no duality gap: {known.reason}"
