"""What targets say before any logit is read, and the errors that every backend raises for bad ones."""

from __future__ import annotations

import numpy as np

from kullback.errors import ShapeError, TargetError
from kullback.kernels.recipe import Array, TargetSummary
from kullback.kernels.reference.rows import Bool, counted_weights
from kullback.targets import ClassIndices, ClassRows, ClassTargets, LabelRows, counted_rows


def softmax_targets(
    targets: ClassTargets,
    n_classes: int,
    *,
    row_weight: Array | None = None,
    class_weight: Array | None = None,
    ignore_index: int | None = None,
) -> TargetSummary:
    """Check class targets against the number of classes and sum their weights.

    Args:
        targets: any class target form over N rows.
        n_classes: C.
        row_weight: (N,) or None for all ones.
        class_weight: (C,) or None for all ones.
        ignore_index: rows with this class do not count (index targets only).

    Raises:
        TargetError: if a counted row's class is outside [0, C).
    """
    counts = counted_rows(targets, row_weight, ignore_index)
    weight = np.ones(len(targets)) if row_weight is None else np.asarray(row_weight, dtype=np.float64)
    check_range(targets, n_classes, counts)
    if class_weight is None:
        return TargetSummary(int(counts.sum()), float(weight[counts].sum()))
    mass = targets[counts].dense(n_classes)
    total = mass.sum(axis=1)
    row_class_weight = np.divide(mass @ class_weight, total, out=np.ones_like(total), where=total > 0)
    return TargetSummary(int(counts.sum()), float((weight[counts] * row_class_weight).sum()))


def sigmoid_targets(
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    known: Array | None = None,
) -> TargetSummary:
    """Count the rows that count and sum their weights; the entries are checked by `evaluate`.

    A row counts if its weight is not zero and, where `ignore_index` is given, at least one entry is not ignored.
    `known`, (N,) float64 if given, receives each row's number of entries that are not ignored.
    """
    counts = counted_rows(targets, row_weight, None)
    if known is not None:
        known[:] = targets.rows.shape[1]
    if ignore_index is not None:
        per_row = (targets.rows != ignore_index).sum(axis=1)
        counts &= per_row > 0
        if known is not None:
            known[:] = per_row
    return TargetSummary(int(counts.sum()), float(counted_weights(row_weight, counts).sum()))


def check_range(targets: ClassTargets, n_classes: int, counts: Bool) -> None:
    """Raise TargetError for the first counted row whose target is no class, or no mass of classes."""
    if isinstance(targets, ClassRows):
        if targets.rows.shape[1] != n_classes:
            raise ShapeError(f"soft targets have {targets.rows.shape[1]} columns, the logits {n_classes}")
        rows = targets.rows
        bad = counts[:, None] & ~((rows >= 0) & np.isfinite(rows))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise soft_target_error(row, column, rows[row, column])
        return
    vectors = [targets.indices] if isinstance(targets, ClassIndices) else [targets.first, targets.second]
    for indices in vectors:
        bad = counts & ((indices < 0) | (indices >= n_classes))
        if bad.any():
            row = int(np.argmax(bad))
            raise class_range_error(row, int(indices[row]), n_classes)


def class_range_error(row: int, value: int, n_classes: int) -> TargetError:
    """The error every backend raises for a class index out of range."""
    return TargetError(f"row {row}: target {value} is not a class; valid indices are 0 to {n_classes - 1}")


def soft_target_error(row: int, column: int, value: float) -> TargetError:
    """The error every backend raises for a bad entry of a soft target row."""
    return TargetError(
        f"row {row}, column {column}: soft target {value} is not valid; entries must be finite and at least 0"
    )


def label_error(row: int, column: int, value: float) -> TargetError:
    """The error every backend raises for a bad entry of a multi-label target row."""
    return TargetError(
        f"row {row}, column {column}: label target {value} is not valid; entries must lie between 0 and 1"
    )
