"""What a linear estimator is given, turned into arrays that it can use, or refused with the place of the fault."""

from __future__ import annotations

import numbers
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kullback.errors import InputError
from kullback.losses.base import as_sample_weight

Vector: TypeAlias = NDArray[np.float64]


def check_number(name: str, value: object, valid: str, test: Any, *, integer: bool = False) -> None:
    """Refuse a setting that is not a number for which `test` holds; `valid` says what would be."""
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not test(value):
        raise InputError(f"{name}={value!r} is not valid; it must be {valid}")


def as_numpy(values: Any, name: str) -> Any:
    """Turn an array of another library into a NumPy array; anything else passes unchanged.

    Args:
        values: whatever was given. Data frames keep their column names, so they pass unchanged too.
        name: what the message calls it.

    Raises:
        InputError: for an array on a device that NumPy cannot read, or one that tracks gradients.
    """
    foreign = hasattr(values, "__dlpack__") or hasattr(values, "__array_namespace__")
    if not foreign or isinstance(values, np.ndarray | np.generic) or hasattr(values, "columns"):
        return values
    try:
        return np.asarray(values)
    except Exception as error:
        raise InputError(
            f"{name} is a {type(values).__module__}.{type(values).__qualname__} that NumPy cannot read ({error}); "
            "move it to the CPU and detach it first"
        ) from error


def dense(matrix: Any) -> Vector:
    """An array from an array or a sparse matrix."""
    is_sparse = bool(sparse.issparse(matrix))
    return np.asarray(matrix.toarray() if is_sparse else matrix, dtype=np.float64)


def start_from(name: str, given: ArrayLike | None, otherwise: Vector) -> Vector:
    """Check starting values against the shape they must have.

    Args:
        name: what the message calls them.
        given: the values, or None.
        otherwise: what to start from if nothing was given.

    Raises:
        InputError: for another shape, or values that are not finite numbers.
    """
    if given is None:
        return otherwise
    try:
        values = np.array(as_numpy(given, name), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error
    if values.ndim < otherwise.ndim and values.size == otherwise.size:
        values = values.reshape(otherwise.shape)
    if values.shape != otherwise.shape:
        raise InputError(f"{name} has shape {values.shape}, but this data needs {otherwise.shape}")
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise InputError(f"{name} holds {values[place]} at {place}; it must be finite")
    return values


def checked_weight(sample_weight: ArrayLike | None, n_examples: int) -> Vector | None:
    """Sample weights as float64 (N,), or None; a single number is the weight of every example.

    Raises:
        InputError: for a negative or non-finite weight, another length, or all zeros.
    """
    if sample_weight is None:
        return None
    given = np.asarray(as_numpy(sample_weight, "sample_weight"))
    if given.dtype.kind not in "biuf":
        raise InputError(f"sample_weight has dtype {given.dtype}, expected numbers")
    weight = as_sample_weight(np.full(n_examples, given) if given.ndim == 0 else given, n_examples)
    if weight is not None and not weight.any():
        raise InputError("every sample_weight is zero, so no example counts; give at least one a positive weight")
    return weight


def where_not_finite(X: Any) -> str:
    """The place of the first NaN or inf, to end an error message with, or nothing."""
    try:
        is_sparse = bool(sparse.issparse(X))
        if is_sparse:
            entries = X.tocoo()
            bad = np.flatnonzero(~np.isfinite(entries.data))
            if len(bad) == 0:
                return ""
            row, column, value = entries.row[bad[0]], entries.col[bad[0]], entries.data[bad[0]]
        else:
            values = np.asarray(X)
            if values.dtype.kind == "c":
                return ""
            values = values.astype(np.float64)
            places = np.argwhere(~np.isfinite(values))
            if values.ndim != 2 or len(places) == 0:
                return ""
            row, column = places[0]
            value = values[row, column]
    except (ValueError, TypeError):
        return ""  # not numbers at all: the message already says so
    names = getattr(X, "columns", None)
    label = f"{names[column]!r}" if names is not None else f"{column}"
    return f"\nThe first is {value} at row {row}, column {label}."
