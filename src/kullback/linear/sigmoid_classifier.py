"""Linear multi-label classification: one logistic regression per label, fitted together."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import type_of_target

from kullback.errors import InputError, TargetError
from kullback.kernels.recipe import Array
from kullback.linear.array_library import answers_in_kind
from kullback.linear.estimator import LinearEstimator, Vector
from kullback.linear.inputs import as_numpy, checked_weight
from kullback.linear.penalties import PenaltyName
from kullback.linear.solvers import IterationRecord
from kullback.losses import BinaryCrossEntropy, Loss
from kullback.targets import LabelRows

LabelWeight: TypeAlias = Literal["balanced"] | Mapping[int, float] | None


class SigmoidClassifier(ClassifierMixin, LinearEstimator):
    """A linear model of independent labels: several, or none, may hold at once.

    It minimises C·Σ_i w_i·loss_i + ½‖W‖² (or another `penalty`) over weights W and an unpenalised intercept. With the
    default loss, the sum of each label's binary cross-entropy, that is one scikit-learn `LogisticRegression` per
    label, in one pass over the data for all of them.

    `predict` follows the trained loss. `predict_proba` reports probabilities of the data as it is, with what positive
    weights or label smoothing did to them undone (``recover=False`` leaves them as the loss made them).

    Args:
        C: inverse strength of the penalty, above 0; ``inf`` for none.
        penalty: ``"l2"``; ``"none"`` or None, which is ``C=inf``; ``"l1"``, whose weights are zero where they do not
            pay; ``"elasticnet"``, a mixture of the two; or ``"group"``, which keeps or drops a column for all outputs
            together. See `kullback.linear.penalties` for the formulas.
        l1_ratio: the share of the norm in ``"elasticnet"`` (½ by default) and ``"group"`` (1 by default); the rest is
            the L2 penalty's.
        loss: a loss over labels, or its spelling.
        class_weight: None; a mapping from label column (0 … L−1) to the weight of its positives (1 where absent); or
            ``"balanced"``, which gives the positives and the negatives of each label the same total weight.
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
        classes_: (L,) the label columns 0 … L−1.
        coef_: (L, d) weights; under a penalty with a norm many are exactly zero.
        intercept_: (L,) intercepts.
        loss_: the loss that was minimised, class weights included.
        n_features_in_: d.
        n_iter_: (1,) iterations used.
        history_: one `IterationRecord` per iteration, the start included.
        certificate_: the `Certificate`: how far the objective can be from its minimum at most.
        converged_: whether that is within `tol`.
        interrupted_: whether Ctrl-C or the callback ended the fit.
        solver_: the solver that ran, and `solver_reason_`, why it was chosen.

    >>> import numpy as np
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> SigmoidClassifier(C=100).fit(X, [[0, 1], [1, 0], [1, 1], [0, 0]]).predict([[1.0, 0.0]])
    array([[1, 0]])
    """

    classes_: NDArray[np.int64]

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty: PenaltyName | None = "l2",
        l1_ratio: float | None = None,
        loss: str | Loss = "binary_cross_entropy(label_reduction='sum')",
        class_weight: LabelWeight = None,
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
    ) -> SigmoidClassifier:
        """Fit the model.

        Args:
            X: (N, d) float32 or float64, dense or sparse (CSR); anything else is converted.
            y: (N, L) of 0/1, dense or sparse, with the loss's `ignore_index` where a label is unknown; or `LabelRows`
                for probabilities in [0, 1].
            sample_weight: (N,) non-negative, or None for all ones.
            coef_init: where to start, shaped as `coef_`; None for zeros, or the earlier fit with `warm_start`.
            intercept_init: the same for `intercept_`.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.

        Warns:
            NotConvergedWarning: with the gradient norm and objective reached, and what helps.
        """
        self._check_settings()
        loss = self._resolved_loss("labels")
        if y is None:
            raise TargetError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X = self._checked(X, reset=True)
        targets = y if isinstance(y, LabelRows) else LabelRows(_label_matrix(as_numpy(y, "y"), loss))
        n_labels = targets.rows.shape[1]
        if len(targets) != X.shape[0]:
            raise TargetError(f"y has {len(targets)} rows, X has {X.shape[0]}; they must match")
        weight = checked_weight(sample_weight, X.shape[0])
        loss = _with_label_weight(loss, self.class_weight, targets, weight)
        self._fit(
            X,
            targets,
            n_labels,
            loss,
            weight,
            C=float(self.C),
            penalty_factor=1.0,
            classes=np.arange(n_labels),
            init=(coef_init, intercept_init),
        )
        return self

    @answers_in_kind
    def decision_function(self, X: Any) -> Array:
        """Log-odds (N, L) as the trained loss reports them."""
        return self.logits(X)

    @answers_in_kind
    def predict(self, X: Any) -> NDArray[np.int64]:
        """0 or 1 for each label, (N, L)."""
        logits = self.logits(X)
        return self.loss_.decide(logits)

    @answers_in_kind
    def predict_proba(self, X: Any) -> Vector:
        """The probability that each label holds, (N, L); see `recover`."""
        return self._probabilities(self.logits(X))

    @answers_in_kind
    def predict_log_proba(self, X: Any) -> Vector:
        """Natural logarithms of `predict_proba`, (N, L), finite where a probability would round to zero."""
        return self._log_probabilities(self.logits(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


def _label_matrix(y: Any, loss: Loss) -> NDArray[Any]:
    """Check (N, L) labels: every entry 0, 1, or the loss's ignore_index."""
    is_sparse = bool(sparse.issparse(y))
    matrix: NDArray[Any] = y.toarray() if is_sparse else np.asarray(y)
    if matrix.ndim != 2:
        kind = type_of_target(matrix)
        what = (
            "Only binary classification is supported. The type of the target is multiclass"
            if kind == "multiclass"
            else f"Unknown label type: {kind}"
        )
        raise TargetError(
            f"{what}: y has shape {matrix.shape}, and independent labels are rows (N, L) of 0/1. "
            "For one class per example use SoftmaxClassifier"
        )
    if matrix.shape[1] == 0:
        raise TargetError("y has no label columns")
    if matrix.dtype.kind == "b":
        return matrix.astype(np.uint8)
    allowed = (matrix == 0) | (matrix == 1)
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None:
        allowed |= matrix == ignored
    if not np.all(allowed):
        row, column = (int(i) for i in np.argwhere(~np.asarray(allowed))[0])
        value = matrix[row, column : column + 1].tolist()[0]
        or_ignored = "" if ignored is None else f" (or {ignored} where it is unknown)"
        raise TargetError(
            f"Unknown label type: row {row}, column {column} of y is {value!r}; independent labels are 0 or 1"
            f"{or_ignored}, never NaN or inf; wrap probabilities in kullback.LabelRows"
        )
    return matrix.astype(np.int64 if ignored is not None else np.uint8)


