"""The data matrix behind one interface: dense, CSR or CSC, in blocks of rows, with the two products a fit needs.

The arrays are used as they are given, read-only and memory-mapped ones included: a pass reads them block by block.

A design multiplies either the raw columns, or the columns standardised by a `ColumnScaling`. Standardised rows are
made block by block while they are used, in either precision, so that a fit may run in float32 on float64 data without
a copy of it, and in float32 without losing what large means would round away.

Weights are (d, C), so that one non-zero of a sparse row touches C numbers that lie side by side.
"""

from __future__ import annotations

import mmap
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
# Float32 copies up to this size are kept for the whole fit; of larger data they are made block by block.
KEPT_BYTES = 1 << 26
# Empty columns are left out where less than this share is used.
MOST_USED = 0.95
# Rows that are looked at first.
FEW_ROWS = 64
# Stored entries that are counted or looked up at a time.
PIECE_ENTRIES = 1 << 18
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
    """Wrap a validated matrix: a 2-D array, CSR, CSC, or anything SciPy can turn into CSR."""
    is_sparse = bool(sparse.issparse(X))
    if not is_sparse:
        return DenseDesign(np.asarray(X))
    return SparseDesign(X if X.format in ("csr", "csc") else X.tocsr())


def without_empty_columns(X: Any) -> tuple[NDArray[np.int64] | None, Any]:
    """The columns of a matrix that hold anything but zeros, and the matrix of those; None where nearly all do.

    Hashed text leaves many columns empty, and so do the margins of images. The values of a sparse matrix are shared
    with the one given; of a CSR matrix the column indices are new, so one that is memory-mapped keeps all columns. A
    dense matrix is copied, where the copy is small.
    """
    is_sparse = bool(sparse.issparse(X))
    if not is_sparse:
        return _without_empty_dense(X)
    if X.format == "csr" and is_mapped(X):
        return None, X
    matrix = X if X.format in ("csr", "csc") else X.tocsr()
    n_columns = matrix.shape[1]
    stored = stored_entries(matrix)
    counts = stored if np.count_nonzero(matrix.data) == matrix.nnz else stored_entries(matrix, zeros=False)
    used = np.flatnonzero(counts)
    if len(used) >= MOST_USED * n_columns:
        return None, X
    if stored[counts == 0].any():
        return used, matrix[:, used]  # zeros are stored in columns that go
    shape = (matrix.shape[0], len(used))
    if matrix.format == "csc":
        starts = np.append(matrix.indptr[used], matrix.indptr[-1:])
        return used, sparse.csc_array((matrix.data, matrix.indices, starts), shape=shape)
    place = np.zeros(n_columns, dtype=matrix.indices.dtype)
    place[used] = np.arange(len(used))
    return used, sparse.csr_array((matrix.data, place[matrix.indices], matrix.indptr), shape=shape)


def _without_empty_dense(X: Array) -> tuple[NDArray[np.int64] | None, Array]:
    """The same of a dense matrix; most have no such column, which a few rows tell."""
    if is_mapped(X):
        return None, X
    n_rows, n_columns = X.shape
    held = np.zeros(n_columns, dtype=bool)
    begin, step = 0, FEW_ROWS
    while begin < n_rows and np.count_nonzero(held) < MOST_USED * n_columns:
        held |= X[begin : begin + step].any(axis=0)
        begin, step = begin + step, min(8 * step, BLOCK_ROWS[1])
    used = np.flatnonzero(held)
    if not len(used) or len(used) >= MOST_USED * n_columns or len(used) * n_rows * X.itemsize > KEPT_BYTES:
        return None, X
    return used, np.take(X, used, axis=1)


def stored_entries(matrix: Any, *, zeros: bool = True) -> NDArray[np.int64]:
    """(d,) how many entries a CSR or CSC matrix stores in each column, those that are zero included or not."""
    n_columns = matrix.shape[1]
    if zeros and matrix.format == "csc":
        counts: NDArray[np.int64] = np.diff(matrix.indptr).astype(np.int64)
        return counts
    total = np.zeros(n_columns, dtype=np.int64)
    step = max(PIECE_ENTRIES, n_columns)
    for begin in range(0, matrix.nnz, step):
        piece = slice(begin, min(begin + step, matrix.nnz))
        if matrix.format == "csr":
            columns = matrix.indices[piece]
        else:
            columns = np.searchsorted(matrix.indptr, np.arange(piece.start, piece.stop), side="right") - 1
        total += np.bincount(columns if zeros else columns[matrix.data[piece] != 0], minlength=n_columns)
    return total


