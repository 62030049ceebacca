"""The minimiser of a quadratic function plus a weighted sum of Euclidean norms, by a primal-dual Newton method.

Each norm ‖x_G‖ is rounded off to ν_G = sqrt(‖x_G‖² + ε²), and the slopes y_G = τ_G·x_G/ν_G are unknowns of their own.
Newton steps on ν_G·y_G = τ_G·x_G, Hx + c + y = 0 converge from far away, where those on x alone do not; ε is lowered as
they do.

Sources: Chan, Golub & Mulet (1999), "A nonlinear primal-dual method for total variation-based image restoration";
Andersen, Christiansen, Conn & Overton (2000), "An efficient primal-dual interior-point method for minimizing a sum of
Euclidean norms".
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Vector: TypeAlias = NDArray[np.float64]

# Steps at most, and those of one stage, which takes more only where the function hardly bends.
MOST, MOST_OF_STAGE = 100, 25
# What a column's curvature is raised by for the first point, as a share of it.
START = 1e-3
# ε at the end, as a share of a mean norm, and what it is multiplied by from one stage to the next.
LAST, FINER = 1e-11, 0.05
# A group whose norm is so many times ε is zero.
GONE = 100.0
# The share of the predicted decrease that a step must reach.
SUFFICIENT = 1e-4
# What a slope is rounded by, as a share of the sizes that it is the sum of.
ROUNDING = 2 * float(np.finfo(np.float64).eps)
# What holds variables against steps that come of rounding alone, as a share of their curvature.
STEADY = 1e-10


def group_lasso_minimiser(matrix: Vector, linear: Vector, threshold: Vector, group: NDArray[np.int64]) -> Vector | None:
    """The (m,) minimiser of c·x + ½x'Hx + Σ_G τ_G·‖x_G‖; None where it is too flat to be found.

    Args:
        matrix: (m, m) H, positive definite.
        linear: (m,) c.
        threshold: (groups,) τ ≥ 0; groups with 0 are free.
        group: (m,) the group of each variable.

    >>> group_lasso_minimiser(np.eye(3), np.array([-3.0, -4.0, 0.5]), np.ones(2), np.array([0, 0, 1])).round(6)
    array([2.4, 3.2, 0. ])
    """
    held = (threshold > 0)[group]
    bend = np.diag(matrix)
    rise = np.where(held, 0.0, STEADY * bend)
    try:
        x = linalg.solve(
            matrix + np.diag((START if held.any() else 0.0) * bend), -linear, assume_a="pos", check_finite=False
        )
    except linalg.LinAlgError:
        return None

    def norms(of: Vector, epsilon: float) -> Vector:
        return np.asarray(np.sqrt(np.bincount(group, np.square(of), len(threshold)) + epsilon**2))

    def value(at: Vector, image: Vector, epsilon: float) -> float:
        return float(linear @ at + 0.5 * (at @ image) + threshold @ norms(at, epsilon))

    size = float(norms(x, 0.0)[threshold > 0].mean()) if (threshold > 0).any() else 0.0
    if size == 0:  # every slope is zero, or nothing is held
        return np.asarray(x)
    epsilon, y, last, steps, lowered = size, np.zeros_like(x), x, 0, True
    same, sizes = group[:, None] == group, np.abs(matrix)
    for _ in range(MOST):
        nu = norms(x, epsilon)
        tau, image = threshold[group], matrix @ x
        slope = linear + image + tau * x / nu[group]
        rounding = ROUNDING * (np.abs(linear) + sizes @ np.abs(x))
        steepest = float(((np.abs(slope) - rounding)[held] / tau[held]).max())
        # A stage ends where the slope is small beyond its rounding, or a step no longer lowered the function.
        if steepest <= max(1e-9, 1e-3 * epsilon / size) or not lowered:
            if epsilon <= LAST * size:
                break
            # A group that tends to zero has a norm in proportion to ε.
            last, ahead, epsilon, steps, lowered = x, x + FINER * (x - last), FINER * epsilon, 0, True
            if value(ahead, matrix @ ahead, epsilon) < value(x, image, epsilon):
                x = ahead
            continue
        if steps == MOST_OF_STAGE:
            return None
        cross = np.outer(y / np.square(nu)[group], x)
        whole = matrix - np.where(same, (cross + cross.T) / 2, 0.0)
        whole[np.diag_indices(len(x))] += tau / nu[group] + rise
        try:
            step = linalg.cho_solve(linalg.cho_factor(whole, lower=True, check_finite=False, overwrite_a=True), -slope)
        except linalg.LinAlgError:
            return None
        along = np.bincount(group, x * step, len(threshold))[group]
        y = tau / nu[group] * (x + step) - along / np.square(nu)[group] * y
        y /= np.maximum(1.0, norms(y, 0.0) / np.where(threshold > 0, threshold, np.inf))[group]
        before, predicted, moved, length = value(x, image, epsilon), float(slope @ step), matrix @ step, 1.0
        while length > 1e-6 and value(
            x + length * step, image + length * moved, epsilon
        ) > before + SUFFICIENT * length * predicted + 1e-15 * abs(before):
            length /= 2
        x, steps = x + length * step, steps + 1
        lowered = value(x, image + length * moved, epsilon) < before
    gone = (norms(x, 0.0) <= GONE * epsilon) & (threshold > 0)
    return np.where(gone[group], 0.0, x)
