"""The whole Hessian of a linear model's loss along some axes, from a few rows, and its inverse with any penalty.

Only the penalty's share depends on the strength of the penalty: a path of penalties needs a factorisation for each, but
no new sums over rows as long as the probabilities stay much the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import blas, lapack

from kullback.linear.design import Array, Map
from kullback.linear.objective import Vector
from kullback.linear.solvers.base import Apply

# What is added to the diagonal before factorising, as a multiple of its mean and of the rounding of the sums.
RIDGE = 10.0
# Cuts of a product that runs on several threads; fixed, so that rounding does not depend on their number.
CUTS = 4
# Up to this many multiplications a product is not cut.
FEW_PRODUCTS = 5 * 10**7
FEW_ELEMENTS = 2 * 10**5


@dataclass(frozen=True, eq=False)
class WholeHessian:
    """The loss's share of the Hessian.

    Attributes:
        blocks: of a coupled loss (axes·C, axes·C), axis by axis; else (axes, axes) for each output.
        n_outputs: C.
        coupled: whether the outputs of a row act on one another.
        rounding: of the sums.
    """

    blocks: tuple[Array, ...]
    n_outputs: int
    coupled: bool
    rounding: float

    @classmethod
    def of_rows(cls, rows: Array, shape: Array, factor: Vector, *, coupled: bool, run: Map) -> WholeHessian:
        """Sum it over rows.

        Args:
            rows: (n, axes).
            shape: (n, C) probabilities of a coupled loss, or the diagonal of each row's Hessian.
            factor: (n,) what each row counts.
            coupled: whether the outputs of a row act on one another.
            run: runs several calls at once and keeps their order.
        """
        dtype = rows.dtype
        rounding = float(np.finfo(dtype).eps)
        n_axes, n_outputs = rows.shape[1], shape.shape[1]
        if not coupled:
            made = run(lambda k: _gram(rows * np.sqrt(shape[:, k] * factor).astype(dtype)[:, None]), range(n_outputs))
            return cls(tuple(made), n_outputs, False, rounding)
        root = np.sqrt(factor).astype(dtype)[:, None]
        weighted = rows * root
        joint = gram_of(lambda cut: _rows_times(weighted[cut], shape[cut]), len(rows), n_axes * n_outputs, run)
        np.negative(joint, out=joint)
        hessian = joint.reshape(n_axes, n_outputs, n_axes, n_outputs)
        if len(rows) * n_axes * n_outputs <= FEW_ELEMENTS:
            # All classes in one product: many small ones would cost their calls.
            alone = (weighted.T @ _rows_times(weighted, shape)).reshape(n_axes, n_axes, n_outputs)
            every = np.arange(n_outputs)
            hessian[:, every, :, every] += np.moveaxis(alone, 2, 0)
        else:
            blocks = run(lambda k: _gram(weighted * np.sqrt(shape[:, k : k + 1])), range(n_outputs))
            for k, block in enumerate(blocks):
                hessian[:, k, :, k] += block
        return cls((joint,), n_outputs, True, rounding)

    def inverse(self, bend: Vector, run: Map) -> Apply | None:
        """What applies the inverse to (axes, C), or None where it cannot be factorised.

        Args:
            bend: (axes, axes) the penalty's share for each output.
            run: runs several calls at once and keeps their order.
        """
        made = list(run(lambda block: factorised(lambda: self._with(block, bend), self.rounding), self.blocks))
        factors = [factor for factor in made if factor is not None]
        if len(factors) < len(made):
            return None
        if self.coupled:
            return lambda vector: solved(factors[0], vector.ravel()).reshape(vector.shape)

        def per_output(vector: Vector) -> Vector:
            return np.stack([solved(factor, vector[:, k]) for k, factor in enumerate(factors)], axis=1)

        return per_output

    def _with(self, block: Array, bend: Vector) -> Vector:
        if not self.coupled:
            return np.asarray(block + bend)
        matrix = block.copy()
        n_axes = len(bend)
        hessian = matrix.reshape(n_axes, self.n_outputs, n_axes, self.n_outputs)
        for k in range(self.n_outputs):
            hessian[:, k, :, k] += bend
        # Equal shifts of all classes change no probability: curvature is put there, so that rounding stays small.
        axis = np.arange(n_axes)
        hessian[axis, :, axis, :] += float(np.trace(matrix)) / len(matrix) / self.n_outputs
        return matrix


def gram_of(take: Callable[[slice], Array], n_rows: int, width: int, run: Map) -> Vector:
    """AᵀA of the (n_rows, width) matrix A that `take` makes piece by piece."""
    if n_rows * width**2 <= FEW_PRODUCTS:
        return _gram(take(slice(None))).astype(np.float64)
    ends = np.linspace(0, n_rows, CUTS + 1).astype(int)
    cuts = [slice(start, stop) for start, stop in pairwise(ends)]
    parts = run(lambda cut: _gram(take(cut)), cuts)
    total = next(parts).astype(np.float64)
    for part in parts:
        total += part
    return np.asarray(total)


def factorised(make: Callable[[], Vector], rounding: float) -> Vector | None:
    """The lower Cholesky factor of the matrix that `make` gives, with a ridge that grows until there is one.

    Each matrix given is overwritten.
    """
    ridge = 0.0
    for _ in range(8):
        matrix = make()
        if ridge == 0:
            ridge = RIDGE * rounding * float(np.abs(np.diag(matrix)).mean()) + float(np.finfo(np.float64).tiny)
        matrix[np.diag_indices(len(matrix))] += ridge
        # LAPACK itself: what SciPy puts around it takes longer than a small factorisation. The transpose is the same
        # matrix in LAPACK's own order: what is not, SciPy turns number by number.
        factor, failed = lapack.dpotrf(matrix.T, lower=True, clean=False, overwrite_a=True)
        if failed == 0:
            return np.asarray(factor)
        ridge *= 10
    return None


def solved(factor: Vector, vector: Vector) -> Vector:
    """The solution for one or several right sides, from the lower Cholesky factor."""
    if vector.ndim == 1:  # LAPACK takes it for a matrix, which is twice as slow
        solution = blas.dtrsv(factor, blas.dtrsv(factor, vector, lower=True), lower=True, trans=True, overwrite_x=True)
    else:
        solution, _ = lapack.dpotrs(factor, vector, lower=True)
    return np.asarray(solution)


def _rows_times(rows: Array, shape: Array) -> Array:
    """Each row of (n, r) times each entry of the same row of (n, C): (n, r·C)."""
    return (rows[:, :, None] * shape[:, None, :]).reshape(len(rows), -1)


def _gram(rows: Array) -> Array:
    product: Array = rows.T @ rows
    return product
