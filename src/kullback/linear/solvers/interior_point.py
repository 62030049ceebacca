"""The minimiser of a quadratic function plus a weighted lasso norm, by a primal-dual interior-point method.

Coordinate descent and steps that stop at every zero take very many steps where columns are strongly correlated. This
method takes one or two dozen factorisations whatever the correlations are.

With x = p − q, p and q not below zero, the minimiser of c·x + ½x'Hx + Σ τ_j·|x_j| is where, for s = Hx + c,

    p_j·(τ_j + s_j) = 0,    q_j·(τ_j − s_j) = 0,    |s_j| ≤ τ_j.

Newton steps solve the first two with a small μ in place of 0, which is then lowered; eliminating all but x leaves the
matrix H + D with a positive diagonal D.

Source: Mehrotra (1992), "On the implementation of a primal-dual interior point method", for how μ is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Vector: TypeAlias = NDArray[np.float64]

# Factorisations at most.
MOST = 60
# How far p·(τ + s) and q·(τ − s) fall, as a share of the norm.
PRECISION = 1e-11
# How far s may be from Hx + c, as a share of τ.
BALANCED = 1e-9
# What holds variables without a threshold, as a share of their curvature, against steps that come of rounding alone.
STEADY = 1e-10
# What a column's curvature is raised by for the first point, as a share of it.
START = 1e-3
# The share of the way to the boundary that a step goes.
INTERIOR = 0.995


def lasso_minimiser(matrices: Sequence[Vector], linear: Vector, threshold: Vector) -> Vector | None:
    """The (m,) minimiser, with zeros that are exactly zero; None where rounding or too many steps forbid it.

    Args:
        matrices: the diagonal blocks of H, positive definite, in the order of the variables.
        linear: (m,) c.
        threshold: (m,) τ ≥ 0; variables with 0 are free.

    >>> lasso_minimiser([np.eye(2)], np.array([-3.0, 0.5]), np.ones(2)).round(9)
    array([2., 0.])
    """
    held = threshold > 0
    tau = np.where(held, threshold, threshold.max())
    edges = np.cumsum([0, *(len(matrix) for matrix in matrices)])
    parts = [slice(begin, end) for begin, end in pairwise(edges)]

    def times(vector: Vector) -> Vector:
        return np.concatenate([matrix @ vector[part] for matrix, part in zip(matrices, parts, strict=True)])

    # Far enough inside: as long as the weights would be almost without a penalty.
    bend = np.concatenate([np.diag(matrix) for matrix in matrices])
    solve = _solver(matrices, parts, START * bend if held.any() else 0 * bend)
    if solve is None:
        return None
    x = solve(-linear)
    size = float(np.abs(x[held]).mean()) if held.any() else 0.0
    if size == 0:  # every slope is zero, or nothing is held
        return x
    p, q = np.maximum(x, 0.0) + size, np.maximum(-x, 0.0) + size
    upper, lower = tau.copy(), tau.copy()
    n_held, left = int(held.sum()), np.inf
    for _ in range(MOST):
        x = np.where(held, p - q, x)
        missed = times(x) + linear - np.where(held, (upper - lower) / 2, 0.0)
        mu = float((p * upper + q * lower)[held].sum()) / (2 * n_held)
        norm = float((tau * np.abs(x))[held].sum())
        left, before = float((np.abs(missed) / tau).max()), left
        if mu * n_held <= PRECISION * norm and (left <= BALANCED or left > before / 2):
            break
        ratio_p, ratio_q = p / upper, q / lower
        # Variables without a threshold may be free to move all together, which must not follow from rounding.
        diagonal = np.where(held, 1.0 / (ratio_p + ratio_q), 0.0)
        solve = _solver(matrices, parts, np.where(held, diagonal, STEADY * bend))
        if solve is None:
            return None

        def step(
            target_p: Vector | float,
            target_q: Vector | float,
            solve: Callable[[Vector], Vector] = solve,
            diagonal: Vector = diagonal,
            upper: Vector = upper,
            lower: Vector = lower,
            missed: Vector = missed,
            p: Vector = p,
            q: Vector = q,
        ) -> tuple[Vector, Vector, Vector, Vector]:
            towards = target_p / upper - p - target_q / lower + q
            moved = solve(diagonal * towards - missed)
            ds = diagonal * (towards - moved)
            dp = target_p / upper - p - p / upper * ds
            dq = target_q / lower - q + q / lower * ds
            return moved, ds, dp, dq

        _, ds, dp, dq = step(0.0, 0.0)
        length = _inside([p, q, upper, lower], [dp, dq, ds, -ds], held)
        ahead = (p + length * dp) * (upper + length * ds) + (q + length * dq) * (lower - length * ds)
        wanted = mu * (float(ahead[held].sum()) / (2 * n_held * mu)) ** 3
        moved, ds, dp, dq = step(wanted - dp * ds, wanted + dq * ds)
        length = INTERIOR * _inside([p, q, upper, lower], [dp, dq, ds, -ds], held)
        length = min(1.0, length)
        p, q, upper, lower = p + length * dp, q + length * dq, upper + length * ds, lower - length * ds
        x = np.where(held, x, x + length * moved)
    else:
        return None
    size = float(np.abs(x[held]).mean())
    zero = held & (np.maximum(p, q) * tau <= size * np.minimum(upper, lower))
    x[zero] = 0.0
    return x


def _inside(values: list[Vector], steps: list[Vector], held: NDArray[np.bool_]) -> float:
    """The largest share of a step, 1 at most over the interior share, at which no value falls below zero."""
    worst = max(float((-step / value)[held].max()) for value, step in zip(values, steps, strict=True))
    return 1.0 / max(worst, INTERIOR)


def _solver(matrices: Sequence[Vector], parts: Sequence[slice], diagonal: Vector) -> Callable[[Vector], Vector] | None:
    factors = []
    for matrix, part in zip(matrices, parts, strict=True):
        whole = matrix.copy()
        whole[np.diag_indices(len(whole))] += diagonal[part]
        try:
            factors.append(linalg.cho_factor(whole, lower=True, check_finite=False, overwrite_a=True))
        except linalg.LinAlgError:
            return None
    return lambda target: np.concatenate(
        [
            linalg.cho_solve(factor, target[part], check_finite=False)
            for factor, part in zip(factors, parts, strict=True)
        ]
    )
