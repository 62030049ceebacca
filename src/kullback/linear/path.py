"""A softmax model for every penalty of a path."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from kullback.errors import InputError
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate
from kullback.linear.cv import strengths
from kullback.linear.folds import Examples
from kullback.linear.penalties import PenaltyName, resolve_penalty
from kullback.linear.rotation import is_wide, rotate
from kullback.linear.softmax_classifier import ClassWeight, SoftmaxClassifier, penalty_factor
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
            `recover` and `verbose`.

    Attributes:
        Cs_: (n,) the values, ascending.
        coefs_: (n, C, d) weights, (n, 1, d) for two classes.
        intercepts_: (n, C) or (n, 1).
        certificates_: one `Certificate` per C.
        n_iters_: (n,) iterations.
        classes_: (C,) labels in sorted order.

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
        penalty: PenaltyName = "l2",
        l1_ratio: float | None = None,
        loss: str | Loss = "cross_entropy",
        class_weight: ClassWeight = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        solver: str = "auto",
        recover: bool = True,
        verbose: int = 0,
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
        self.verbose = verbose

    # What one fit has and a path has not.
    warm_start = False
    callback = None
    checkpoint = None

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> SoftmaxPath:  # type: ignore[override]
        """Fit every C.

        Args:
            X: (N, d) float32 or float64, dense or sparse.
            y: as in `SoftmaxClassifier.fit`.
            sample_weight: (N,) non-negative, or None for all ones.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.

        Warns:
            NotConvergedWarning: for the first C whose fit did not reach `tol`.
        """
        self._check_effort()
        Cs = strengths(self.Cs)
        X, classes, targets, weight, loss = self._prepared(X, y, sample_weight)
        effort: dict[str, Any] = {"tol": float(self.tol), "max_iter": int(self.max_iter), "solver": self.solver}
        penalty = resolve_penalty(self.penalty, self.l1_ratio)
        plain = Examples(
            X, targets, weight, loss, len(classes), self.fit_intercept, penalty_factor(len(classes)), penalty
        )
        task = plain.task()
        solutions = []
        with block_map(max(2, task.n_blocks)) as run:
            rotation = rotate(X, centred=self.fit_intercept, run=run) if is_wide(X) and penalty.lasso == 0 else None
            rotated = None if rotation is None else plain.with_rows(rotation).task()
            start = turned = None
            iterations = []
            for C in Cs:
                spent = 0
                if rotation is not None and rotated is not None and np.isfinite(C):
                    found = rotated.solve(float(C), start=turned, run=run, **effort)
                    turned, spent = (found.weights, found.intercept), found.result.history[-1].iteration
                    start = rotation.to_columns(*turned)
                solution = task.solve(float(C), start=start, run=run, **effort)
                start = solution.weights, solution.intercept
                solutions.append(solution)
                iterations.append(spent + solution.result.history[-1].iteration)
                if self.verbose:
                    gap = solution.certificate.relative_gap
                    print(f"C = {C:g}: objective {solution.certificate.primal:.6f}  gap {gap:.2e}", flush=True)
        coefs, intercepts = [], []
        for solution in solutions:
            self._store_parameters(solution.weights, solution.intercept)
            coefs.append(self.coef_)
            intercepts.append(self.intercept_)
        self.Cs_, self.classes_, self.loss_ = Cs, classes, loss
        self.coefs_, self.intercepts_ = np.stack(coefs), np.stack(intercepts)
        self.certificates_: list[Certificate] = [solution.certificate for solution in solutions]
        self.n_iters_ = np.array(iterations, dtype=np.int32)
        for C, solution in zip(Cs, solutions, strict=True):
            self.history_, self.interrupted_ = list(solution.result.history), False
            if not solution.result.converged:
                self._warn_if_not_converged(solution.result, solution.certificate, of=f" at C = {C:g}")
                break
        return self

    def at(self, C: float) -> SoftmaxClassifier:
        """The model of one of the Cs.

        Raises:
            InputError: for a C that is not in `Cs_`.
        """
        check_is_fitted(self)
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
        model.certificate_ = self.certificates_[place]
        return model

    def plot_path(self, ax: Any = None, *, columns: int = 8) -> Any:
        """Draw the length of each column's weights, over the classes, against C; returns the matplotlib axes.

        Args:
            ax: where to draw; None for a new figure.
            columns: how many of the columns are named and coloured: those with the largest weights.
        """
        from kullback.linear.plots import plot_path

        return plot_path(self, ax, columns)
