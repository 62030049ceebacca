"""The data matrix behind one interface: dense or CSR, in blocks of rows, with the two products a fit needs.

A design multiplies either the raw columns, or the columns standardised by a `ColumnScaling`. Standardised rows are
made block by block while they are used, in either precision, so that a fit may run in float32 on float64 data without
a copy of it, and in float32 without losing what large means would round away.

Weights are (d, C), so that one non-zero of a sparse row touches C numbers that lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from kullback import kernels
from kullback.linear.scaling import ColumnScaling

Array: TypeAlias = NDArray[Any]
Map: TypeAlias = Callable[..., Iterator[Any]]
Vector: TypeAlias = NDArray[np.float64]

# A dense block is small enough to be still in cache when the second product reads it, and large enough that the
# calls around it cost little. The row counts keep a narrow or a very wide matrix reasonable.
BLOCK_BYTES = 1 << 22
BLOCK_ROWS = (256, 1 << 16)
# A block of sparse rows must hold so many non-zeros for each column, or setting up its sum would cost too much.
SUM_SHARE = 4


class Rows(Protocol):
    """Consecutive rows (n, d) and their two products."""

    def forward(self, weights: Array, out: Array) -> None:
        """Write rows @ weights, for weights (d, C), into `out` (n, C)."""

    def backward(self, gradient: Array) -> Array:
        """Return rowsᵀ @ gradient (d, C), for gradient (n, C)."""


class Design(Protocol):
    """A data matrix (N, d), multiplied in float32 or float64.

    Attributes:
        shape: (N, d).
        dtype: of the products.
        standardised: whether the columns that are multiplied are the standardised ones.
        with_ones: whether its rows end with a one more, which the intercept is multiplied by.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    standardised: bool
    with_ones: bool

    def blocks(self, n_outputs: int) -> list[slice]:
        """Consecutive row ranges that cover the matrix, for (N, n_outputs) logits."""

    def rows(self, which: slice) -> Rows:
        """The rows of one block."""


def as_design(X: Any) -> DenseDesign | SparseDesign:
    """Wrap a validated matrix: a 2-D array, or anything SciPy can turn into CSR."""
    is_sparse = bool(sparse.issparse(X))
    return SparseDesign(X.tocsr()) if is_sparse else DenseDesign(np.asarray(X))


def used_columns(X: Any) -> NDArray[np.int64] | None:
    """The columns of a sparse matrix that hold anything but zeros, or None where nearly all do.

    Hashed text leaves many columns empty. Columns of a dense matrix are all kept: leaving some out would copy it.
    """
    is_sparse = bool(sparse.issparse(X))
    if not is_sparse:
        return None
    entries = X.tocsr()
    counts = np.bincount(entries.indices[entries.data != 0], minlength=X.shape[1])
    used = np.flatnonzero(counts)
    return used if len(used) < 0.95 * X.shape[1] else None


class DenseRows:
    """Rows of a dense matrix, in memory."""

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix

    def forward(self, weights: Array, out: Array) -> None:
        """Write rows @ weights into `out`."""
        np.matmul(self._matrix, weights, out=out)

    def backward(self, gradient: Array) -> Array:
        """Return rowsᵀ @ gradient."""
        product: Array = self._matrix.T @ gradient
        return product


