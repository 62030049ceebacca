"""The kernels in C++: float32 and float64, threads, and the best instructions the processor has.

The functions mean what those of `kullback.kernels.reference` mean. They read any row stride in place; other layouts
are converted block by block, never as a whole. If a soft target turns out to be invalid half-way, the outputs hold
the rows done so far.

The instruction level is chosen when the module is loaded; the environment variable ``KULLBACK_ISA`` (``v2``, ``v3``
or ``v4``: the x86-64 levels) asks for a lower one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kullback.errors import InputError, ShapeError
from kullback.kernels import _native
from kullback.kernels import threads as threads  # sets the number of threads from the environment
from kullback.kernels.cpu.arguments import settings_of, target_form
from kullback.kernels.cpu.arrays import (
    BFLOAT16,
    PRECISIONS,
    aligned,
    checked_class_weights,
    checked_row_weight,
    in_and_out,
    per_row,
    plain,
    same_columns,
    shape_of,
)
from kullback.kernels.cpu.sparse import csr_product, csr_transposed
from kullback.kernels.recipe import Array, Evaluation, Recipe, SigmoidRecipe, SoftmaxRecipe, TargetSummary
from kullback.kernels.reference.targets import class_range_error, label_error, soft_target_error
from kullback.targets import ClassIndices, ClassMixture, ClassRows, ClassTargets, LabelRows

__all__ = [
    "BFLOAT16",
    "count_indices",
    "cross_entropy_of_indices",
    "csr_product",
    "csr_transposed",
    "evaluate",
    "hessian_diagonal",
    "hessian_product",
    "linear_pass",
    "sigmoid_probabilities",
    "sigmoid_targets",
    "softmax_probabilities",
    "softmax_targets",
]

_EVALUATE, _PRODUCT, _DIAGONAL = 0, 1, 2


# ---------------------------------------------------------------- targets


def softmax_targets(
    targets: ClassTargets,
    n_classes: int,
    *,
    row_weight: Array | None = None,
    class_weight: Array | None = None,
    ignore_index: int | None = None,
) -> TargetSummary:
    """Check class targets against the number of classes and sum their weights; see the reference."""
    if isinstance(targets, ClassRows):
        same_columns("soft targets", targets.rows, n_classes)
    form = target_form(targets, ignore_index)
    total, counted, _, row, column = _native.targets(
        False,
        len(targets),
        n_classes,
        checked_class_weights(class_weight, n_classes, np.dtype(np.float64), "class_weight"),
        *form[:4],
        checked_row_weight(row_weight, len(targets)),
        form.ignore_index,
        None,
    )
    _raise_bad_target(targets, row, column, n_classes)
    return TargetSummary(counted, total)


def sigmoid_targets(
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    known: Array | None = None,
) -> TargetSummary:
    """Count the rows that count and sum their weights; see the reference."""
    if known is not None and not (known.shape == (len(targets),) and known.dtype == np.float64 and known.flags.carray):
        raise ShapeError(f"known has shape {known.shape} and dtype {known.dtype}, expected ({len(targets)},) float64")
    form = target_form(targets, ignore_index)
    total, counted, *_ = _native.targets(
        True,
        len(targets),
        targets.rows.shape[1],
        None,
        *form[:4],
        checked_row_weight(row_weight, len(targets)),
        form.ignore_index,
        known,
    )
    return TargetSummary(counted, total)


def count_indices(indices: Array, n_classes: int, ignore_index: int | None) -> int:
    """How many of some aligned class indices count, or −1 if one of those is out of range."""
    _, counted, _, row, _ = _native.targets(
        False, len(indices), n_classes, None, indices, None, None, None, None, ignore_index, None
    )
    return -1 if row >= 0 else counted


# ---------------------------------------------------------------- losses


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
    tally: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient; see the reference.

    Logits may also be `BFLOAT16`. `tally` (3,) int64 gets what ``"cross_entropy_from_probabilities"`` has to say of
    rows that count: how many have a class with mass below the clip, how many one above, and the first row that is none
    of probabilities, or −1.
    """
    if not isinstance(recipe, SoftmaxRecipe) and (log_sum_exp is not None or prediction is not None):
        raise InputError(f"{recipe.family} takes no softmax, so it has no log_sum_exp and prediction to write")
    return _run(
        _EVALUATE,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        per_example=per_example,
        out=gradient,
        log_sum_exp=log_sum_exp,
        prediction=prediction,
        tally=tally,
    )


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
    """Write each row's Hessian times the direction's row into `out`; see the reference."""
    _run(
        _PRODUCT,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        direction=direction,
        out=out,
    )


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
    """Write the diagonal of each row's Hessian into `out`; see the reference."""
    _run(
        _DIAGONAL,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        out=out,
    )


