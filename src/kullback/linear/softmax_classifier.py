"""Multinomial logistic regression: a linear model of mutually exclusive classes."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from kullback.errors import InputError, TargetError
from kullback.kernels.recipe import Array
from kullback.linear.array_library import answers_in_kind
from kullback.linear.estimator import LinearEstimator, Vector
from kullback.linear.inputs import as_numpy, check_labels, checked_weight
from kullback.linear.penalties import PenaltyName
from kullback.linear.soft_rows import wrapped_targets
from kullback.linear.solvers import IterationRecord
from kullback.losses import Loss
from kullback.targets import ClassIndices, ClassRows, ClassTargets

ClassWeight: TypeAlias = Literal["balanced"] | Mapping[Any, float] | None

# A class index this high, and far above the number of examples, is a mistake: the weights would fill the memory.
MOST_CLASSES = 10**6


class SoftmaxClassifier(ClassifierMixin, LinearEstimator):
    """A linear softmax classifier, with an L2 penalty unless another is chosen.

    It minimises C·Σ_i w_i·loss_i + ½‖W‖² over weights W and an unpenalised intercept, as scikit-learn's
    `LogisticRegression` does. With two classes the penalty is on the one vector that matters, the difference of the
    two classes' weights: again the objective of `LogisticRegression`. Where the loss minds the level of the logits (a
    softcap, a z-loss, a penalty on their size) both classes keep their weights, on which the penalty is such that
    opposite ones cost what their difference would. Columns are put on the same footing inside
    the solver, so raw columns of very different size are no obstacle.

    `predict` follows the trained loss. `predict_proba` reports probabilities of the data as it is, with what class
    weights or label smoothing did to them undone (``recover=False`` leaves them as the loss made them). Where the
    highest of those is not the predicted class, that is the class weights at work.

    Args:
        C: inverse strength of the penalty, above 0; ``inf`` for none.
        penalty: ``"l2"``; ``"none"`` or None, which is ``C=inf``; ``"l1"``, whose weights are zero where they do not
            pay; ``"elasticnet"``, a mixture of the two; or ``"group"``, which keeps or drops a column for all outputs
            together. See `kullback.linear.penalties` for the formulas.
        l1_ratio: the share of the norm in ``"elasticnet"`` (½ by default) and ``"group"`` (1 by default); the rest is
            the L2 penalty's.
        loss: a loss over classes, or its spelling.
        class_weight: None, a mapping from class label to weight (1 where absent), or ``"balanced"`` for
            Σw/(K·Σw of the class).
        fit_intercept: whether to add an intercept.
        tol: the fit has converged when the objective is proved to lie within this share of its minimum (the relative
            duality gap); where no such proof exists (C=inf), when no component of the gradient, in nats per example
            and per column standardised, exceeds it.
        max_iter: most iterations of the solver; 0 leaves the start as it is.
        solver: ``"auto"`` weighs the costs; ``"preconditioned"`` is quasi-Newton on top of a Hessian of sampled rows,
            ``"lbfgs"`` without. The penalties with a norm have a solver of their own.
        warm_start: start from the previous fit's parameters.
        recover: whether probabilities are those of the data rather than of the trained loss.
        callback: called after every iteration with its `IterationRecord`, the start (0) included. If it raises
            StopIteration, the fit ends there, as after Ctrl-C.
        verbose: 1 for a bar with the gap reached on a terminal, elsewhere one line per iteration on standard output;
            2 for lines on a terminal too.
        checkpoint: a file that holds the state of the fit while it runs, written anew every few seconds. If it is
            there when a fit of the same data and settings begins, that fit goes on from it; it is deleted when the
            fit is done. One of other data or settings is refused.

    The first Ctrl-C ends the fit at its next step: `fit` returns the best model so far, with a warning that says how
    far it is from the optimum. The second one raises KeyboardInterrupt as usual.

    Attributes:
        classes_: (C,) labels in sorted order.
        coef_: (C, d) weights, mean zero over classes under a smooth penalty, with exact zeros under the others;
            (1, d) for two classes, second minus first. Where the loss minds the level of the logits the mean is what
            the loss makes it, and two classes have two rows.
        intercept_: (C,) intercepts, mean zero likewise; (1,) where `coef_` is (1, d). A class whose examples all have
            weight zero gets one of about −50, which is as good as −inf; the others' have mean zero then.
        loss_: the loss that was minimised, class weights included.
        n_features_in_: d.
        n_iter_: (1,) iterations used.
        history_: one `IterationRecord` per iteration, the start included.
        certificate_: the `Certificate`: how far the objective can be from its minimum at most.
        converged_: whether that is within `tol`.
        interrupted_: whether Ctrl-C or the callback ended the fit.
        solver_: the solver that ran, and `solver_reason_`, why it was chosen.

    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = SoftmaxClassifier().fit(X, ["low", "low", "high", "high"])
    >>> model.predict([[-1.0], [4.0]])
    array(['low', 'high'], dtype='<U4')
    """

    classes_: NDArray[Any]
    _rows_of_y = " Rows of probabilities, one for each class, are numbers (N, C)."

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty: PenaltyName | None = "l2",
        l1_ratio: float | None = None,
        loss: str | Loss = "cross_entropy",
        class_weight: ClassWeight = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        solver: str = "auto",
        warm_start: bool = False,
        recover: bool = True,
        callback: Callable[[IterationRecord], object] | None = None,
        verbose: int = 0,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        self.C = C
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.loss = loss
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.warm_start = warm_start
        self.recover = recover
        self.callback = callback
        self.verbose = verbose
        self.checkpoint = checkpoint

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        coef_init: ArrayLike | None = None,
        intercept_init: ArrayLike | None = None,
    ) -> SoftmaxClassifier:
        """Fit the model.

        Args:
            X: (N, d) float32 or float64, dense or sparse (CSR); anything else is converted.
            y: (N,) labels of any sortable type; (N, C) soft or one-hot rows, one probability for each of the classes
                0 … C−1, which sum to 1; or, wrapped, `ClassIndices`, `ClassRows` or a `ClassMixture` of the classes
                0 … C−1. A row of `ClassRows` need not sum to 1: its sum multiplies its loss.
            sample_weight: (N,) non-negative, or None for all ones.
            coef_init: where to start, shaped as `coef_`; None for zeros, or the earlier fit with `warm_start`.
            intercept_init: the same for `intercept_`.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.

        Warns:
            NotConvergedWarning: with the gradient norm and objective reached, and what helps.
        """
        self._check_settings()
        X, classes, targets, weight, loss = self._prepared(X, y, sample_weight)
        self._fit(
            X,
            targets,
            len(classes),
            loss,
            weight,
            C=float(self.C),
            penalty_factor=penalty_factor(len(classes)),
            classes=classes,
            init=(coef_init, intercept_init),
        )
        return self

    def _prepared(
        self, X: Any, y: Any, sample_weight: ArrayLike | None
    ) -> tuple[Any, NDArray[Any], ClassTargets, Vector | None, Loss]:
        """Checked data, the classes, wrapped targets, checked weights, and the loss with the class weights in it."""
        loss = self._resolved_loss("classes")
        wrapped = wrapped_targets(y)
        if wrapped is not None:
            X = self._checked(X, reset=True)
            classes, targets = _wrapped_classes(wrapped, X.shape[0], loss)
        else:
            X, y = self._checked(X, y, reset=True)
            if y.dtype.kind not in "biu":  # whole numbers are classes, whatever they are
                try:
                    check_classification_targets(y)
                except (ValueError, TypeError) as error:
                    check_labels(y)
                    raise TargetError(str(error)) from error
            classes, places = encoded(y)
            targets = ClassIndices(places)
        n_classes = len(classes)
        _check_ignore_index(loss, n_classes)
        weight = checked_weight(sample_weight, X.shape[0])
        mass = _class_mass(targets, n_classes, weight, loss)
        _check_two_classes(classes, mass)
        weighted = _with_class_weight(loss, self.class_weight, classes, mass)
        _check_class_weights(weighted, classes, mass)
        return X, classes, targets, weight, weighted

    @answers_in_kind
    def decision_function(self, X: Any) -> Array:
        """Logits (N, C); for two classes (N,), the second class's logit minus the first's."""
        logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    @answers_in_kind
    def predict(self, X: Any) -> NDArray[Any]:
        """The label the trained loss decides for, (N,)."""
        logits = self.logits(X)
        return np.asarray(self.classes_[self.loss_.decide(logits)])

    @answers_in_kind
    def predict_proba(self, X: Any) -> Vector:
        """Probabilities (N, C) in the order of `classes_`; see `recover`."""
        return self._probabilities(self.logits(X))

    @answers_in_kind
    def predict_log_proba(self, X: Any) -> Vector:
        """Natural logarithms of `predict_proba`, (N, C), finite where a probability would round to zero."""
        return self._log_probabilities(self.logits(X))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """The share of rows whose predicted label is the right one (accuracy).

        For soft targets it is the share of their mass that lies on the predicted class: the accuracy to expect if
        labels are drawn from them, and the accuracy itself for one-hot rows.

        Args:
            X: (N, d) dense or sparse.
            y: as in `fit`.
            sample_weight: (N,) non-negative, or None for all ones.

        Raises:
            InputError: for data or targets that cannot be used.

        >>> model = SoftmaxClassifier(100).fit([[0.0], [1.0]], [[0.9, 0.1], [0.2, 0.8]])
        >>> round(model.score([[0.0], [1.0]], [[0.9, 0.1], [0.2, 0.8]]), 9)
        0.85
        """
        X, y, targets = as_numpy(X, "X"), as_numpy(y, "y"), wrapped_targets(y)
        if targets is None:
            if sample_weight is not None:
                sample_weight = checked_weight(sample_weight, len(y))
            return float(super().score(X, y, sample_weight))
        logits = self.logits(X)
        mass = self._mass(targets, len(logits))
        weight = checked_weight(sample_weight, len(logits))
        shares = mass * (np.ones(len(logits)) if weight is None else weight)[:, None]
        return float(shares[np.arange(len(logits)), self.loss_.decide(logits)].sum() / shares.sum())

    def _mass(self, targets: ClassTargets, n_rows: int) -> Vector:
        """Targets as rows (N, C), if they are of the fitted classes."""
        if len(targets) != n_rows:
            raise TargetError(f"{len(targets)} targets for {n_rows} rows of X")
        if isinstance(targets, ClassRows):
            found = targets.rows.shape[1]
        else:
            parts = (targets.indices,) if isinstance(targets, ClassIndices) else (targets.first, targets.second)
            found = max(int(part.max(initial=-1)) for part in parts) + 1
        known = len(self.classes_)
        if found > known or (isinstance(targets, ClassRows) and found != known):
            raise TargetError(f"the targets are of {found} classes, and the model of {known}")
        return targets.dense(known)

    def _spread(self, products: Array) -> Array:
        return products if products.shape[1] > 1 else np.concatenate([-products / 2, products / 2], axis=1)

    def _output_parameters(self, coef: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        if len(coef) > 1:
            return coef.T, intercept
        return np.stack([-coef[0] / 2, coef[0] / 2], axis=1), np.array([-intercept[0] / 2, intercept[0] / 2])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def penalty_factor(n_classes: int) -> float:
    """What ½‖W‖² is multiplied by.

    The two classes' weights are ±½ of their difference w, so ‖W‖² = ½‖w‖²: doubled, ½‖W‖² is ½‖w‖².
    """
    return 2.0 if n_classes == 2 else 1.0


def encoded(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes in sorted order, and each row's place among them."""
    if y.dtype.kind in "iu" and y.dtype != np.uint64 and y.size:
        least = int(y.min())
        width = int(y.max()) - least + 1
        if width <= 2 * y.size:  # counting takes less than sorting
            place = y.astype(np.int64) - least
            held = np.bincount(place, minlength=width) > 0
            return (np.flatnonzero(held) + least).astype(y.dtype), (np.cumsum(held) - 1)[place]
    classes, places = np.unique(y, return_inverse=True)
    return classes, places


