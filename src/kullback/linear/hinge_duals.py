"""Multi-class hinges in a linear program: slacks of the leads, their duals, and how all of them move together.

An example of class y has the leads m_k = Δ + z_k − z_y over its rivals k, and m_y = 0, a lead that never moves. Then

- Weston–Watkins: the least Σ_k ξ_k, or Σ_k ξ_k², with ξ_k ≥ m_k and ξ_k ≥ 0,
- Crammer–Singer: the least ξ, or ξ², with ξ ≥ m_k for all k,

and the duals α of ξ ≥ m lie in [0, ω], or α_k = 2ωξ_k; or they are positive with Σ_k α_k = ω, or Σ_k α_k = 2ωξ, ω the
example's weight. An interior-point step moves a slack s = ξ − m and its dual so that their product becomes a given
number to first order; of that the example's own unknowns are solved here, and what is left is α as a function of the
leads.

Source: Mehrotra (1992), "On the implementation of a primal-dual interior point method".
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.losses import CrammerSinger, Loss, WestonWatkins

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]

# The slack that examples of next to no weight start with, in margins.
MOST_ROOM = 1e12
# The least part of an even share that a class's duals start with. Slacks start alike and so products as unlike as the
# shares: those of a class with 1e-8 of all weight would be zero long before the others, and cut every step short.
LEAST_PART = 0.05


class Hinge(NamedTuple):
    """Which hinge: Δ, whether every rival has a ξ of its own, and whether ξ is squared."""

    margin: float
    each: bool
    squared: bool


def hinge_of(loss: Loss) -> Hinge | None:
    """What kind of hinge a loss is, if it is one.

    >>> hinge_of(CrammerSinger(margin=2.0))
    Hinge(margin=2.0, each=False, squared=False)
    """
    if not isinstance(loss, WestonWatkins | CrammerSinger):
        return None
    return Hinge(loss.margin, isinstance(loss, WestonWatkins), loss.squared)


class Step(NamedTuple):
    """How the duals (E, C), the slacks (E, C) and ξ, (E, C) or (E, 1), move."""

    alpha: Vector
    slack: Vector
    xi: Vector


class HingeDuals:
    """The examples of a hinge, their slacks and duals.

    Args:
        hinge: which one.
        own: (E,) classes.
        weight: (E,) ω > 0.
        shares: (C,) the classes' shares of all weight, none of them zero: duals in these proportions are in balance,
            and start so unless a share is very small.
    """

    def __init__(self, hinge: Hinge, own: Index, weight: Vector, shares: Vector) -> None:
        self.own, self.weight, self.margin = own, weight[:, None], hinge.margin
        self.each, self.squared = hinge.each, hinge.squared
        # Then ω − α is the dual of ξ ≥ 0.
        self._capped = hinge.each and not hinge.squared
        self._every = np.arange(len(own))
        shares = np.maximum(shares, LEAST_PART / len(shares))
        whole = 2 * self.margin if self.squared else 1.0
        self._start: Vector = self.weight * (shares / shares.sum()) * whole
        self.alpha: Vector = self._start

    def leads(self, logits: Vector) -> Vector:
        """m (E, C)."""
        return self.moved(logits, self.margin)

    def moved(self, logits: Vector, margin: float = 0.0) -> Vector:
        """What the leads change by as the logits (E, C) do, with `margin` added."""
        leads: Vector = margin + logits - logits[self._every, self.own][:, None]
        leads[self._every, self.own] = 0.0
        return leads

    def pull(self, alpha: Vector) -> Vector:
        """(E, C) numbers on the leads as numbers on the logits: the transpose of `moved`."""
        pull = alpha.copy()
        pull[self._every, self.own] = 0.0
        pull[self._every, self.own] = -pull.sum(axis=1)
        return pull

    def restart(self, leads: Vector) -> None:
        """Start at leads (E, C), with slacks of the order of the margin, and products alike for all examples."""
        self.alpha = self._start
        xi = np.maximum(leads, 0.0) if self.each else leads.max(axis=1, keepdims=True)
        self.xi = xi + self.margin * np.minimum(self.weight.mean() / self.weight, MOST_ROOM)
        self.slack = self.xi - leads

    def loss(self, leads: Vector) -> float:
        """Σ ω·loss at leads (E, C)."""
        xi = np.maximum(leads, 0.0) if self.each else leads.max(axis=1, keepdims=True)
        return float((self.weight * xi ** (2 if self.squared else 1)).sum())

    def worth(self, share: float) -> float:
        """−Σ ℓ*(share·α): what the duals of the rivals prove by themselves."""
        rivals = self.alpha.copy()
        rivals[self._every, self.own] = 0.0
        if not self.each:
            rivals = rivals.sum(axis=1, keepdims=True)
        linear = share * self.margin * float(rivals.sum())
        return linear - share**2 * float((np.square(rivals) / (4 * self.weight)).sum()) if self.squared else linear

    # ------------------------------------------------------------ products of slacks and duals

    @property
    def count(self) -> int:
        """How many products there are."""
        return (2 if self._capped else 1) * self.alpha.size

    def products(self, step: Step | None = None, length: float = 0.0) -> float:
        """Their sum, after a step of some length."""
        alpha, slack, xi = self._after(step, length)
        total = float(np.vdot(alpha, slack))
        return total + float(np.vdot(self.weight - alpha, xi)) if self._capped else total

    def longest(self, step: Step) -> float:
        """The length of a step at which the first slack or dual is zero."""
        parts = [(self.alpha, step.alpha), (self.slack, step.slack)]
        if self._capped:
            parts += [(self.weight - self.alpha, -step.alpha), (self.xi, step.xi)]
        worst = max(float((-change / value).max()) for value, change in parts)
        return 1.0 / worst if worst > 0 else np.inf

    def take(self, step: Step, length: float, leads: Vector) -> None:
        """Go along a step to where the leads are (E, C); slacks are exact there."""
        self.alpha, _, self.xi = self._after(step, length)
        self.slack = self.xi - leads

    def curvature(self) -> tuple[Vector, Vector | None]:
        """D (E, C) and, where examples couple their leads, c (E, 1): α moves with the leads by diag D − c·D·Dᵀ."""
        if self.each:
            bend = 0.5 / self.weight if self.squared else self.xi / (self.weight - self.alpha)
            return 1.0 / (self.slack / self.alpha + bend), None
        pace = self.alpha / self.slack
        return pace, 1.0 / (pace.sum(axis=1, keepdims=True) + (2 * self.weight if self.squared else 0.0))

    def step(self, moved: Vector, target: float, before: Step | None = None) -> Step:
        """How slacks and duals follow the leads.

        Args:
            moved: (E, C) what the leads change by.
            target: what every product is to become.
            before: a step towards zero, whose terms of second order are made up for.
        """
        left = target - self.alpha * self.slack
        if before is not None:
            left -= before.alpha * before.slack
        pace, coupling = self.curvature()
        if self._capped:
            other = target - (self.weight - self.alpha) * self.xi
            if before is not None:
                other += before.alpha * before.xi
            alpha = pace * (moved + left / self.alpha - other / (self.weight - self.alpha))
            # Not from what the leads change by: of heavy examples ξ is smaller than the rounding of that.
            xi = (other + self.xi * alpha) / (self.weight - self.alpha)
            return Step(alpha, (left - self.slack * alpha) / self.alpha, xi)
        wanted = 2 * self.weight * self.xi if self.squared else self.weight
        if coupling is None:
            missed = self.alpha - wanted
            alpha = pace * (moved + left / self.alpha - 0.5 * missed / self.weight)
            xi = 0.5 * (alpha + missed) / self.weight
            return Step(alpha, (left - self.slack * alpha) / self.alpha, xi)
        missed = self.alpha.sum(axis=1, keepdims=True) - wanted
        free = pace * moved + left / self.slack
        xi = coupling * (free.sum(axis=1, keepdims=True) + missed)
        return Step(free - pace * xi, xi - moved, xi)

    def _after(self, step: Step | None, length: float) -> tuple[Vector, Vector, Vector]:
        if step is None:
            return self.alpha, self.slack, self.xi
        return self.alpha + length * step.alpha, self.slack + length * step.slack, self.xi + length * step.xi
