"""Rows of probabilities as targets of mutually exclusive classes, told from columns of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from kullback.errors import TargetError
from kullback.linear.inputs import as_numpy
from kullback.targets import ClassIndices, ClassMixture, ClassRows, ClassTargets

# How far the sum of a row may be from 1: probabilities that were written with two or three digits pass.
SUM_MARGIN = 0.01


def wrapped_targets(y: Any) -> ClassTargets | None:
    """Targets that were given wrapped, or as (N, C) rows of probabilities with C above 1; None for labels.

    Args:
        y: as `SoftmaxClassifier.fit` takes it.

    Raises:
        TargetError: for rows of numbers that are no probabilities, naming the row.

    >>> wrapped_targets([[0.5, 0.5], [0.0, 1.0]])
    ClassRows(rows=array([[0.5, 0.5],
           [0. , 1. ]]))
    >>> wrapped_targets(["a", "b"]) is None
    True
    """
    if isinstance(y, ClassIndices | ClassRows | ClassMixture):
        return y
    is_sparse = bool(sparse.issparse(y))
    if y is None or is_sparse:
        return None
    try:
        rows = np.asarray(as_numpy(y, "y"))
    except ValueError:  # lists of different lengths
        return None
    if rows.ndim != 2 or rows.shape[1] < 2 or rows.dtype.kind not in "biuf":
        return None
    rows = rows.astype(np.float64) if rows.dtype.kind != "f" else rows
    with np.errstate(invalid="ignore"):
        bad = ~((rows >= 0) & (rows <= 1 + SUM_MARGIN))
    if bad.any():
        row, column = (int(place) for place in np.argwhere(bad)[0])
        raise TargetError(f"row {row}, column {column} of y is {rows[row, column]:g}. {_WHAT} {_OTHERWISE}")
    sums = rows.sum(axis=1, dtype=np.float64)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_MARGIN)
    if len(off):
        raise TargetError(f"row {off[0]} of y sums to {sums[off[0]]:g}. {_WHAT} {_OTHERWISE}")
    return ClassRows(rows)


_WHAT = "y with several columns is read as rows of probabilities, one for each class, which sum to 1."
_OTHERWISE = (
    "For one label per example pass y with shape (N,); for independent labels use SigmoidClassifier; for rows whose "
    "sums are to multiply their loss pass kullback.ClassRows(y)."
)
