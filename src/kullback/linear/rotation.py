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

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from kullback.linear.design import stored_entries
from kullback.linear.raw_fit import Run

Vector: TypeAlias = NDArray[np.float64]

# A decomposition of N × N costs some 10·N³ and N² numbers of memory, which more rows than this do not pay back.
MOST_ROWS = 6000
# Columns for each row from which on the rotation pays for a single path.
WIDE = 2.0
# The unit of the costs below is a multiplication with an addition in a pass, whose products are narrow. On 200 × 10000
# to 1000 × 3000 numbers those of a rotation ran at 3.5 times the pace, a decomposition took N³/2, and the products of
# sparse columns with one another 8 each.
BROAD_PACE = 3.5
DECOMPOSITION = 0.5
SPARSE_PRODUCT = 8.0
# Iterations of a fit on the columns, from the ratio r of the loss's curvature along a row to that of the penalty: 5,
# 11, 22, 24, 39, 48 and 57 were counted there for r of 0.4, 0.3, 16, 440, 1600, 160000 and 270.
LEAST_ITERATIONS, ITERATIONS_A_DIGIT = 8.0, 12.0
# On the rows' own coordinates it takes this share of them; on columns of very uneven size, more, or
# more than are allowed (133 to 303 on sparse ones).
ON_COORDINATES, ON_UNEVEN_COLUMNS = 0.6, 300.0
UNEVEN = 200.0
# What the solver's own pairs cost an iteration, for each parameter.
PAIRS = 80.0
# Passes over the columns that bring the parameters back and prove them.
BACK = 4.0
# A fit on even columns that costs no more than this takes a few milliseconds either way.
LEAST_COST = 1e7
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

    def from_columns(self, weights: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """Parameters of `rows` from weights (d, C) and intercepts (C,); what no row notices of them is left out."""
        offset = self._centre @ weights
        products = np.asarray(self._matrix @ weights, dtype=np.float64) - offset
        return self._back.T @ products, intercept + offset


def is_wide(X: Any) -> bool:
    """Whether (N, d) data has so many more columns than rows that a rotation pays over a path."""
    n_rows, n_columns = X.shape
    return bool(n_rows <= MOST_ROWS and n_columns >= WIDE * n_rows)


def rotation_pays(X: Any, n_outputs: int, scale: Vector, ratio: float, *, n_fits: int = 1) -> bool:
    """Whether a rotation is likely to save more than it costs.

    Args:
        X: (N, d) dense or sparse.
        n_outputs: C.
        scale: (d,) of the columns. Where they differ by orders of magnitude, a fit on them takes many iterations.
        ratio: of the loss's curvature along a row to that of the penalty.
        n_fits: how many fits it will serve.
    """
    if not is_wide(X):
        return False
    n_rows, n_columns = X.shape
    is_sparse = bool(sparse.issparse(X))
    if is_sparse:
        filled = stored_entries(X).astype(np.float64)
        entries, products = float(filled.sum()), SPARSE_PRODUCT * float(filled @ filled)
    else:
        entries, products = float(n_rows * n_columns), float(n_rows) ** 2 * n_columns / BROAD_PACE
    even = float(scale.max()) <= UNEVEN * float(scale.min())
    iterations = LEAST_ITERATIONS + ITERATIONS_A_DIGIT * math.log10(1.0 + ratio)
    one_pass = 2.0 * entries * n_outputs
    one_iteration = one_pass + PAIRS * n_columns * n_outputs
    on_columns = n_fits * (iterations if even else ON_UNEVEN_COLUMNS) * one_iteration
    turned_pass = 2.0 * float(n_rows) ** 2 * n_outputs
    on_coordinates = n_fits * (ON_COORDINATES * iterations * turned_pass + BACK * one_pass)
    rotated = products + DECOMPOSITION * float(n_rows) ** 3 + on_coordinates
    return rotated < on_columns and (on_columns > LEAST_COST or not even)


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
