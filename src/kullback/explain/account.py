"""Who pushes which logit, and how far.

Gradient descent moves each logit against its gradient, so −∂loss/∂logit_j of an example is the push that this
example gives to class j's logit. For plain cross-entropy the push is y − p: the true class is pushed up by what is
missing from its probability, and every other class is pushed *down* by exactly its own probability, although the
loss reads only the probability of the true one; the softmax denominator couples them. Averaging the pushes over the
examples of each true class gives a C×C account that says, in the loss's own units, what the data asks of a model.

Source: ∂(−log p_y)/∂z_j = p_j − [j = y], Bridle, "Probabilistic interpretation of feedforward classification
network outputs" (1990), §3; weights, smoothing and other losses enter through the loss object's own gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import ShapeError, TargetError
from kullback.targets import (
    ClassIndices,
    ClassMixture,
    ClassRows,
    LabelRows,
    Targets,
    as_class_targets,
    as_label_targets,
    counted_rows,
)

if TYPE_CHECKING:
    from kullback.losses import Loss

# Gradient elements held at a time. 2²¹ float64 are 16 MB: past the caches' size, so larger blocks gain nothing.
_BLOCK_ELEMENTS = 1 << 21


@dataclass(frozen=True, eq=False)
class GradientAccount:
    """Mean push on every logit, by true class.

    Attributes:
        push: (C, C); row i is the (weighted) mean of −∂loss/∂logits over examples that hold class i, column j the
            logit pushed. Positive is up. In nats per unit of logit; for multi-label losses the loss is summed
            over labels, so that an entry is one label's y − p. Rows of classes without examples are NaN.
        overall: (C,) the same mean over all examples. It is zero at the minimum of an unpenalised intercept.
        counts: (C,) examples that hold each class; fractional for soft targets.
        kind: ``"classes"`` if exactly one class holds, ``"labels"`` if several may.
    """

    push: NDArray[np.float64]
    overall: NDArray[np.float64]
    counts: NDArray[np.float64]
    kind: Literal["classes", "labels"] = "classes"


def gradient_account(
    logits: ArrayLike, targets: ArrayLike | Targets, loss: Loss, *, sample_weight: ArrayLike | None = None
) -> GradientAccount:
    """Account for the pushes that examples give to the logits of a model.

    Rows are taken a block at a time, so memory beyond the inputs is bounded whatever N is.

    Args:
        logits: (N, C) raw scores of the model, as the loss takes them.
        targets: class indices (N,), soft rows (N, C), a mixture, or 0/1 label rows (N, C), as the loss takes them.
        loss: the loss whose gradient pushes; its class weights, smoothing and temperature all count.
        sample_weight: (N,) weight of each example, or None for 1. Ignored and weight-0 examples are left out.

    Returns:
        The account; C×C whatever N is.

    Raises:
        ShapeError: if logits are not (N, C), or lengths differ.
        TargetError: as the loss raises it.

    >>> import kullback
    >>> account = gradient_account([[0.0, 0.0, 0.0]], [1], kullback.CrossEntropy())
    >>> account.push[1].round(3)
    array([-0.333,  0.667, -0.333])
    """
    array = np.asarray(logits)
    if array.ndim != 2:
        raise ShapeError(f"logits have shape {array.shape}, expected (N, C)")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    return _account(array, array.shape[1], targets, loss, sample_weight)


def untrained_account(
    targets: ArrayLike | Targets, loss: Loss, n_classes: int, *, sample_weight: ArrayLike | None = None
) -> GradientAccount:
    """Account for the pushes on a model that knows nothing: every logit zero.

    Args:
        targets: as for `gradient_account`.
        loss: the loss whose gradient pushes.
        n_classes: C.
        sample_weight: (N,) or None.

    Returns:
        The account of `gradient_account` at ``zeros((N, C))``, without making that array.

    >>> import kullback
    >>> untrained_account([0, 1, 1], kullback.CrossEntropy(), 2).push
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    return _account(None, n_classes, targets, loss, sample_weight)


