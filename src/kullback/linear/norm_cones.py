"""Norms in an interior-point method: second-order cones, scaled by Nesterov and Todd's point.

τ·‖w‖ is the least τ·t with t ≥ ‖w‖, and the slopes y of it lie in ‖y‖ ≤ τ: a point (t, w) of a cone and a point
(τ, −y) of its dual, which is the same cone. Their product is zero at the optimum; a step makes it a given number to
first order, in variables in which both points are the same. τ stays, so t is solved for here, and what is left is y as
a function of w.

Source: Nesterov & Todd (1997), "Self-scaled barriers and interior-point methods for convex programming", in the
notation of Vandenberghe (2010), "The CVXOPT linear and quadratic cone program solvers".
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float64]


class NormStep(NamedTuple):
    """How w (G, k), t (G,) and y (G, k) move."""

    weights: Vector
    size: Vector
    slopes: Vector


class NormCones:
    """G norms of k weights each.

    Args:
        weights: (G, k) where to start.
        thresholds: (G,) τ > 0.
        room: about how large the products are at first.
    """

    def __init__(self, weights: Vector, thresholds: Vector, room: float) -> None:
        self.weights, self.thresholds = weights, thresholds
        self.sizes = _norm(weights) + room / thresholds
        self.slopes = np.zeros_like(weights)

    @property
    def count(self) -> int:
        """G, how many products there are."""
        return len(self.thresholds)

    def products(self, step: NormStep | None = None, length: float = 0.0) -> float:
        """Their sum, after a step of some length."""
        weights, sizes, slopes = self.weights, self.sizes, self.slopes
        if step is not None:
            weights = weights + length * step.weights
            sizes, slopes = sizes + length * step.size, slopes + length * step.slopes
        return float(self.thresholds @ sizes - np.vdot(weights, slopes))

    def scale(self) -> None:
        """Find the scaling at the point as it is now."""
        first = np.column_stack([self.sizes, self.weights])
        second = np.column_stack([self.thresholds, -self.slopes])
        inner_first, inner_second = _determinant(first), _determinant(second)
        first, second = first / np.sqrt(inner_first)[:, None], second / np.sqrt(inner_second)[:, None]
        second[:, 1:] *= -1
        between = first[:, 0] * second[:, 0] - (first[:, 1:] * second[:, 1:]).sum(axis=1)
        middle = (first + second) / np.sqrt(2 * (1 + between))[:, None]
        self._eta = (inner_first / inner_second) ** 0.25
        self._height, self._slant = middle[:, 0], middle[:, 1:]
        self._both = self._scaled(self.sizes, self.weights, inverse=True)

    def curvature(self) -> Vector:
        """(G, k, k) by which y moves with w."""
        outer = self._slant[:, :, None] * self._slant[:, None, :]
        outer *= (-2.0 / (2 * np.square(self._height) - 1))[:, None, None]
        outer += np.eye(self._slant.shape[1])
        return np.asarray(outer / np.square(self._eta)[:, None, None])

    def step(self, moved: Vector, target: float, before: NormStep | None = None) -> NormStep:
        """How t and y follow the weights; arguments as those of `HingeDuals.step`, for weights (G, k)."""
        height, slant, eta = self._height, self._slant, self._eta
        first, rest = self._both
        left, left_rest = target - np.square(first) - np.square(rest).sum(axis=1), -2 * first[:, None] * rest
        if before is not None:
            one, one_rest = self._scaled(before.size, before.weights, inverse=True)
            two, two_rest = self._scaled(np.zeros(len(eta)), -before.slopes, inverse=False)
            left = left - one * two - (one_rest * two_rest).sum(axis=1)
            left_rest = left_rest - one[:, None] * two_rest - two[:, None] * one_rest
        # The x with (first, rest) ∘ x = left.
        x = (first * left - (rest * left_rest).sum(axis=1)) / _determinant(np.column_stack([first, rest]))
        x_rest = (left_rest - x[:, None] * rest) / first[:, None]
        x, x_rest = self._scaled(x, x_rest, inverse=True)
        corner = (2 * np.square(height) - 1) / np.square(eta)
        edge = -2 * (height / np.square(eta))[:, None] * slant
        size = (x - (edge * moved).sum(axis=1)) / corner
        along = (slant * moved).sum(axis=1)
        straight = (moved + 2 * along[:, None] * slant) / np.square(eta)[:, None]
        return NormStep(moved, size, straight + size[:, None] * edge - x_rest)

    def longest(self, step: NormStep) -> float:
        """The length of a step at which the first point leaves its cone."""
        of_weights = _reach(self.sizes, self.weights, step.size, step.weights)
        of_slopes = _reach(self.thresholds, self.slopes, np.zeros(len(self.sizes)), step.slopes)
        return min(of_weights, of_slopes)

    def take(self, step: NormStep, length: float) -> None:
        """Go along a step."""
        self.weights = self.weights + length * step.weights
        self.sizes = self.sizes + length * step.size
        self.slopes = self.slopes + length * step.slopes

    def used(self, share: float) -> NDArray[np.bool_]:
        """(G,) which norms tend to something above zero: those above this share of what their slopes leave to τ.

        Both are taken as parts, the one of the mean norm and the other of τ.
        """
        norms = _norm(self.weights)
        room = 1.0 - _norm(self.slopes) / self.thresholds
        return np.asarray(norms > share * room * norms.mean())

    def _scaled(self, first: Vector, rest: Vector, *, inverse: bool) -> tuple[Vector, Vector]:
        """The scaling, or its inverse, times points (G,), (G, k)."""
        height, slant = self._height, self._slant if not inverse else -self._slant
        eta = self._eta if not inverse else 1.0 / self._eta
        along = (slant * rest).sum(axis=1)
        whole = (first + along / (1 + height))[:, None] * slant + rest
        return eta * (height * first + along), eta[:, None] * whole


def _norm(of: Vector) -> Vector:
    return np.asarray(np.sqrt(np.square(of).sum(axis=1)))


def _determinant(points: Vector) -> Vector:
    """t² − ‖w‖² of (G, 1 + k) points, without the cancellation of squares."""
    norms = _norm(points[:, 1:])
    return np.asarray((points[:, 0] - norms) * (points[:, 0] + norms))


def _reach(first: Vector, rest: Vector, first_step: Vector, rest_step: Vector) -> float:
    """The least length at which points (first, rest) of the cones, moved along a step, leave one; inf if none does."""
    a = np.square(first_step) - np.square(rest_step).sum(axis=1)
    b = first * first_step - (rest * rest_step).sum(axis=1)
    c = _determinant(np.column_stack([first, rest]))
    root = np.square(b) - a * c
    leaves = root >= 0
    q = -(b + np.where(b >= 0, 1.0, -1.0) * np.sqrt(np.where(leaves, root, 0.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.stack([q / a, c / q])
    lengths = lengths[:, leaves]
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    return float(lengths.min(initial=np.inf))
