"""Products with a CSR matrix."""

from __future__ import annotations

import numpy as np

from kullback.kernels.elements import Float
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
        indptr: (n + 1,) row starts; (n,) with `ends`.
        indices: (nnz,) columns.
        data: (nnz,) values.
        dense: (d, C).
        out: (n, C).
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `dense` stands for.
        outer: (n,) and (C,), whose outer product is added, or None.
    """
    row, column, values = _entries(indptr, indices, data, ends)
    total = np.zeros(out.shape) if outer is None else np.multiply.outer(*outer, dtype=np.float64)
    np.add.at(total, row, values[:, None] * dense[column - base])
    out[...] = total


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

    Args:
        indptr: (n + 1,) row starts; (n,) with `ends`.
        indices: (nnz,) columns.
        data: (nnz,) values.
        dense: (n, C).
        out: (d, C).
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `out` stands for.
    """
    row, column, values = _entries(indptr, indices, data, ends)
    total = np.zeros(out.shape)
    np.add.at(total, column - base, values[:, None] * dense[row])
    out += total


def _entries(indptr: Array, indices: Array, data: Array, ends: Array | None) -> tuple[Array, Array, Float]:
    """Row, column and value of each entry of a CSR matrix."""
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    counts = ends - starts
    row = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(row)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return row, indices[place], np.asarray(data[place], dtype=np.float64)