def _account(
    logits: NDArray[Any] | None,
    n_classes: int,
    targets: ArrayLike | Targets,
    loss: Loss,
    sample_weight: ArrayLike | None,
) -> GradientAccount:
    labels = loss.target_form == "labels"
    wrapped: Targets = as_label_targets(targets) if labels else as_class_targets(targets)
    n_rows = len(wrapped)
    if logits is not None and len(logits) != n_rows:
        raise ShapeError(f"logits have {len(logits)} rows, but there are {n_rows} targets")
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weight is not None and weight.shape != (n_rows,):
        raise ShapeError(f"sample_weight has shape {weight.shape}, expected ({n_rows},)")
    if getattr(loss, "label_reduction", "sum") == "mean":
        # The mean over labels divides every push by C, which would make accounts of different C incomparable.
        loss = replace(loss, label_reduction="sum")  # type: ignore[type-var]
    ignored = getattr(loss, "ignore_index", None)

    push = np.zeros((n_classes, n_classes))
    mass_weight = np.zeros(n_classes)
    counts = np.zeros(n_classes)
    overall = np.zeros(n_classes)
    total_weight = 0.0
    block = max(1, _BLOCK_ELEMENTS // max(1, n_classes))
    dtype = np.float64 if logits is None else logits.dtype
    zeros = np.zeros((min(block, n_rows), n_classes)) if logits is None else None
    buffer = np.empty((min(block, n_rows), n_classes), dtype=dtype)
    for start in range(0, n_rows, block):
        stop = min(start + block, n_rows)
        part = _rows_of(wrapped, start, stop)
        part_weight = None if weight is None else weight[start:stop]
        part_logits = zeros[: stop - start] if zeros is not None else logits[start:stop]  # type: ignore[index]
        try:
            _, gradient = loss.value_and_gradient(
                part_logits, part, sample_weight=part_weight, reduction="none", out=buffer[: stop - start]
            )
        except TargetError:
            if start:  # the message counts rows from this block's start: let the whole input raise it instead
                loss.per_example(np.zeros((n_rows, n_classes)), wrapped, sample_weight=weight)
            raise
        counted = counted_rows(part, part_weight, ignored)
        mass = _masses(part, n_classes, counted, ignored)
        row_weight = counted * (1.0 if part_weight is None else part_weight)
        # The gradient already carries the sample weight; the divisor must carry it too.
        push -= np.asarray(mass.T @ gradient, dtype=np.float64)
        mass_weight += mass.T @ row_weight
        counts += mass.T @ counted.astype(np.float64)
        overall -= gradient.sum(axis=0, dtype=np.float64)
        total_weight += float(row_weight.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return GradientAccount(
            push=push / mass_weight[:, None],
            overall=overall / total_weight,
            counts=counts,
            kind="labels" if labels else "classes",
        )


def _rows_of(targets: Targets, start: int, stop: int) -> Targets:
    match targets:
        case ClassIndices():
            return ClassIndices(targets.indices[start:stop])
        case ClassRows():
            return ClassRows(targets.rows[start:stop])
        case ClassMixture():
            return ClassMixture(targets.first[start:stop], targets.second[start:stop], targets.share[start:stop])
        case LabelRows():
            return LabelRows(targets.rows[start:stop])


def _masses(targets: Targets, n_classes: int, counted: NDArray[np.bool_], ignored: int | None) -> Any:
    """(n, C) target mass, sparse for index forms; rows that do not count have none."""
    match targets:
        case ClassIndices():
            return _sparse_mass([(targets.indices, counted.astype(np.float64))], n_classes)
        case ClassMixture():
            share = counted * targets.share
            return _sparse_mass([(targets.first, share), (targets.second, counted - share)], n_classes)
        case ClassRows():
            return np.where(counted[:, None], targets.rows, 0).astype(np.float64)
        case LabelRows():
            present = counted[:, None] & (ignored is None or targets.rows != ignored)
            return np.where(present, targets.rows, 0).astype(np.float64)


def _sparse_mass(parts: Sequence[tuple[NDArray[Any], NDArray[np.float64]]], n_classes: int) -> Any:
    from scipy.sparse import coo_array

    n_rows = len(parts[0][0])
    rows = np.concatenate([np.flatnonzero(mass) for _, mass in parts])
    columns = np.concatenate([indices[np.flatnonzero(mass)] for indices, mass in parts])
    values = np.concatenate([mass[np.flatnonzero(mass)] for _, mass in parts])
    return coo_array((values, (rows, columns)), shape=(n_rows, n_classes)).tocsr()
