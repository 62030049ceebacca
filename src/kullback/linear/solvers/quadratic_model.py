"""A penalised quadratic model and its minimiser: coordinate descent in C++, sped up by Newton steps on the support.

Coordinate descent finds quickly which variables are zero, and slowly the values of the others where columns are
correlated. So sweeps alternate with steps that solve the model exactly among the variables that are not zero, their
signs (or, for groups, the curvature of their norms) held as they are. Where the first sweeps do not find the minimiser
of a model that is the whole truth, a primal-dual method does.

Source of the alternation: Li, Sun & Toh (2018), "A highly efficient semismooth Newton augmented Lagrangian method for
solving lasso problems", for Newton steps on the support.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kullback.kernels import _native
from kullback.linear.solvers.base import Vector
from kullback.linear.solvers.interior_point import lasso_minimiser
from kullback.linear.solvers.sum_of_norms import group_lasso_minimiser
from kullback.linear.support_curvature import Blocks

Index: TypeAlias = NDArray[np.int64]
# The variables of a block, and its Cholesky factor: the matrix, and whether its lower half holds it.
Factor: TypeAlias = tuple[Index, tuple[Vector, bool]]

# What a direction must bend by, against its length in scaled variables, to be more than rounding.
FLAT = 1e-15
# Sweeps between two Newton steps.
SWEEPS = 12
# A sweep that lowers the model by less than this share of the best sweep ends the descent.
TOLERANCE = 1e-6
# Steps of conjugate gradients for one Newton step, and the residual at which they end.
PRODUCTS = 30
RESIDUAL = 1e-3
# Up to so many variables a model that is the truth is solved directly where the first sweeps do not do it.
MOST_DIRECT = 1500


class QuadraticModel:
    """g·(x − x0) + ½(x − x0)'(A + L·R')(x − x0) + Σ_G τ_G·‖x_G‖ over m variables.

    Args:
        blocks: A.
        left: (m, r) L.
        right: (m, r) R.
        group_start: (groups + 1,) where each group begins in `member`.
        member: (m,) the variables, group by group.
        threshold: (groups,) τ.
        gradient: (m,) g.
        start: (m,) x0.
    """

    def __init__(
        self,
        blocks: Blocks,
        left: Vector,
        right: Vector,
        group_start: Index,
        member: Index,
        threshold: Vector,
        gradient: Vector,
        start: Vector,
    ) -> None:
        self._blocks, self._left, self._right = blocks, left, right
        self._group_start, self._member, self._threshold = group_start, member, threshold
        self._gradient, self._start = gradient, start
        self._block_of = np.repeat(np.arange(len(blocks.offset)), np.diff(blocks.start))
        self._singles = len(group_start) == len(member) + 1
        group_of = np.repeat(np.arange(len(threshold)), np.diff(group_start))
        self._group_of = np.empty(len(member), dtype=np.int64)
        self._group_of[member] = group_of
        self.x = start.copy()

    def minimise(self, rounds: int) -> Vector:
        """The (m,) minimiser, or what so many rounds of sweeps and a Newton step make of it."""
        direct = False
        for _ in range(rounds):
            if self._descend() < SWEEPS:
                break
            if not direct:
                direct = True
                if self._directly():
                    continue
            if not self._newton():
                break
        return self.x

    def _directly(self) -> bool:
        """Go to where a method without sweeps ends; whether it lowered the model."""
        # A model that is not the truth is not worth so much work.
        if not self._blocks.exact or len(self.x) > MOST_DIRECT or self._left.size:
            return False
        starts = self._blocks.start
        matrices = [self._blocks.matrix(block) for block in range(len(starts) - 1) if starts[block] < starts[block + 1]]
        linear = self._gradient - self._blocks.times(self._start)
        if self._singles:
            x = lasso_minimiser(matrices, linear, self._threshold[self._group_of])
        else:
            whole = matrices[0] if len(matrices) == 1 else linalg.block_diag(*matrices)
            x = group_lasso_minimiser(whole, linear, self._threshold, self._group_of)
        if x is None or not self.value(x) < self.value(self.x):
            return False
        self.x = x
        return True

    def value(self, x: Vector) -> float:
        """The model at (m,) x, less its value at x0 without the norms."""
        step = x - self._start
        smooth = float(self._gradient @ step) + 0.5 * float(step @ self._times(step))
        return smooth + float(self._threshold @ self._norms(x))

    def _times(self, vector: Vector) -> Vector:
        return self._blocks.times(vector) + self._left @ (self._right.T @ vector)

    def _norms(self, x: Vector) -> Vector:
        if self._singles:
            return np.abs(x[self._member])
        return np.sqrt(np.bincount(self._group_of, np.square(x), len(self._threshold)))

    def _descend(self) -> int:
        step = self.x - self._start
        used = _native.descent(
            self._blocks.start,
            self._blocks.offset,
            self._block_of,
            self._blocks.values,
            np.ascontiguousarray(self._left).ravel(),
            np.ascontiguousarray(self._right).ravel(),
            self._group_start,
            self._member,
            self._threshold,
            self._gradient + self._blocks.times(step),
            self.x,
            self._right.T @ step,
            TOLERANCE,
            SWEEPS,
        )
        if used < 0:
            raise AssertionError("the blocks or groups of a working set do not fit together")
        return int(used)

    def _newton(self) -> bool:
        """One step on the support; whether it lowered the model."""
        norms = self._norms(self.x)
        # Variables without a threshold are free at zero as well.
        free = (norms > 0) | (self._threshold == 0)
        chosen = np.flatnonzero(free[self._group_of])
        x = self.x
        size = np.where(norms > 0, norms, 1.0)[self._group_of]
        weight = (self._threshold / np.where(norms > 0, norms, 1.0))[self._group_of]
        unit = x / size
        slope = self._gradient + self._times(x - self._start) + weight * x
        # The norm's own curvature, (τ/ν)·(I − u·u'), is nothing for a group of one.
        bend = np.zeros_like(weight) if self._singles else weight
        inverses = self._factors(chosen, bend)
        if inverses is None:
            return False

        def product(vector: Vector) -> Vector:
            out = self._times(vector) + bend * vector
            if not self._singles:
                along = np.bincount(self._group_of, unit * vector, len(self._threshold))[self._group_of]
                out -= bend * unit * along
            return out

        mask = np.zeros(len(x))
        mask[chosen] = 1.0

        step, _ = conjugate_gradients(
            lambda vector: product(vector) * mask,
            lambda vector: solve_blocks(inverses, vector),
            -slope * mask,
            products=PRODUCTS,
            residual=RESIDUAL,
        )
        before = self.value(x)
        rounding = 1e-14 * float(self._threshold @ norms)
        lengths = [1.0, 0.5, 0.25, 0.0625]
        if self._singles:
            # What would change its sign stops at zero; the sweeps decide whether it goes on. Up to where the first one
            # does, the step lowers the model whatever the others do.
            crosses = (x * step < 0) & (self._threshold[self._group_of] > 0)
            crossing = np.where(crosses, np.abs(x) / np.where(crosses, np.abs(step), 1.0), np.inf)
            if crosses.any():
                lengths.append(float(crossing.min()))
        for length in lengths:
            moved = x + length * step
            if self._singles:
                moved[crossing <= length] = 0.0
            after = self.value(moved)
            # Differences below the rounding of the norms' sum say nothing; then the slope decides.
            level = abs(after - before) <= rounding and self._slope_size(moved, chosen) < self._slope_size(x, chosen)
            if level or after < before - rounding:
                self.x = moved
                return True
        return False

    def _slope_size(self, x: Vector, chosen: Index) -> float:
        """The length of the model's slope among the chosen variables, those at zero without their threshold."""
        norms = self._norms(x)
        weight = np.divide(self._threshold, norms, out=np.zeros_like(norms), where=norms > 0)[self._group_of]
        return float(np.linalg.norm((self._gradient + self._times(x - self._start) + weight * x)[chosen]))

    def _factors(self, chosen: Index, bend: Vector) -> list[Factor] | None:
        found = []
        edges = np.searchsorted(chosen, self._blocks.start)
        for block in range(len(self._blocks.offset)):
            inside = chosen[edges[block] : edges[block + 1]]
            if len(inside) == 0:
                continue
            local = inside - int(self._blocks.start[block])
            matrix = self._blocks.matrix(block)[np.ix_(local, local)]
            matrix[np.diag_indices(len(matrix))] += bend[inside] + 1e-10 * np.diag(matrix).max()
            try:
                found.append((inside, linalg.cho_factor(matrix, lower=True, check_finite=False, overwrite_a=True)))
            except linalg.LinAlgError:
                return None
        return found


