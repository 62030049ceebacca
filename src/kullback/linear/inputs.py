"""What a linear estimator is given, turned into arrays that it can use, or refused with the place of the fault."""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kullback.errors import DataError, InputError, TargetError
from kullback.losses.base import as_sample_weight

Vector: TypeAlias = NDArray[np.float64]

# Entries of a sparse matrix that are looked at together.
PIECE = 1 << 18
# What all sample weights must add up to at least, and one over it at most.
LEAST_TOTAL = 1e-150
# The strength of the penalty is 1/C, and it is multiplied by some more.
LEAST_C = 1e-300
VALID_C = "a number above 0, and at least 1e-300 (inf for no penalty)"


def check_number(name: str, value: object, valid: str, test: Any, *, integer: bool = False) -> None:
    """Refuse a setting that is not a number for which `test` holds; `valid` says what would be."""
    kind = numbers.Integral if integer else numbers.Real
    fits = not isinstance(value, bool) and isinstance(value, kind)
    try:
        fits = fits and (integer or not math.isnan(value))  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond float64
        fits = False
    if not fits or not test(value):
        raise InputError(f"{name}={shortened(value)} is not valid; it must be {valid}")


def shortened(value: object) -> str:
    """How a message shows a value that may be long."""
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:40]}… ({len(told)} characters)"


def check_switch(name: str, value: object) -> None:
    """Refuse a setting that is neither True nor False (1 and 0 pass for them)."""
    if not isinstance(value, bool | np.bool_) and not (isinstance(value, numbers.Integral) and value in (0, 1)):
        raise InputError(f"{name}={value!r} is not valid; it must be True or False")