class DenseDesign:
    """A dense matrix, rows or columns contiguous; another layout is copied once.

    Args:
        X: (N, d) float32 or float64.
        dtype: of the products; the matrix's own by default, otherwise rows are converted as they are read.
    """

    standardised = False
    with_ones = False

    def __init__(self, X: Array, dtype: Any = None) -> None:
        one_layout = X.flags.c_contiguous or X.flags.f_contiguous
        self.matrix = X if one_layout else np.ascontiguousarray(X)
        self.shape = (X.shape[0], X.shape[1])
        self.dtype = X.dtype if dtype is None else np.dtype(dtype)

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges whose data and logits together take about `BLOCK_BYTES`; they depend on the shape alone."""
        # What is made block by block passes through memory of its own, so blocks are smaller.
        smaller = 1 if self.dtype == self.matrix.dtype else 4
        return row_blocks(self.shape[0], smaller * self.dtype.itemsize * (self.shape[1] + n_outputs))

    def rows(self, which: slice) -> DenseRows:
        """The rows of one block, in place where that is possible."""
        return DenseRows(self.matrix[which].astype(self.dtype, copy=False))

    def take(self, which: Any) -> Array:
        """Rows (n, d) by slice or index array."""
        rows: Array = self.matrix[which]
        return rows

    def column_moments(self, sample_weight: Vector | None, run: Map = map) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, in one pass over rows shifted by the first row.

        The shift keeps the variance accurate for columns whose mean is large beside their spread.
        """
        n_columns = self.shape[1]
        shift = self.matrix[0].astype(np.float64)

        def sums(rows: slice) -> tuple[float, Vector, Vector]:
            centred = self.matrix[rows] - shift
            weight = np.ones(len(centred)) if sample_weight is None else sample_weight[rows]
            first = weight @ centred
            np.square(centred, out=centred)
            return float(weight.sum()), first, weight @ centred

        total, first, second = 0.0, np.zeros(n_columns), np.zeros(n_columns)
        for part in run(sums, row_blocks(self.shape[0], 64 * n_columns)):
            total += part[0]
            first += part[1]
            second += part[2]
        first /= total
        return shift + first, np.maximum(second / total - first**2, 0.0)