def _with_label_weight(loss: Loss, class_weight: LabelWeight, targets: LabelRows, sample_weight: Vector | None) -> Loss:
    """The loss with the estimator's weights in it, so that `recover` knows of them."""
    if class_weight is None:
        return loss
    if not isinstance(loss, BinaryCrossEntropy):
        raise InputError(f"{loss.name} takes no positive weights; use sample_weight, or another loss")
    if loss.positive_weight is not None or loss.class_weight is not None:
        raise InputError("weights are given twice, in the loss and as class_weight=; give them once")
    n_labels = targets.rows.shape[1]
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InputError(f"class_weight={class_weight!r} is not known; use 'balanced', a mapping, or None")
        on, off = _label_mass(loss, targets, sample_weight)
        # w·π·on = w·off = (on + off)/2, so that weighted positives and negatives are equally heavy.
        both = (on > 0) & (off > 0)
        positive = np.divide(off, on, out=np.ones(n_labels), where=both)
        label = np.divide(on + off, 2 * off, out=np.ones(n_labels), where=both)
        return dataclasses.replace(loss, positive_weight=tuple(positive), class_weight=tuple(label))
    if not isinstance(class_weight, Mapping):
        raise InputError(f"class_weight={class_weight!r} is not a mapping from label column to positive weight")
    values = np.ones(n_labels)
    for label_column, value in class_weight.items():
        if label_column not in range(n_labels):
            raise InputError(
                f"class_weight names the label column {label_column!r}; y has the columns 0 to {n_labels - 1}"
            )
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputError(
                f"class_weight[{label_column!r}] = {value!r} is not valid; weights are finite numbers of at least 0"
            )
        values[label_column] = value
    return dataclasses.replace(loss, positive_weight=tuple(values))


def _label_mass(loss: Loss, targets: LabelRows, sample_weight: Vector | None) -> tuple[Vector, Vector]:
    """Total weight of each label's positives and negatives, (L,) each; unknown entries count for neither."""
    weight = np.ones(len(targets)) if sample_weight is None else sample_weight
    ignored = getattr(loss, "ignore_index", None)
    known = np.ones(targets.rows.shape) if ignored is None else (targets.rows != ignored).astype(np.float64)
    on = weight @ np.where(known > 0, targets.rows, 0)
    return on, weight @ known - on