def is_mapped(matrix: Any) -> bool:
    """Whether the values of a matrix lie in a memory-mapped file."""
    is_sparse = bool(sparse.issparse(matrix))
    array = matrix.data if is_sparse else matrix
    while array is not None:
        if isinstance(array, np.memmap | mmap.mmap):
            return True
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return False


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
    """A dense matrix; one whose rows and columns are both apart is copied, at once if small or else block by block.

    Args:
        X: (N, d) float32 or float64.
        dtype: of the products; the matrix's own by default, otherwise rows are converted as they are read.
    """

    standardised = False
    with_ones = False

    def __init__(self, X: Array, dtype: Any = None) -> None:
        self._apart = X.dtype.itemsize not in X.strides
        if self._apart and X.nbytes <= KEPT_BYTES:
            X, self._apart = np.ascontiguousarray(X), False
        self.matrix = X
        self.shape = (X.shape[0], X.shape[1])
        self.dtype = X.dtype if dtype is None else np.dtype(dtype)

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges whose data and logits together take about `BLOCK_BYTES`; they depend on the shape alone."""
        # What is made block by block passes through memory of its own, so blocks are smaller.
        smaller = 1 if self.dtype == self.matrix.dtype and not self._apart else 4
        return row_blocks(self.shape[0], smaller * self.dtype.itemsize * (self.shape[1] + n_outputs))

    def rows(self, which: slice) -> DenseRows:
        """The rows of one block, in place where that is possible."""
        rows = self.matrix[which]
        return DenseRows(rows.astype(self.dtype, order="C" if self._apart else "K", copy=self._apart))

    def columns(self, which: Any) -> DenseDesign:
        """The design of some columns, copied."""
        return DenseDesign(self.matrix[:, which], self.dtype)

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

    Attributes:
        kept: the standardised rows, the ones behind them if there are any, or None.
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
        self.source, self.scaling = source, scaling
        self._inverse = 1.0 / scaling.scale
        self.kept: Array | None = None
        if keep:
            rows = np.empty((self.shape[0], self.shape[1] + self.with_ones), dtype=self.dtype)
            if self.with_ones:
                rows[:, -1] = 1
            for which in source.blocks(self.shape[1]):
                rows[which, : self.shape[1]] = self.take(which)
            self.kept = rows

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges whose data and logits together take about `BLOCK_BYTES`."""
        # What is made block by block passes through memory of its own, so blocks are smaller.
        smaller = 4 if self.kept is None else 1
        return row_blocks(self.shape[0], smaller * self.dtype.itemsize * (self.shape[1] + n_outputs))

    def rows(self, which: slice) -> DenseRows:
        """The standardised rows of one block."""
        return DenseRows(self.take(which) if self.kept is None else self.kept[which])

    def take(self, which: Any) -> Array:
        """Standardised rows (n, d) by slice or index array."""
        if self.kept is not None:
            kept: Array = self.kept[which, : self.shape[1]]
            return kept
        centred = self.source.take(which) - self.scaling.centre
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
    """A whole sparse matrix by rows and by columns, so that both products run over rows, on all threads."""

    def __init__(self, design: SparseDesign) -> None:
        self._design = design

    def forward(self, weights: Array, out: Array) -> None:
        """Write X @ weights into `out`."""
        matrix = self._design.matrix
        SparseRows(matrix.indptr, matrix.indices, matrix.data, matrix.shape[1]).forward(weights, out)

    def backward(self, gradient: Array) -> Array:
        """Return Xᵀ @ gradient."""
        transposed = self._design.transposed()
        product = np.empty((transposed.shape[0], gradient.shape[1]), dtype=gradient.dtype)
        SparseRows(transposed.indptr, transposed.indices, transposed.data, len(gradient)).forward(gradient, product)
        return product


