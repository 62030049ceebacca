"""Arrays of types and layouts that the native module reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError, ShapeError
from kullback.kernels.recipe import Array

PRECISIONS = (np.dtype(np.float32), np.dtype(np.float64))

# NumPy has no bfloat16. Logits and gradient of this type hold its bits, for those whose arrays come from elsewhere;
# they are computed in float32.
BFLOAT16 = np.dtype(np.uint16)


def shape_of(logits: Array, *, half: bool = False) -> tuple[int, int]:
    """N and C of logits that the kernels take; bfloat16 only if `half`."""
    known = logits.dtype in PRECISIONS or (half and logits.dtype == BFLOAT16)
    if logits.ndim != 2 or not known:
        raise ShapeError(
            f"logits must be a float32 or float64 matrix (N, C), got shape {logits.shape} and dtype {logits.dtype}"
        )
    n, n_classes = logits.shape
    if n and not n_classes:
        raise ShapeError(f"logits have shape {logits.shape}: no classes")
    if n_classes >= 2**31:
        raise ShapeError(f"logits have {n_classes} classes; at most 2**31 - 1 are supported")
    return n, n_classes


def same_columns(what: str, rows: Array, n_classes: int) -> None:
    """Raise ShapeError for targets of another number of classes than the logits have."""
    if rows.shape[1] != n_classes:
        raise ShapeError(f"{what} have {rows.shape[1]} columns, the logits {n_classes}")


def aligned(array: Array) -> Array:
    """The array itself, or a copy in native byte order where elements do not lie on their own boundaries."""
    itemsize, flags = array.itemsize, array.flags
    if (
        flags.aligned
        and array.dtype.isnative
        and (flags.c_contiguous or all(step % itemsize == 0 for step in array.strides))
    ):
        return array
    # ascontiguousarray would give an array back that is contiguous but not aligned
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def plain(array: Array) -> Array:
    """An array of a type the native module reads."""
    array = aligned(array)
    if array.dtype.kind in "biu" or array.dtype in PRECISIONS:
        return array
    return array.astype(np.float64)


def per_row(name: str, out: Array | None, n: int, *dtypes: np.dtype[Any]) -> Array | None:
    """The caller's array of one number per row, or one to copy from, of a type that the kernels write."""
    if out is None:
        return None
    if out.shape != (n,):
        raise ShapeError(f"{name} has shape {out.shape}, expected ({n},)")
    return out if out.dtype in dtypes and out.flags.carray else np.empty(n, dtypes[-1])


def writable(out: Array, usable: bool) -> Array:
    """The caller's array, or one to copy from where the kernels cannot use that."""
    if not out.flags.writeable:
        raise InputError("the output array is read-only")
    return out if usable else np.empty(out.shape, out.dtype)


def in_and_out(logits: Array, out: Array | None) -> tuple[Array, Array | None]:
    """Logits and output as the native module may use them together: the same memory, or no overlap at all."""
    source = aligned(logits)
    if out is None:
        return source, None
    usable = (
        out.dtype == logits.dtype
        and out.dtype.isnative
        and out.flags.aligned
        and (out.flags.c_contiguous or _rows_apart(out))
    )
    if not usable and out.dtype != logits.dtype:
        raise ShapeError(f"the output has dtype {out.dtype}, the logits {logits.dtype}; they must be the same")
    target = writable(out, usable)
    if target is out and source is logits and np.may_share_memory(source, target):
        same = (
            source.ctypes.data == target.ctypes.data
            and source.strides == target.strides
            and (source.flags.c_contiguous or _rows_apart(source))
        )
        if not same:
            source = source.copy()
    return source, target


def _rows_apart(array: Array) -> bool:
    """Whether rows are contiguous and do not overlap."""
    row, column = array.strides
    itemsize = array.itemsize
    return (
        (column == itemsize or array.shape[1] <= 1)
        and row % itemsize == 0
        and (abs(row) >= array.shape[1] * itemsize or array.shape[0] <= 1)
    )


def checked_row_weight(row_weight: Array | None, n: int) -> NDArray[np.float64] | None:
    """Weights of N rows in float64, contiguous."""
    if row_weight is None:
        return None
    weight = np.ascontiguousarray(row_weight, dtype=np.float64)
    if weight.shape != (n,):
        raise ShapeError(f"row weights have shape {weight.shape}, expected ({n},)")
    return aligned(weight)


def checked_class_weights(weights: Array | None, n_classes: int, dtype: np.dtype[Any], name: str) -> Array | None:
    """Numbers per class of a type, contiguous."""
    if weights is None:
        return None
    if weights.shape != (n_classes,):
        raise ShapeError(f"{name} has {weights.size} entries, but there are {n_classes} classes")
    return aligned(np.ascontiguousarray(weights, dtype=dtype))
