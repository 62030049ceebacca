"""Checks that every calibration figure shares: a matrix, targets of its length, and non-negative weights."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InputError, ShapeError, TargetError
from kullback.targets import (
    ClassIndices,
    ClassMixture,
    ClassTargets,
    LabelRows,
    Targets,
    as_class_targets,
    as_label_targets,
)

Link: TypeAlias = Literal["softmax", "sigmoid"]
Floats: TypeAlias = NDArray[np.float64]

# A float32 softmax over a million classes sums to one within about 1e-4; a row further out is not a distribution.
ROW_SUM_TOLERANCE = 1e-3


def check_link(link: str) -> None:
    """Refuse a link that is neither ``"softmax"`` nor ``"sigmoid"``."""
    if link not in ("softmax", "sigmoid"):
        raise InputError(
            f"link {link!r} is unknown; use 'softmax' for exclusive classes or 'sigmoid' for independent labels"
        )


def as_matrix(values: ArrayLike, name: str) -> Floats:
    """Return `values` as a float64 (N, C) matrix with at least one row.

    Raises:
        ShapeError: for another number of dimensions, or no rows or columns.
        InputError: for values that are not numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} have dtype {array.dtype}, expected numbers")
    if array.ndim != 2 or 0 in array.shape:
        raise ShapeError(f"{name} have shape {array.shape}, expected (N, C) with at least one row and column")
    return array.astype(np.float64, copy=False)


def as_probabilities(values: ArrayLike, link: str) -> Floats:
    """Return `values` as float64 (N, C) probabilities, checked.

    Raises:
        InputError: for a value outside [0, 1] or not finite, or, with the softmax link, a row that does not sum
            to 1; the message names the row.
    """
    check_link(link)
    matrix = as_matrix(values, "probabilities")
    bad = ~((matrix >= 0) & (matrix <= 1))
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"row {row}, column {column}: {matrix[row, column]} is not a probability in [0, 1]; "
            "pass probabilities, not logits"
        )
    if link == "softmax":
        sums = matrix.sum(axis=1)
        off = np.abs(sums - 1) > ROW_SUM_TOLERANCE
        if off.any():
            row = int(np.argmax(off))
            raise InputError(
                f"row {row}: probabilities sum to {sums[row]:.6g}, not 1; for independent labels use link='sigmoid'"
            )
    return matrix


def as_weights(sample_weight: ArrayLike | None, n_examples: int) -> Floats:
    """Return float64 (N,) weights, all ones for None.

    Raises:
        ShapeError: for another length.
        InputError: for a negative or non-finite weight, or when every weight is zero.
    """
    if sample_weight is None:
        return np.ones(n_examples)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_examples,):
        raise ShapeError(f"sample_weight has shape {weight.shape}, expected ({n_examples},)")
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"row {row}: sample_weight {weight[row]} must be finite and not negative")
    if not weight.any():
        raise InputError("every sample_weight is zero, so no example counts; give at least one a positive weight")
    return weight


def as_targets(targets: ArrayLike | Targets, link: str, shape: tuple[int, int]) -> Targets:
    """Wrap `targets` for `link` and check them against an (N, C) matrix.

    Raises:
        TargetError: for a wrong form, shape, class index or value; the message names the row.
    """
    n_examples, n_classes = shape
    wrapped: Targets = as_class_targets(targets) if link == "softmax" else as_label_targets(targets)
    if len(wrapped) != n_examples:
        raise TargetError(f"{len(wrapped)} targets for {n_examples} rows of probabilities or scores")
    if isinstance(wrapped, ClassIndices):
        _check_indices(wrapped.indices, n_classes)
    elif isinstance(wrapped, ClassMixture):
        _check_indices(wrapped.first, n_classes)
        _check_indices(wrapped.second, n_classes)
    else:
        upper = 1.0 if isinstance(wrapped, LabelRows) else np.inf
        if wrapped.rows.shape[1] != n_classes:
            raise TargetError(f"targets have {wrapped.rows.shape[1]} columns for {n_classes} classes")
        bad = ~((wrapped.rows >= 0) & (wrapped.rows <= upper) & np.isfinite(wrapped.rows))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            valid = "finite and not negative" if upper == np.inf else "in [0, 1]"
            raise TargetError(f"row {row}, column {column}: target {wrapped.rows[row, column]} is not {valid}")
    return wrapped


def mass_on(targets: ClassTargets, classes: NDArray[Any]) -> Floats:
    """Return the (N,) target mass that each example puts on the class chosen for it."""
    if isinstance(targets, ClassIndices):
        mass = targets.indices == classes
    elif isinstance(targets, ClassMixture):
        mass = targets.share * (targets.first == classes) + (1 - targets.share) * (targets.second == classes)
    else:
        mass = targets.rows[np.arange(len(classes)), classes]
    return np.asarray(mass, dtype=np.float64)


def _check_indices(indices: NDArray[Any], n_classes: int) -> None:
    bad = (indices < 0) | (indices >= n_classes)
    if bad.any():
        row = int(np.argmax(bad))
        raise TargetError(
            f"row {row}: class index {indices[row]} is not in [0, {n_classes}); "
            "leave an example out with sample_weight 0 and any valid class"
        )