class StandardisedDesign:
    """A matrix whose columns are standardised, and their precision changed, as they are read into dense rows.

    Args:
        source: the matrix.
        scaling: what to subtract from each column and divide it by.
        dtype: of the standardised rows.
        keep: standardise once and keep the result.
        with_ones: keep a column of ones behind the others; only with `keep`.
    """

    standardised = True

    def __init__(
        self,
        source: DenseDesign | SparseDesign,
        scaling: ColumnScaling,
        dtype: Any,
        *,
        keep: bool = False,
        with_ones: bool = False,
    ) -> None:
        self.shape = source.shape
        self.dtype = np.dtype(dtype)
        self.with_ones = with_ones and keep
        self._source = source
        self._scaling = scaling
        self._inverse = 1.0 / scaling.scale
        self._kept: Array | None = None
        if keep:
            rows = np.empty((self.shape[0], self.shape[1] + self.with_ones), dtype=self.dtype)
            if self.with_ones:
                rows[:, -1] = 1
            for which in source.blocks(self.shape[1]):
                rows[which, : self.shape[1]] = self.take(which)
            self._kept = rows

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges whose data and logits together take about `BLOCK_BYTES`."""
        # What is made block by block passes through memory of its own, so blocks are smaller.
        smaller = 4 if self._kept is None else 1
        return row_blocks(self.shape[0], smaller * self.dtype.itemsize * (self.shape[1] + n_outputs))

    def rows(self, which: slice) -> DenseRows:
        """The standardised rows of one block."""
        return DenseRows(self.take(which) if self._kept is None else self._kept[which])

    def take(self, which: Any) -> Array:
        """Standardised rows (n, d) by slice or index array."""
        if self._kept is not None:
            kept: Array = self._kept[which, : self.shape[1]]
            return kept
        centred = self._source.take(which) - self._scaling.centre
        standardised = np.empty(centred.shape, self.dtype)
        np.multiply(centred, self._inverse, out=standardised, casting="same_kind")
        return standardised


class SparseRows:
    """Consecutive rows of a CSR matrix.

    Args:
        indptr: (n + 1,) row starts.
        indices: columns.
        data: values, in the precision of the products.
        n_columns: d.
    """

    def __init__(self, indptr: Array, indices: Array, data: Array, n_columns: int) -> None:
        self._indptr, self._indices, self._data = indptr, indices, data
        self._n_columns = n_columns

    def forward(self, weights: Array, out: Array) -> None:
        """Write rows @ weights into `out`."""
        kernels.active().csr_product(self._indptr, self._indices, self._data, np.ascontiguousarray(weights), out)

    def backward(self, gradient: Array) -> Array:
        """Return rowsᵀ @ gradient."""
        product = np.zeros((self._n_columns, gradient.shape[1]), dtype=gradient.dtype)
        kernels.active().csr_transposed(self._indptr, self._indices, self._data, gradient, product)
        return product


class AllSparseRows:
    """A whole CSR matrix with its transpose, so that both products run over rows, on all threads."""

    def __init__(self, matrix: SparseRows, transposed: SparseRows, n_columns: int) -> None:
        self._matrix, self._transposed = matrix, transposed
        self._n_columns = n_columns

    def forward(self, weights: Array, out: Array) -> None:
        """Write X @ weights into `out`."""
        self._matrix.forward(weights, out)

    def backward(self, gradient: Array) -> Array:
        """Return Xᵀ @ gradient."""
        product = np.empty((self._n_columns, gradient.shape[1]), dtype=gradient.dtype)
        self._transposed.forward(gradient, product)
        return product


class SparseDesign:
    """A CSR matrix, in blocks of rows as long as a block has more non-zeros than columns.

    Each block then adds its rows to a (d, C) sum of its own. With more columns than that (text), the matrix is one
    block beside its transpose, and both products run over rows.

    Args:
        X: CSR.
        dtype: of the products; the matrix's own by default, otherwise values are converted as they are read.
        like: another design of the same matrix, whose transpose serves this one too.
    """

    standardised = False
    with_ones = False

    def __init__(self, X: Any, dtype: Any = None, like: SparseDesign | None = None) -> None:
        self.matrix = X
        self._like = like
        self._transposed: Any = None
        self.shape = (X.shape[0], X.shape[1])
        self.dtype = X.dtype if dtype is None else np.dtype(dtype)

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges of about `BLOCK_BYTES`, or a single one where the sums of many would cost too much."""
        n_rows, n_columns = self.shape
        entries = self.matrix.nnz / max(n_rows, 1)
        blocks = row_blocks(n_rows, self.dtype.itemsize * n_outputs + int(12 * entries))
        most = self.matrix.nnz / (SUM_SHARE * max(n_columns, 1))
        if most < 2 or n_columns * n_outputs * self.dtype.itemsize > BLOCK_BYTES:
            return [slice(0, n_rows)]
        if len(blocks) > most:
            step = -(-n_rows // int(most))
            blocks = [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
        return blocks

    def rows(self, which: slice) -> Rows:
        """The rows of one block."""
        if which.start == 0 and which.stop == self.shape[0]:
            transposed = self._whole(self.transposed(), self.shape[0])
            return AllSparseRows(self._whole(self.matrix, self.shape[1]), transposed, self.shape[1])
        indptr = self.matrix.indptr[which.start : which.stop + 1]
        held = slice(indptr[0], indptr[-1])
        data = self.matrix.data[held].astype(self.dtype, copy=False)
        return SparseRows(indptr - indptr[0], self.matrix.indices[held], data, self.shape[1])

    def take(self, which: Any) -> Array:
        """Dense rows (n, d) by slice or index array."""
        rows: Array = self.matrix[which].toarray()
        return rows

    def transposed(self) -> Any:
        """Xᵀ as CSR, made once."""
        if self._like is not None:
            return self._like.transposed()
        if self._transposed is None:
            self._transposed = self.matrix.T.tocsr()
        return self._transposed

    def column_moments(self, sample_weight: Vector | None, run: Map = map) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, zeros included."""
        weight = None if sample_weight is None else sample_weight.astype(self.dtype)
        mean, variance = mean_variance_axis(self.matrix, axis=0, weights=weight)
        return mean.astype(np.float64), np.maximum(variance.astype(np.float64), 0.0)

    def _whole(self, matrix: Any, n_columns: int) -> SparseRows:
        return SparseRows(matrix.indptr, matrix.indices, matrix.data.astype(self.dtype, copy=False), n_columns)


def row_blocks(n_rows: int, row_bytes: int) -> list[slice]:
    """Row ranges of about `BLOCK_BYTES`."""
    size = min(max(BLOCK_BYTES // max(row_bytes, 1), BLOCK_ROWS[0]), BLOCK_ROWS[1])
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