def as_numpy(values: Any, name: str) -> Any:
    """Turn an array of another library into a NumPy array; anything else passes unchanged.

    Args:
        values: whatever was given. Data frames keep their column names, so they pass unchanged too.
        name: what the message calls it.

    Raises:
        InputError: for an array on a device that NumPy cannot read, or one that tracks gradients.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        place = tuple(np.argwhere(np.ma.getmaskarray(values))[0].tolist())
        raise InputError(
            f"{name} is a masked array whose entry {place} is masked, and masks are not followed; fill it, as "
            f"{name}.filled(value), or leave those rows out"
        )
    foreign = hasattr(values, "__dlpack__") or hasattr(values, "__array_namespace__")
    if not foreign or isinstance(values, np.ndarray | np.generic) or hasattr(values, "columns"):
        return values
    try:
        return np.asarray(values)
    except Exception as error:
        raise InputError(
            f"{name} is a {type(values).__module__}.{type(values).__qualname__} that NumPy cannot read ({error}); "
            "move it to the CPU, detach it, and make it dense float32 or float64 first"
        ) from error


def check_table(X: Any) -> None:
    """Refuse what is no table of numbers at all, and says nothing clear when it is made an array.

    Raises:
        DataError: for lists of different lengths, and for columns of dates.
        TypeError: for an object that holds no rows.
    """
    is_sparse = bool(sparse.issparse(X))
    if is_sparse or isinstance(X, np.ndarray):
        shape: tuple[int, ...] = X.shape
        times = [0] if getattr(X, "dtype", np.dtype(float)).kind in "mM" else []
    elif hasattr(X, "dtypes") and hasattr(X, "columns"):
        shape = X.shape
        times = [place for place, dtype in enumerate(X.dtypes) if _is_time(dtype)]
    elif isinstance(X, list | tuple):
        lengths = [len(row) if hasattr(row, "__len__") and not isinstance(row, str) else -1 for row in X]
        other = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
        if other is not None:
            raise DataError(
                f"the rows of X have different lengths: row 0 has {_entries(lengths[0])} and row {other} has "
                f"{_entries(lengths[other])}; every row must hold one number for each column"
            )
        return
    elif hasattr(X, "__array__") or hasattr(X, "__array_interface__") or hasattr(X, "__dataframe__"):
        return
    else:
        what = "None" if X is None else f"of type {type(X).__name__}"
        raise TypeError(
            f"X is {what}; it must be an array of numbers (rows × columns), a data frame or a sparse matrix, not "
            "a scalar array, a string or an iterator"
        )
    if times and len(shape) == 2:
        names = getattr(X, "columns", None)
        told = "X holds" if names is None else f"column {names[times[0]]!r} of X holds"
        raise DataError(
            f"{told} dates or durations; turn them into numbers whose unit means something, such as the year, the "
            "day of the week, or days since the first"
        )


def _is_time(dtype: Any) -> bool:
    """Whether a column type of a data frame is a date, a time or a duration."""
    temporal = getattr(dtype, "is_temporal", None)
    return bool(temporal()) if callable(temporal) else getattr(dtype, "kind", "") in ("m", "M")


def _entries(length: int) -> str:
    return "no entries of its own" if length < 0 else f"{length}"


def sound_sparse(X: Any, *, to_fit: bool = False) -> Any:
    """A sparse matrix whose entries lie where they can be; anything else passes unchanged.

    CSR and CSC matrices are used as they are. If entries of a row (a column, for CSC) are not in the order of their
    places, or several share one place, a copy is made in which they are in order, and added up, which is what SciPy
    takes them for.

    Args:
        X: anything.
        to_fit: whether the matrix is fitted: what has more columns than rows is then needed by columns as well, and
            a copy that puts it in order is made so.

    Raises:
        DataError: for arrays that contradict one another or the shape, naming the row or column and the value.
    """
    is_sparse = bool(sparse.issparse(X))
    if not is_sparse or X.format not in ("csr", "csc"):
        return X
    by_row = X.format == "csr"
    major, minor = ("row", "column") if by_row else ("column", "row")
    n_major, n_minor = X.shape if by_row else X.shape[::-1]
    starts, places, values = X.indptr, X.indices, X.data
    mend = f"build it anew, for example as scipy.sparse.{X.format}_array((values, (rows, columns)), shape=X.shape)"
    if len(starts) != n_major + 1 or starts[0] != 0 or len(places) != len(values) or starts[-1] > len(places):
        raise DataError(
            f"the sparse X is corrupt: with {n_major} {major}s its indptr has {len(starts)} numbers from {starts[0]} "
            f"to {starts[-1]}, its indices {len(places)} and its data {len(values)}; {mend}"
        )
    falls = np.flatnonzero(starts[1:] < starts[:-1])
    if len(falls):
        at = int(falls[0])
        raise DataError(
            f"the sparse X is corrupt: {major} {at} begins at entry {starts[at]} and ends at {starts[at + 1]}; {mend}"
        )
    for begin in range(0, int(starts[-1]), PIECE):
        piece = places[begin : min(begin + PIECE, int(starts[-1]))]
        if piece.min() < 0 or piece.max() >= n_minor:
            at = begin + int(np.argmax((piece < 0) | (piece >= n_minor)))
            where = int(np.searchsorted(starts, at, side="right")) - 1
            raise DataError(
                f"the sparse X is corrupt: {major} {where} holds the value {values[at]} in {minor} {places[at]}, but "
                f"{minor}s are 0 to {n_minor - 1}; {mend}, or give it the shape that it needs"
            )
    ordered = X if X.has_sorted_indices else _in_order(X, to_fit)
    if not ordered.has_canonical_format:
        ordered = ordered.copy() if ordered is X else ordered
        ordered.sum_duplicates()
    return ordered


def _in_order(X: Any, to_fit: bool) -> Any:
    """A copy of a CSR or CSC matrix whose entries lie in order, of the other format where that serves a fit.

    Turned into the other format they do, in time that grows with the entries and not with their logarithm, if there
    are as many of them as there are places.
    """
    if max(X.shape) > X.nnz:
        return X.sorted_indices()
    if X.format == "csc":
        return X.tocsr().tocsc()
    by_column = X.tocsc()
    return by_column if to_fit and X.shape[0] < X.shape[1] else by_column.tocsr()


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
    with np.errstate(over="ignore"):
        total = 0.0 if weight is None else float(weight.sum())
    if weight is not None and not LEAST_TOTAL <= total <= 1 / LEAST_TOTAL:
        raise InputError(
            f"the sum of sample_weight is {total:.3g}, too {'large' if total > 1 else 'small'} for sums of squares in "
            "float64; multiply all weights by one number, and divide C by it"
        )
    return weight


def where_not_a_number(X: Any) -> str:
    """The place of the first entry that is no finite number, to end an error message with, or nothing."""
    is_sparse = bool(sparse.issparse(X))
    if is_sparse:
        entries = X.tocoo()
        if entries.dtype.kind not in "biuf":
            return ""
        bad = np.flatnonzero(~np.isfinite(entries.data))
        if len(bad) == 0:
            return ""
        row, column, value = entries.row[bad[0]], entries.col[bad[0]], entries.data[bad[0]]
    else:
        values = np.asarray(X)
        if values.ndim != 2 or values.dtype.kind not in "biufOSU":
            return ""
        place = _first_bad(values)
        if place is None:
            return ""
        row, column = place
        value = repr(values[row, column : column + 1].tolist()[0])
    names = getattr(X, "columns", None)
    label = f"{names[column]!r}" if names is not None else f"{column}"
    missing = "fill it, for example with sklearn.impute.SimpleImputer, or leave that row or column out"
    text = "encode such columns as numbers, for example with sklearn.preprocessing.OneHotEncoder"
    what = text if isinstance(value, str) and value[:1] in "'\"b" else missing
    return f"\nThe first is {value} at row {row}, column {label}; {what}."


def _first_bad(values: NDArray[Any]) -> tuple[int, int] | None:
    """Row and column of the first entry that is no finite number."""
    step = max(1, PIECE // max(1, values.shape[1]))
    for begin in range(0, len(values), step):
        piece = values[begin : begin + step]
        try:
            bad = np.argwhere(~np.isfinite(piece.astype(np.float64)))
        except (TypeError, ValueError):
            bad = np.array([place for place in np.ndindex(piece.shape) if not _is_number(piece[place])])
        if len(bad):
            return begin + int(bad[0][0]), int(bad[0][1])
    return None


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def check_labels(y: Any) -> None:
    """Refuse labels of one form that cannot be told apart or put in order.

    Raises:
        TargetError: naming the row and the value.
    """
    labels = np.asarray(y)
    if labels.dtype.kind != "O" or labels.ndim != 1 or not len(labels):
        return
    kinds: dict[type, int] = {}
    for row, label in enumerate(labels.tolist()):
        if label is None or label != label:
            raise TargetError(f"row {row} of y is {label!r}: it has no label; leave the row out")
        kinds.setdefault(
            str if isinstance(label, str) else float if isinstance(label, int | float) else type(label), row
        )
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise TargetError(
            f"y mixes labels that cannot be put in order: {labels[one]!r} in row {one} and {labels[other]!r} in row "
            f"{other}; make them all strings, for example with y.astype(str)"
        )
