"""Products with a CSR matrix."""

from __future__ import annotations

import numpy as np

from kullback.errors import InputError, ShapeError
from kullback.kernels import _native
from kullback.kernels.cpu.arrays import PRECISIONS, aligned, writable
from kullback.kernels.recipe import Array


def csr_product(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
    outer: tuple[Array, Array] | None = None,
) -> None:
    """Write the product of a CSR matrix (n, d) with `dense` (d, C), and what is added to it, into `out` (n, C).

    Args:
        indptr: (n + 1,) row starts, int32 or int64; (n,) with `ends`.
        indices: (nnz,) columns, of the same type.
        data: (nnz,) values, float32 or float64; each is converted to the type of `dense` as it is read.
        dense: (d, C) float32 or float64.
        out: (n, C) of the type of `dense`.
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `dense` stands for.
        outer: (n,) and (C,) of the type of `dense`, whose outer product is added, or None.

    Raises:
        ShapeError: if lengths do not fit together.
        InputError: if the matrix is corrupt: a column outside [base, base + d) or row starts that are out of order.
    """
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    _check_csr("csr_product", starts, ends, indices, data, dense, out, n_rows=len(out))
    target = writable(out, out.flags.carray and not np.may_share_memory(out, dense))
    by_row, by_column = (None, None) if outer is None else _plain_outer("csr_product", outer, target)
    row = _native.csr_product(*_plain_csr(starts, ends, indices, data, dense), target, base, by_row, by_column)
    _refuse_corrupt(row, base, len(dense))
    if target is not out:
        out[...] = target


def csr_transposed(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
) -> None:
    """Add the product of the transpose of a CSR matrix (n, d) with `dense` (n, C) to `out` (d, C).

    It runs on one thread: rows that share a column add to the same numbers.

    Args:
        indptr: (n + 1,) row starts, int32 or int64; (n,) with `ends`.
        indices: (nnz,) columns, of the same type.
        data: (nnz,) values, float32 or float64; each is converted to the type of `dense` as it is read.
        dense: (n, C) float32 or float64.
        out: (d, C) of the type of `dense`.
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `out` stands for.

    Raises:
        ShapeError: if lengths do not fit together.
        InputError: if the matrix is corrupt: a column outside [base, base + d) or row starts that are out of order.
            Rows before it have been added by then.
    """
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    _check_csr("csr_transposed", starts, ends, indices, data, dense, out, n_rows=len(dense))
    usable = out.flags.carray and not np.may_share_memory(out, dense)
    target = writable(out, usable)
    if target is not out:
        target[...] = out
    row = _native.csr_transposed(*_plain_csr(starts, ends, indices, data, dense), target, base)
    _refuse_corrupt(row, base, len(out))
    if target is not out:
        out[...] = target


def _check_csr(
    name: str,
    starts: Array,
    ends: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    n_rows: int,
) -> None:
    if dense.ndim != 2 or out.ndim != 2 or dense.dtype not in PRECISIONS or out.dtype != dense.dtype:
        raise ShapeError(f"{name}: dense and out must be matrices of one type, float32 or float64")
    fitting = len(starts) == len(ends) == n_rows and len(indices) == len(data) and out.shape[1] == dense.shape[1]
    if not fitting:
        raise ShapeError(
            f"{name}: {len(starts)} row starts, {len(ends)} row ends, {len(indices)} indices, {len(data)} values and "
            f"dense {dense.shape} do not fit an out of shape {out.shape}"
        )


def _plain_outer(name: str, outer: tuple[Array, Array], out: Array) -> tuple[Array, Array]:
    """Two vectors side by side in memory, of `out`'s type, that neither lie in it nor are longer or shorter than it."""
    if any(vector.dtype != out.dtype for vector in outer) or tuple(vector.shape for vector in outer) != tuple(
        (length,) for length in out.shape
    ):
        given = " and ".join(f"{vector.dtype} {vector.shape}" for vector in outer)
        raise ShapeError(f"{name}: outer is {given}, but an out of {out.shape} needs vectors of that, {out.dtype}")
    first, second = (
        vector.copy() if np.may_share_memory(vector, out) else np.ascontiguousarray(aligned(vector)) for vector in outer
    )
    return first, second


def _plain_csr(
    starts: Array, ends: Array, indices: Array, data: Array, dense: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """What the native module reads: one index type, contiguous arrays, values in float32 or float64."""
    wide = np.int32 if starts.dtype == ends.dtype == indices.dtype == np.int32 else np.int64
    return (
        aligned(np.ascontiguousarray(starts, wide)),
        aligned(np.ascontiguousarray(ends, wide)),
        aligned(np.ascontiguousarray(indices, wide)),
        aligned(np.ascontiguousarray(data, data.dtype if data.dtype in PRECISIONS else dense.dtype)),
        np.ascontiguousarray(aligned(dense)),
    )


def _refuse_corrupt(row: int, base: int, n_columns: int) -> None:
    if row >= 0:
        raise InputError(
            f"the sparse matrix is corrupt at row {row}: a column index lies outside {base} to {base + n_columns - 1}, "
            "or the row starts are out of order; rebuild it, for example with "
            "scipy.sparse.csr_matrix(matrix.tocoo())"
        )
