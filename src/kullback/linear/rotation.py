"""Wide data (more columns than rows) in as few coordinates as it has rows.

The weights that minimise a loss of X·W + b plus ½λ‖W‖² lie in the space that the rows of X span: any part of W outside
it changes no logit and costs penalty. With the columns centred, X − 1μᵀ = Z, and Z·Zᵀ = Q·Λ·Qᵀ, the rows have the
coordinates R = Q·Λ^½ in an orthonormal basis of that space, V = Λ^-½·Qᵀ·Z are its directions, and

    W = Vᵀ·W',   Z·W = R·W',   ‖W‖ = ‖W'‖,   b = b' − μᵀ·W.

So the problem in (W', b') is the same one, with at most N columns, whatever the values of C and whichever rows a fold
leaves out: one rotation serves them all. What is lost is rounding: a direction whose length is below about 1e-8 of the
longest one cannot be told from zero in Z·Zᵀ. Source: Hastie & Tibshirani (2004), "Efficient quadratic regularization
for expression arrays".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

Vector: TypeAlias = NDArray[np.float64]
Run: TypeAlias = Callable[..., Iterator[Any]]

# A decomposition of N × N costs some 10·N³ and N² numbers of memory, which more rows than this do not pay back.
MOST_ROWS = 6000
# Columns for each row from which on the rotation pays for a single path.
WIDE = 2.0
# Bytes of centred columns made at a time.
PIECE_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rows in their own coordinates, and the way back.

    Attributes:
        rows: (N, r) coordinates, r ≤ N, the longest direction first.
    """

    rows: Vector
    _matrix: Any
    _centre: Vector
    _back: Vector

    def to_columns(self, weights: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """Weights (d, C) and intercepts (C,) of the data's own columns, from those (r, C) and (C,) of `rows`."""
        shares = self._back @ weights
        raw = np.asarray(self._matrix.T @ shares, dtype=np.float64) - np.outer(self._centre, shares.sum(axis=0))
        return raw, intercept - self._centre @ raw


def is_wide(X: Any) -> bool:
    """Whether (N, d) data has so many more columns than rows that a rotation pays over a path."""
    n_rows, n_columns = X.shape
    return bool(n_rows <= MOST_ROWS and n_columns >= WIDE * n_rows)


def rotate(X: Any, *, centred: bool = True, run: Run = map) -> Rotation:
    """Find the coordinates of the rows of (N, d) data, dense or sparse.

    Args:
        X: the data.
        centred: take the columns' means out first; only a model with an intercept allows that.
        run: runs several calls at once and keeps their order.

    >>> X = np.random.default_rng(0).normal(size=(4, 100)) + 3
    >>> rotation = rotate(X)
    >>> rotation.rows.shape  # centred rows span one dimension less
    (4, 3)
    >>> weights, intercept = rotation.to_columns(np.eye(3), np.zeros(3))
    >>> bool(np.allclose(X @ weights + intercept, rotation.rows))
    True
    """
    n_rows, n_columns = X.shape
    is_sparse = bool(sparse.issparse(X))
    if is_sparse:
        matrix = X.tocsr()
        centre = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel() if centred else np.zeros(n_columns)
        double = matrix.astype(np.float64)
        across = np.asarray(double @ centre).ravel()
        products = (double @ double.T).toarray() - across - across[:, None] + centre @ centre
    else:
        matrix = X
        centre = X.mean(axis=0, dtype=np.float64) if centred else np.zeros(n_columns)
        width = max(1, PIECE_BYTES // (8 * n_rows))

        def piece(start: int) -> Vector:
            part = X[:, start : start + width] - centre[start : start + width]
            product: Vector = part @ part.T
            return product

        products = np.zeros((n_rows, n_rows))
        for product in run(piece, range(0, n_columns, width)):
            products += product
    lengths, axes = linalg.eigh(products, check_finite=False, driver="evd", overwrite_a=True)
    lengths, axes = lengths[::-1], axes[:, ::-1]
    kept = lengths > n_rows * np.finfo(np.float64).eps * max(lengths[0], np.finfo(np.float64).tiny)
    root = np.sqrt(lengths[kept])
    axes = axes[:, kept]
    return Rotation(axes * root, matrix, centre, axes / root)