def solve_blocks(factors: list[Factor], vector: Vector) -> Vector:
    """The inverse of a block-diagonal matrix times (m,); zero outside of the blocks."""
    out = np.zeros_like(vector)
    for inside, (factor, lower) in factors:
        # SciPy's own cho_solve takes ten times as long to look at its arguments as LAPACK to solve for a few variables.
        out[inside] = linalg.lapack.dpotrs(factor, vector[inside], lower=lower)[0]
    return out


def conjugate_gradients(
    product: Callable[[Vector], Vector],
    condition: Callable[[Vector], Vector],
    target: Vector,
    *,
    products: int,
    residual: float,
) -> tuple[Vector, Vector | None]:
    """Solve product(step) = target, with `condition` close to the inverse of `product`.

    It ends after so many products, where the residual has fallen to this share of the target, or at a direction that
    the product shows no curvature along. Returns the step, and that direction if there was one.
    """
    step = np.zeros_like(target)
    left = target.copy()
    whole = float(np.linalg.norm(left))
    ahead = condition(left)
    direction, energy = ahead, float(left @ ahead)
    for _ in range(products):
        image = product(direction)
        width = float(direction @ image)
        if not width > FLAT * float(direction @ direction):
            return step, direction
        share = energy / width
        step += share * direction
        left -= share * image
        if float(np.linalg.norm(left)) <= residual * whole:
            break
        ahead = condition(left)
        new = float(left @ ahead)
        direction = ahead + (new / energy) * direction
        energy = new
    return step, None