class ColumnPieces:
    """Consecutive rows of a CSC matrix: of each column the entries between two places.

    Args:
        matrix: the whole CSC matrix, row indices in order.
        starts: (d,) where each column's piece begins.
        ends: (d,) where it ends.
        first: the first of the rows.
    """

    def __init__(self, matrix: Any, starts: Array, ends: Array, first: int) -> None:
        self._places = starts, matrix.indices, matrix.data
        self._how: dict[str, Any] = {"ends": ends, "base": first}

    def forward(self, weights: Array, out: Array) -> None:
        """Write rows @ weights into `out`."""
        out[...] = 0
        kernels.active().csr_transposed(*self._places, np.ascontiguousarray(weights), out, **self._how)

    def backward(self, gradient: Array) -> Array:
        """Return rowsᵀ @ gradient."""
        product = np.empty((len(self._places[0]), gradient.shape[1]), dtype=gradient.dtype)
        kernels.active().csr_product(*self._places, gradient, product, **self._how)
        return product


class SparseDesign:
    """A CSR or CSC matrix, in blocks of rows as long as a block has more non-zeros than columns.

    Each block then adds its rows to a (d, C) sum of its own. With more columns than that (text), the matrix is one
    block that is kept by rows and by columns, the one as it was given and the other a copy.

    Args:
        X: CSR or CSC; the row indices of CSC are put in order, in a copy, if they are not.
        dtype: of the products; the matrix's own by default, otherwise values are converted as they are read.
        like: another design of the same matrix, whose copy serves this one too.
    """

    standardised = False
    with_ones = False

    def __init__(self, X: Any, dtype: Any = None, like: SparseDesign | None = None) -> None:
        self._given = X if X.format == "csr" or X.has_sorted_indices else X.sorted_indices()
        self._like = like
        self._copy: Any = None
        self._fullest_first: tuple[Array, Any, Any] | None = None
        self._cuts: dict[int, Array] = {}
        self.shape = (X.shape[0], X.shape[1])
        self.n_entries = int(X.nnz)
        self.dtype = X.dtype if dtype is None else np.dtype(dtype)

    def in_precision(self, dtype: Any) -> SparseDesign:
        """The same matrix multiplied in another precision; a smaller copy of its values is kept if it is small."""
        dtype, given = np.dtype(dtype), self._given
        if dtype.itemsize >= given.dtype.itemsize or dtype.itemsize * self.n_entries > KEPT_BYTES:
            return SparseDesign(given, dtype, like=self)
        return SparseDesign(type(given)((given.data.astype(dtype), given.indices, given.indptr), shape=given.shape))

    @property
    def matrix(self) -> Any:
        """The matrix as CSR, the given one or a copy that is kept."""
        return self._given if self._given.format == "csr" else self._other()

    def by_column(self) -> Any:
        """The matrix as CSC, the given one or a copy that is kept."""
        return self._given if self._given.format == "csc" else self._other()

    def transposed(self) -> Any:
        """Xᵀ as CSR, which is `by_column` read the other way."""
        return self.by_column().T

    def fullest_first(self) -> tuple[Array, Any, Any]:
        """(d,) columns, the one with most entries first; the matrix as CSR with its columns so; its transpose as CSR.

        Values are shared with those given as far as they can be; what is made is kept.
        """
        if self._fullest_first is None:
            order = np.argsort(-self.stored(), kind="stable")
            if self._given.format == "csc":
                columns = self._given[:, order]
                turned, transposed = columns.tocsr(), columns.T
            else:
                rows = self._given
                place = np.empty(len(order), rows.indices.dtype)
                place[order] = np.arange(len(order))
                turned = sparse.csr_array((rows.data, place[rows.indices], rows.indptr), shape=rows.shape)
                transposed = turned.tocsc().T
            self._fullest_first = order, turned, transposed
        return self._fullest_first

    def blocks(self, n_outputs: int) -> list[slice]:
        """Row ranges of about `BLOCK_BYTES`, or a single one where the sums of many would cost too much."""
        n_rows, n_columns = self.shape
        entries = self.n_entries / max(n_rows, 1)
        blocks = row_blocks(n_rows, self.dtype.itemsize * n_outputs + int(12 * entries))
        most = self.n_entries / (SUM_SHARE * max(n_columns, 1))
        # A copy of what is memory-mapped might not fit; there even large sums are better.
        large = n_columns * n_outputs * self.dtype.itemsize > BLOCK_BYTES and not is_mapped(self._given)
        if most < 2 or large:
            return [slice(0, n_rows)]
        if len(blocks) > most:
            step = -(-n_rows // int(most))
            blocks = [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
        if self._given.format == "csc":
            self._cut([block.stop for block in blocks[:-1]])
        return blocks

    def rows(self, which: slice) -> Rows:
        """The rows of one block."""
        if which.start == 0 and which.stop == self.shape[0]:
            return AllSparseRows(self)
        if self._given.format == "csc":
            self._cut([which.start, which.stop])
            return ColumnPieces(self._given, self._cuts[which.start], self._cuts[which.stop], which.start)
        indptr = self._given.indptr[which.start : which.stop + 1]
        held = slice(indptr[0], indptr[-1])
        return SparseRows(indptr - indptr[0], self._given.indices[held], self._given.data[held], self.shape[1])

    def take(self, which: Any) -> Array:
        """Dense rows (n, d) by slice or index array."""
        rows: Array = self.some_rows(which).toarray()
        return rows

    def some_rows(self, which: Any) -> Any:
        """Rows by slice or index array, as CSR."""
        given = self._given
        if given.format == "csr" or not isinstance(which, slice):
            return given[which].tocsr()
        # SciPy would look at every entry of the matrix.
        first, last, _ = which.indices(self.shape[0])
        self._cut([first, last])
        starts, ends = self._cuts[first].astype(np.int64), self._cuts[last].astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(ends - starts)])
        places = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], ends - starts)
        parts = given.data[places], given.indices[places] - first, indptr
        return sparse.csc_array(parts, shape=(last - first, self.shape[1])).tocsr()

    def columns(self, which: Any) -> SparseDesign:
        """The design of some columns, copied."""
        return SparseDesign(self._given[:, which], self.dtype)

    def stored(self) -> NDArray[np.int64]:
        """(d,) how many entries each column stores."""
        return stored_entries(self._given)

    def column_moments(self, sample_weight: Vector | None, run: Map = map) -> tuple[Vector, Vector]:
        """Weighted mean and variance of each column, zeros included."""
        weight = None if sample_weight is None else sample_weight.astype(self._given.dtype)
        mean, variance = mean_variance_axis(self._given, axis=0, weights=weight)
        return mean.astype(np.float64), np.maximum(variance.astype(np.float64), 0.0)

    def _other(self) -> Any:
        """The matrix in the order that was not given."""
        if self._like is not None:
            return self._like._other()
        if self._copy is None:
            self._copy = self._given.tocsc() if self._given.format == "csr" else self._given.tocsr()
        return self._copy

    def _cut(self, at: list[int]) -> None:
        """Find where the rows from `at` on begin in each column."""
        if self._like is not None:
            self._like._cut(at)
            self._cuts = self._like._cuts
            return
        given = self._given
        n_rows, n_columns = self.shape
        self._cuts.setdefault(0, given.indptr[:-1])
        self._cuts.setdefault(n_rows, given.indptr[1:])
        missing = np.array(sorted(set(at) - self._cuts.keys()))
        if not len(missing):
            return
        before = np.zeros((n_columns, len(missing) + 1), dtype=np.int64)
        first = 0
        while first < n_columns:
            # As many columns as a piece holds, but at least one.
            last = int(np.searchsorted(given.indptr, int(given.indptr[first]) + PIECE_ENTRIES, side="right")) - 1
            last = min(max(last, first + 1), n_columns)
            entries = given.indices[given.indptr[first] : given.indptr[last]]
            column = np.repeat(np.arange(last - first), np.diff(given.indptr[first : last + 1]))
            part = np.searchsorted(missing, entries, side="right")
            width = len(missing) + 1
            counted = np.bincount(column * width + part, minlength=(last - first) * width)
            before[first:last] = counted.reshape(-1, width)
            first = last
        starts = np.cumsum(before[:, :-1], axis=1) + given.indptr[:-1, None]
        for place, row in enumerate(missing.tolist()):
            self._cuts[row] = np.ascontiguousarray(starts[:, place], dtype=given.indices.dtype)


def row_blocks(n_rows: int, row_bytes: int) -> list[slice]:
    """Row ranges of about `BLOCK_BYTES`."""
    size = min(max(BLOCK_BYTES // max(row_bytes, 1), BLOCK_ROWS[0]), BLOCK_ROWS[1])
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