def cross_entropy_of_indices(
    logits: Array,
    indices: Array,
    *,
    smoothing: float,
    temperature: float,
    softcap: float,
    z_loss: float,
    ignore_index: int | None,
    scale: float,
    gradient: Array | None,
) -> tuple[float, int]:
    """`evaluate` of cross-entropy for callers to whom a microsecond matters: only the classes are checked.

    Args:
        logits: (N, C) float32, float64 or `BFLOAT16`, contiguous and aligned.
        indices: (N,) aligned integers.
        smoothing: ε in [0, 1].
        temperature: T > 0.
        softcap: c > 0, or 0 for none.
        z_loss: λ ≥ 0.
        ignore_index: class index of rows that do not count.
        scale: multiplies the gradient.
        gradient: (N, C) to write to, contiguous, of the logits' type and none of their memory, or None.

    Returns:
        The sum of the losses and how many rows count, or −1 if the class of one is out of range.
    """
    total, counted, _, row, _ = _native.family(
        False,
        _EVALUATE,
        "cross_entropy",
        [],
        smoothing,
        1.0 / temperature,
        None,  # weights of classes
        None,  # and of positive labels
        logits,
        indices,
        None,  # the targets' other forms
        None,
        None,
        None,  # weights of rows
        ignore_index,
        scale,
        None,  # direction
        None,  # losses
        gradient,
        None,  # numbers per class of the family
        None,  # offsets
        softcap,
        z_loss,
    )
    return total, -1 if row >= 0 else counted


def _run(
    operation: int,
    recipe: Recipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None,
    ignore_index: int | None,
    scale: float,
    direction: Array | None = None,
    per_example: Array | None = None,
    out: Array | None = None,
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
    tally: Array | None = None,
) -> Evaluation:
    n, n_classes = shape_of(logits, half=operation == _EVALUATE)
    if len(targets) != n:
        raise ShapeError(f"{n} rows of logits, but {len(targets)} targets")
    if isinstance(targets, ClassRows | LabelRows):
        same_columns(
            "multi-label targets" if isinstance(targets, LabelRows) else "soft targets", targets.rows, n_classes
        )
    for name, array in (("direction", direction), ("output", out)):
        if array is not None and array.shape != logits.shape:
            raise ShapeError(f"{name} has shape {array.shape}, the logits {logits.shape}")
    dtype = PRECISIONS[0] if logits.dtype == BFLOAT16 else logits.dtype
    source, target = in_and_out(logits, out)
    if direction is not None:
        direction = plain(direction)
        if target is not None and np.may_share_memory(direction, target):
            direction = direction.copy()
    losses = per_row("per_example", per_example, n, dtype, PRECISIONS[1])
    log_sums = per_row("log_sum_exp", log_sum_exp, n, dtype)
    predicted = per_row("prediction", prediction, n, np.dtype(np.int64))
    form = target_form(targets, ignore_index)
    settings = settings_of(recipe, n_classes, dtype)
    arguments: tuple[Any, ...] = (
        *settings.weights,
        source,
        *form[:4],
        checked_row_weight(row_weight, n),
        form.ignore_index,
        scale,
        direction,
        losses,
        target,
        *settings.extras,
        log_sums,
        predicted,
        tally,
    )
    named = settings.named
    total, counted, infinite_row, row, column = _native.family(settings.is_sigmoid, operation, *named, *arguments)
    _raise_bad_target(targets, row, column, n_classes)
    if out is not None and target is not out:
        out[...] = target
    for result, wanted in ((losses, per_example), (log_sums, log_sum_exp), (predicted, prediction)):
        if wanted is not None and result is not wanted:
            wanted[...] = result
    return Evaluation(total, infinite_row, -1 if settings.is_sigmoid else counted)


