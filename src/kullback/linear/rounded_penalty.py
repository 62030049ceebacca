"""A smooth loss plus norms with their kinks rounded off, for Newton steps where the loss bends in few rows only.

τ·‖v‖ becomes τ·‖v‖²/2μ up to ‖v‖ = μ and τ·(‖v‖ − μ/2) beyond. Its slopes stay within the ball of radius τ, so where
they balance those of the loss these are a dual point of the norms themselves, for which a weight within the curve is
zero.

Source: Nesterov (2005), "Smooth minimization of non-smooth functions".
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.solvers.base import Apply, Point
from kullback.linear.sparse_problem import SparseObjective

Vector: TypeAlias = NDArray[np.float64]


# What the loss is taken to bend by at least.
LEAST_BENT = 1e-10


class RoundedPenalty:
    """A `Problem` whose distance from the optimum is the slope left over, as a share of what balances it.

    Args:
        objective: loss, norms and ridge; its variables are those of the problem.
        smoothness: μ > 0, in the unit of the logits.
    """

    def __init__(self, objective: SparseObjective, smoothness: float) -> None:
        self.objective = objective
        self._mu = smoothness
        self.at = np.zeros(objective.size)  # the last point that was checked

    @property
    def size(self) -> int:
        """P."""
        return self.objective.size

    @property
    def passes(self) -> int:
        """How often the data was read."""
        return self.objective.smooth.passes

    @property
    def rounding(self) -> float:
        """Relative rounding of a value."""
        return self.objective.smooth.rounding

    def refine(self) -> bool:
        """False: nothing is more exact."""
        return False

    def precondition(self, parameters: Vector) -> Apply | None:
        """Divide by the penalty's own curvature, which is by far the largest along weights within the curve.

        To it is added that of the loss, the same for all weights: the mean over one draw of signs (Hutchinson, 1990).
        """
        objective, mu = self.objective, self._mu
        signs = np.random.default_rng(0).choice([-1.0, 1.0], objective.size)
        product = objective.smooth.hessian_product(objective.expand(parameters), objective.expand(signs))
        of_loss = float(signs @ objective.contract(product)) / objective.size
        scaled, _ = objective.split(parameters)
        sizes = self._sizes(scaled)
        bent = objective.thresholds[:, None] * np.where(sizes < mu, 1.0 / mu, 0.0) + objective.ridges[:, None]
        diagonal = np.full(objective.size, max(of_loss, LEAST_BENT))
        diagonal[: scaled.size] += np.broadcast_to(bent, scaled.shape).ravel()
        return lambda vector: vector / diagonal

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """The largest slope as a share of its threshold, or of the objective for an intercept; the point as given."""
        self.at = parameters
        objective = self.objective
        slope, pull = objective.split(point.gradient)
        of_weights = (np.abs(slope).max(axis=1) / objective.thresholds).max(initial=0.0)
        return float(max(of_weights, np.abs(pull).max() / max(point.objective, np.finfo(np.float64).tiny))), point

    def evaluate(self, parameters: Vector) -> Point:
        """Value and gradient at (P,) parameters."""
        objective, mu = self.objective, self._mu
        point = objective.smooth.evaluate(objective.expand(parameters))
        gradient = objective.contract(point.gradient).copy()
        scaled, _ = objective.split(parameters)
        sizes, tau = self._sizes(scaled), objective.thresholds[:, None]
        norms = float((tau * np.where(sizes < mu, np.square(sizes) / (2 * mu), sizes - mu / 2)).sum())
        ridges = objective.ridges[:, None] * scaled
        gradient[: scaled.size] += (tau * scaled / np.maximum(sizes, mu) + ridges).ravel()
        return Point(point.loss + norms + 0.5 * float(np.vdot(ridges, scaled)), point.loss, gradient)

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """The Hessian at (P,) parameters times a (P,) direction."""
        objective, mu = self.objective, self._mu
        product = objective.smooth.hessian_product(objective.expand(parameters), objective.expand(direction))
        out = objective.contract(product).copy()
        scaled, _ = objective.split(parameters)
        along, _ = objective.split(direction)
        sizes, tau = self._sizes(scaled), objective.thresholds[:, None]
        # Beyond the curve a norm bends only across its weights, which a single one cannot do.
        unit = np.divide(scaled, sizes, out=np.zeros_like(scaled), where=sizes >= mu)
        straight = (unit * along).sum(axis=1, keepdims=True) if self._grouped else unit * along
        across = along - unit * straight
        out[: scaled.size] += (tau * across / np.maximum(sizes, mu) + objective.ridges[:, None] * along).ravel()
        return out

    def with_zeros(self, parameters: Vector) -> Vector:
        """(P,) parameters whose weights within the curve are zero."""
        scaled, _ = self.objective.split(parameters)
        out = parameters.copy()
        out[: scaled.size] = np.where(self._sizes(scaled) < self._mu, 0.0, scaled).ravel()
        return out

    @property
    def _grouped(self) -> bool:
        return self.objective.penalty.grouped

    def _sizes(self, scaled: Vector) -> Vector:
        """(d, 1) norms of rows, or (d, K) absolute values."""
        return np.sqrt(np.square(scaled).sum(axis=1, keepdims=True)) if self._grouped else np.abs(scaled)