def _wrapped_classes(y: ClassTargets, n_examples: int, loss: Loss) -> tuple[NDArray[Any], ClassTargets]:
    if len(y) != n_examples:
        raise TargetError(f"{len(y)} targets for {n_examples} rows of X")
    if isinstance(y, ClassRows):
        return np.arange(y.rows.shape[1]), y
    ignored = getattr(loss, "ignore_index", None)
    highest = -1
    for indices in (y.indices,) if isinstance(y, ClassIndices) else (y.first, y.second):
        counted = indices if ignored is None else indices[indices != ignored]
        if len(counted) and int(counted.min()) < 0:
            row = int(np.flatnonzero((indices < 0) & (indices != (0 if ignored is None else ignored)))[0])
            raise TargetError(f"row {row}: class index {indices[row]} is not valid; class indices are at least 0")
        highest = max(highest, int(counted.max(initial=-1)))
    if highest >= max(MOST_CLASSES, 10 * n_examples):
        raise TargetError(
            f"the class index {highest} would make {highest + 1} classes for {n_examples} rows; number the classes "
            "from 0, or pass the labels unwrapped, which numbers them"
        )
    return np.arange(highest + 1), y


def _class_mass(targets: ClassTargets, n_classes: int, weight: Vector | None, loss: Loss) -> Vector:
    """Each class's weighted mass over the rows that count, (C,)."""
    weight = np.ones(len(targets)) if weight is None else weight
    ignored = getattr(loss, "ignore_index", None)
    if isinstance(targets, ClassIndices) and ignored is not None:
        counted = targets.indices != ignored
        targets, weight = targets[counted], weight[counted]
    mass = targets.class_mass(n_classes, weight)
    if isinstance(targets, ClassRows) and not np.isfinite(mass).all():
        row, column = np.argwhere(~np.isfinite(targets.rows))[0].tolist()
        value = targets.rows[row, column]
        raise TargetError(f"row {row}, column {column}: soft target {value} is not valid; entries must be finite")
    return mass


