"""The Weston–Watkins hinges of a row whose mass is on many classes, from its scores in order, in NumPy.

With the scores in order the rivals of a class are those from some place on, and what their hinges add up to are
differences of sums over them: C log C steps, where one class after the other would take C².
"""

from __future__ import annotations

import numpy as np

from kullback.kernels.elements import Float, product

MANY = 128  # from so many classes with mass on


class SortedHinges:
    """Σ_y s_y·Σ_{k≠y} h(Δ + z_k − z_y) of one row and its derivatives, h(x) = max(0, x) or its square.

    Args:
        z: (C,) scores, finite or −inf.
        mass: s, (C,).
        margin: Δ > 0.
        power: 1, or 2 for squared hinges.
    """

    def __init__(self, z: Float, mass: Float, margin: float, power: int) -> None:
        self.margin, self.squared = margin, power == 2
        self.order = np.argsort(z, kind="stable")
        x, self.mass = z[self.order], mass[self.order]
        masked = np.isneginf(x)
        # Relative to the largest, so that sums over rivals are of numbers no larger than the largest hinge.
        with np.errstate(invalid="ignore"):
            self.score = np.where(masked, 0.0, x - x[-1])
        self.masked, self.finite = masked, ~masked
        bar = np.where(masked, -np.inf, margin + x)
        # the first rival of each class; and of how many classes, from the lowest on, each is a rival
        self.first = np.maximum(np.searchsorted(bar, x, side="right"), masked.sum())
        self.reached = np.searchsorted(x, bar, side="left")
        self.with_itself = len(z) - self.first
        self.rivals = self.with_itself - self.finite

    def value(self) -> float:
        """The loss."""
        edge = self.score - self.margin
        own = np.where(self.finite, self.margin, 0.0)
        cost = self._hinges()
        if self.squared:
            above = _from_above(self.score)[self.first]
            squares = _from_above(self.score**2)[self.first] - 2 * edge * above + self.with_itself * edge**2 - own**2
            cost = np.where(self.masked, cost, np.maximum(squares, 0.0))
        return float(product(self.mass, cost).sum())

    def gradient(self) -> Float:
        """Its gradient, (C,)."""
        others = self._below(self.mass) - self.mass
        pull = 1.0 * self.rivals
        if self.squared:
            of_scores = self._below(np.where(self.finite, self.mass * self.score, 0.0))
            others = 2 * ((self.score + self.margin) * self._below(self.mass) - of_scores - self.margin * self.mass)
            if self.mass[self.masked].any():
                others = np.full(len(others), np.inf)
            pull = 2 * self._hinges()
        return self._back(np.where(self.masked, 0.0, others) - product(self.mass, pull))

    def product(self, v: Float) -> Float:
        """Its Hessian times v, (C,)."""
        if not self.squared:
            return np.zeros(len(v))
        v = v[self.order]
        pushed = np.where(self.masked, 0.0, v * self._below(self.mass) - self._below(self.mass * v))
        above = _from_above(np.where(self.finite, v, 0.0))[self.first] - np.where(self.finite, v, 0.0)
        return self._back(2 * (pushed - self.mass * (above - self.rivals * v)))

    def diagonal(self) -> Float:
        """The diagonal of its Hessian, (C,)."""
        if not self.squared:
            return np.zeros(len(self.mass))
        pushed = np.where(self.masked, 0.0, self._below(self.mass) - self.mass)
        return self._back(2 * (pushed + self.mass * self.rivals))

    def _hinges(self) -> Float:
        """The sum of the hinges of each class."""
        own = np.where(self.finite, self.margin, 0.0)
        above = _from_above(self.score)[self.first]
        hinges = np.maximum(above - self.with_itself * (self.score - self.margin) - own, 0.0)
        return np.where(self.rivals == 0, 0.0, np.where(self.masked, np.inf, hinges))

    def _below(self, values: Float) -> Float:
        """Sums over the classes that each is a rival of, and itself."""
        return _running(values)[self.reached]

    def _back(self, values: Float) -> Float:
        out = np.empty(len(values))
        out[self.order] = values
        return out


def _from_above(values: Float) -> Float:
    return _running(values[::-1])[::-1]


def _running(values: Float) -> Float:
    """Sums of the first 0, 1, …, n values: of groups of √n, so that about 2·√n additions round and not n."""
    n = len(values)
    width = int(np.ceil(np.sqrt(n))) or 1
    groups = np.zeros((-(-n // width), width))
    groups.flat[:n] = values
    within = np.cumsum(groups, axis=1)
    before = np.concatenate([[0.0], np.cumsum(within[:, -1])])[:-1]
    return np.concatenate([[0.0], (within + before[:, None]).ravel()[:n]])
