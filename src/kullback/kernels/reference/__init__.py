"""The specification: every kernel in plain NumPy, float64 inside, no tricks but stability.

Other backends are tested against this package, and this package against 50-digit arithmetic. Rows that do not count
(weight zero, or an ignored target) are taken out before any arithmetic, so their logits are never looked at.
"""

from __future__ import annotations

import numpy as np

from kullback.errors import InputError
from kullback.kernels.recipe import Array, Evaluation, MarginRecipe, Recipe, SigmoidRecipe, SoftmaxRecipe
from kullback.kernels.reference.margin import MarginRows
from kullback.kernels.reference.rows import CountedRows
from kullback.kernels.reference.sigmoid import SigmoidRows, sigmoid_probabilities
from kullback.kernels.reference.softmax import SoftmaxRows, softmax_probabilities
from kullback.kernels.reference.sparse import csr_product, csr_transposed
from kullback.kernels.reference.targets import sigmoid_targets, softmax_targets
from kullback.targets import ClassTargets, LabelRows

__all__ = [
    "csr_product",
    "csr_transposed",
    "evaluate",
    "hessian_diagonal",
    "hessian_product",
    "sigmoid_probabilities",
    "sigmoid_targets",
    "softmax_probabilities",
    "softmax_targets",
]


def evaluate(
    recipe: Recipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient.

    Args:
        recipe: the loss.
        logits: (N, C) float32 or float64.
        targets: N targets, classes or labels as the loss takes them.
        row_weight: (N,) multiplies each row's loss and gradient; None for all ones.
        ignore_index: class index of rows, or entry of label rows, that does not count.
        scale: multiplies the gradient only.
        per_example: (N,) receives row_weight·loss, summed over a row's labels.
        gradient: (N, C) receives scale·row_weight·∂loss/∂logits; may be the logits' own array.
        log_sum_exp: (N,) receives the log-sum-exp of what the softmax is taken of, and 0 for rows that do not count;
            of a softmax loss only.
        prediction: (N,) int64 receives the class of each row's largest logit, the first of equal ones; −1 for rows that
            do not count, or have a logit that is NaN or +inf; of a softmax loss only.

    Raises:
        TargetError: for a class out of range, a soft target that is negative or not finite, or a label outside [0, 1].
        InputError: for a family the reference lacks, or statistics of a softmax of a loss that takes none.
    """
    rows = _rows(recipe, logits, targets, row_weight, ignore_index)
    losses = rows.weight * rows.losses()
    if log_sum_exp is not None or prediction is not None:
        if not isinstance(rows, SoftmaxRows):
            raise InputError(f"{recipe.family} takes no softmax, so it has no log_sum_exp and prediction to write")
        if log_sum_exp is not None:
            log_sum_exp[...] = 0
            log_sum_exp[rows.counts] = np.where(rows.spoilt[:, 0], np.nan, rows.softmax.lse)
        if prediction is not None:
            prediction[...] = -1
            prediction[rows.counts] = np.where(rows.spoilt[:, 0], -1, np.argmax(logits[rows.counts], axis=1))
    if gradient is not None:
        rows.write(gradient, rows.gradient(), scale)
    if per_example is not None:
        per_example[~rows.counts] = 0
        per_example[rows.counts] = losses
    infinite = np.flatnonzero(rows.counts)[np.isposinf(losses)]
    return Evaluation(float(losses.sum()), int(infinite[0]) if len(infinite) else -1, int(rows.counts.sum()))


def hessian_product(
    recipe: Recipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·(∂²loss/∂logits²)·direction, row by row, into `out` (N, C); arguments of `evaluate`."""
    rows = _rows(recipe, logits, targets, row_weight, ignore_index)
    rows.write(out, rows.hessian_product(np.asarray(direction, dtype=np.float64)[rows.counts]), scale)


def hessian_diagonal(
    recipe: Recipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·∂²loss/∂logits_j² into `out` (N, C); arguments of `evaluate`."""
    rows = _rows(recipe, logits, targets, row_weight, ignore_index)
    rows.write(out, rows.hessian_diagonal(), scale)


def _rows(
    recipe: Recipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    row_weight: Array | None,
    ignore_index: int | None,
) -> CountedRows:
    if isinstance(recipe, SigmoidRecipe):
        assert isinstance(targets, LabelRows)
        return SigmoidRows(recipe, logits, targets, row_weight, ignore_index)
    assert not isinstance(targets, LabelRows)
    if isinstance(recipe, SoftmaxRecipe):
        return SoftmaxRows(recipe, logits, targets, row_weight, ignore_index)
    if isinstance(recipe, MarginRecipe):
        return MarginRows(recipe, logits, targets, row_weight, ignore_index)
    raise InputError(f"the reference has no loss {recipe.family!r}: such losses bring functions of their own")