def _raise_bad_target(targets: ClassTargets | LabelRows, row: int, column: int, n_classes: int) -> None:
    if row < 0:
        return
    if isinstance(targets, LabelRows):
        raise label_error(row, column, targets.rows[row, column])
    if isinstance(targets, ClassRows):
        raise soft_target_error(row, column, targets.rows[row, column])
    indices = targets.indices if isinstance(targets, ClassIndices) else targets.first
    if isinstance(targets, ClassMixture) and 0 <= indices[row] < n_classes:
        indices = targets.second
    raise class_range_error(row, int(indices[row]), n_classes)


# ---------------------------------------------------------------- probabilities


def softmax_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write softmax(logits / temperature), or its logarithm, into `out` (N, C)."""
    _probabilities(False, logits, temperature, log, out)


def sigmoid_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write sigmoid(logits / temperature), or its logarithm, into `out` (N, C)."""
    _probabilities(True, logits, temperature, log, out)


def _probabilities(is_sigmoid: bool, logits: Array, temperature: float, log: bool, out: Array) -> None:
    shape_of(logits)
    if out.shape != logits.shape:
        raise ShapeError(f"output has shape {out.shape}, the logits {logits.shape}")
    source, target = in_and_out(logits, out)
    assert target is not None
    _native.probabilities(is_sigmoid, source, 1.0 / temperature, log, target)
    if target is not out:
        out[...] = target


# ---------------------------------------------------------------- linear models


def linear_pass(
    recipe: SoftmaxRecipe | SigmoidRecipe,
    matrix: Array,
    targets: ClassTargets | LabelRows,
    n_outputs: int,
    *,
    row_weight: Array | None,
    ignore_index: int | None,
    dtype: Any,
    ones: bool,
    centre: Array | None = None,
    inverse: Array | None = None,
) -> _native.LinearPass:
    """Passes over all rows of a linear model: its loss and gradient, and Hessian products, in one call each.

    Args:
        recipe: of the loss.
        matrix: (N, d) float32 or float64, each row or each column contiguous.
        targets: of N rows, checked already.
        n_outputs: C.
        row_weight: (N,) or None for all ones.
        ignore_index: the class of rows that do not count, or None.
        dtype: float32 or float64, of the products.
        ones: whether there are intercepts, the weights of a column of ones behind the others.
        centre: (d,) float64 that is taken from every row before it is multiplied, or None.
        inverse: (d,) float64 that it is multiplied by then.

    Returns:
        An object whose ``evaluate(weights, sums)`` writes the gradient of the summed loss in the weights to `sums`,
        both (d + ones, C) float64, and returns the loss first and the first row whose loss is infinite (or −1) third;
        ``product(weights, along, sums)`` writes the Hessian times `along`.
    """
    dtype = np.dtype(dtype)
    settings = settings_of(recipe, n_outputs, dtype)
    form = target_form(targets, ignore_index)
    arguments: tuple[Any, ...] = (
        *settings.named,
        *settings.weights,
        *settings.extras,
        aligned(matrix),
        dtype == np.float64,
        bool(ones),
        centre,
        inverse,
        n_outputs,
        *form[:4],
        checked_row_weight(row_weight, len(targets)),
        form.ignore_index,
    )
    return _native.LinearPass(settings.is_sigmoid, *arguments)
