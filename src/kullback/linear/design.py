"""The data matrix behind one interface: dense or CSR, in blocks of rows, with the two products a fit needs.

Weights are (d, C), so that one non-zero of a sparse row touches C numbers that lie side by side.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from kullback import kernels

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]

# A dense block is small enough to be still in cache when the second product reads it, and large enough that the
# calls around it cost little. The row counts keep a narrow or a very wide matrix reasonable.
BLOCK_BYTES = 1 << 22
BLOCK_ROWS = (256, 1 << 16)


class Design(Protocol):
    """A data matrix (N, d) of float32 or float64."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def blocks(self, n_outputs: int) -> list[slice]:
        """Consecutive row ranges that cover the matrix, for (N, n_outputs) logits."""

    def forward(self, rows: slice, weights: Array, out: Array) -> None:
        """Write X[rows] @ weights, for weights (d, C), into `out` (n, C)."""

    def backward(self, rows: slice, gradient: Array) -> Array:
        """Return X[rows]ᵀ @ gradient (d, C), for gradient (n, C)."""

    def column_moments(self, sample_weight: Vector | None) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, (d,) each."""


def as_design(X: Any) -> Design:
    """Wrap a validated matrix: a 2-D array, or anything SciPy can turn into CSR."""
    is_sparse = bool(sparse.issparse(X))
    return SparseDesign(X.tocsr()) if is_sparse else DenseDesign(np.asarray(X))


def used_columns(X: Any) -> NDArray[np.int64] | None:
    """The columns of a sparse matrix that hold anything but zeros, or None where nearly all do.

    Hashed text leaves many columns empty. Columns of a dense matrix are all kept: leaving some out would copy it.
    """
    if not sparse.issparse(X):
        return None
    entries = X.tocsr()
    counts = np.bincount(entries.indices[entries.data != 0], minlength=X.shape[1])
    used = np.flatnonzero(counts)
    return used if len(used) < 0.95 * X.shape[1] else None


class DenseDesign:
    """A dense matrix, rows or columns contiguous; another layout is copied once."""

    def __init__(self, X: Array) -> None:
        one_layout = X.flags.c_contiguous or X.flags.f_contiguous
        self._X = X if one_layout else np.ascontiguousarray(X)
        self.shape = (X.shape[0], X.shape[1])
        self.dtype = X.dtype

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges whose data and logits together take about `BLOCK_BYTES`; they depend on the shape alone."""
        n_rows, n_columns = self.shape
        row_bytes = self.dtype.itemsize * (n_columns + n_outputs)
        size = min(max(BLOCK_BYTES // row_bytes, BLOCK_ROWS[0]), BLOCK_ROWS[1])
        return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]

    def forward(self, rows: slice, weights: Array, out: Array) -> None:
        """Write X[rows] @ weights into `out`."""
        np.matmul(self._X[rows], weights, out=out)

    def backward(self, rows: slice, gradient: Array) -> Array:
        """Return X[rows]ᵀ @ gradient."""
        product: Array = self._X[rows].T @ gradient
        return product

    def column_moments(self, sample_weight: Vector | None) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, in one pass over rows shifted by the first row.

        The shift keeps the variance accurate for columns whose mean is large beside their spread.
        """
        n_rows, n_columns = self.shape
        first, second = np.zeros(n_columns), np.zeros(n_columns)
        shift = self._X[0].astype(np.float64)
        weight = np.ones(n_rows) if sample_weight is None else sample_weight
        for rows in self.blocks(n_columns):
            centred = self._X[rows] - shift
            first += weight[rows] @ centred
            np.square(centred, out=centred)
            second += weight[rows] @ centred
        total = weight.sum()
        first /= total
        return shift + first, np.maximum(second / total - first**2, 0.0)


class SparseDesign:
    """A CSR matrix and its transpose, so that both products run over rows and are deterministic."""

    def __init__(self, X: Any) -> None:
        self._X = X
        self._transposed: Any = None
        self.shape = (X.shape[0], X.shape[1])
        self.dtype = X.dtype

    def blocks(self, n_outputs: int) -> list[slice]:
        """One block: the transpose cannot be cut into row ranges without searching it."""
        return [slice(0, self.shape[0])]

    def forward(self, rows: slice, weights: Array, out: Array) -> None:
        """Write X @ weights into `out`."""
        _product(self._X, weights, out)

    def backward(self, rows: slice, gradient: Array) -> Array:
        """Return Xᵀ @ gradient."""
        if self._transposed is None:
            self._transposed = self._X.T.tocsr()
        product = np.empty((self.shape[1], gradient.shape[1]), dtype=gradient.dtype)
        _product(self._transposed, gradient, product)
        return product

    def column_moments(self, sample_weight: Vector | None) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, zeros included."""
        weight = None if sample_weight is None else sample_weight.astype(self.dtype)
        mean, variance = mean_variance_axis(self._X, axis=0, weights=weight)
        return mean.astype(np.float64), np.maximum(variance.astype(np.float64), 0.0)


def _product(matrix: Any, dense: Array, out: Array) -> None:
    kernels.active().csr_product(matrix.indptr, matrix.indices, matrix.data, np.ascontiguousarray(dense), out)