def _check_two_classes(classes: NDArray[Any], mass: Vector) -> None:
    labels = classes.tolist()
    if len(labels) < 2:
        raise TargetError(
            f"y holds one class only ({labels[0]!r}); a classifier needs examples of at least two classes"
        )
    present = [label for label, held in zip(labels, mass > 0, strict=True) if held]
    if not present:
        raise TargetError("no target counts: every row is zero, ignored, or of weight 0")
    if len(present) < 2:
        raise TargetError(
            f"only the class {present[0]!r} has examples with a positive sample_weight; "
            "a classifier needs at least two classes"
        )


def _check_class_weights(loss: Loss, classes: NDArray[Any], mass: Vector) -> None:
    """Refuse weights that leave one class only."""
    cost = getattr(loss, "class_weight", None)
    if cost is None or len(cost) != len(mass):
        return  # the loss names what does not fit
    left = classes[(np.asarray(cost) > 0) & (mass > 0)].tolist()
    if len(left) < 2:
        only = f"only of the class {left[0]!r}" if left else "of no class"
        raise InputError(f"class_weight leaves examples {only}; a classifier needs at least two classes")


def _check_ignore_index(loss: Loss, n_classes: int) -> None:
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None and 0 <= ignored < n_classes:
        raise InputError(
            f"the loss ignores class index {ignored}, which would be one of the {n_classes} classes after encoding; "
            "leave examples out with sample_weight 0 instead"
        )


def _with_class_weight(loss: Loss, class_weight: ClassWeight, classes: NDArray[Any], mass: Vector) -> Loss:
    """The loss with the estimator's class weights in it, so that `recover` knows of them."""
    if class_weight is None:
        return loss
    if not hasattr(loss, "class_weight"):
        raise InputError(f"{loss.name} takes no class weights; use sample_weight, or another loss")
    if loss.class_weight is not None:
        raise InputError("class weights are given twice, in the loss and as class_weight=; give them once")
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InputError(f"class_weight={class_weight!r} is not known; use 'balanced', a mapping, or None")
        # A class without any weighted example has no balanced weight, and none is needed.
        balanced = np.divide(mass.sum() / len(classes), mass, out=np.ones_like(mass), where=mass > 0)
        return dataclasses.replace(loss, class_weight=tuple(balanced))  # type: ignore[type-var]
    if not isinstance(class_weight, Mapping):
        raise InputError(f"class_weight={class_weight!r} is not a mapping from class label to weight")
    place = {label: k for k, label in enumerate(classes.tolist())}
    values = np.ones(len(classes))
    for label, value in class_weight.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputError(
                f"class_weight[{label!r}] = {value!r} is not valid; weights are finite numbers of at least 0"
            )
        if label not in place:
            known = ", ".join(repr(c) for c in list(place)[:10]) + (", …" if len(place) > 10 else "")
            raise InputError(f"class_weight names the class {label!r}, which y does not hold; y holds {known}")
        values[place[label]] = value
    return dataclasses.replace(loss, class_weight=tuple(values))  # type: ignore[type-var]
