"""Multi-class hinges with their kinks rounded off, so that Newton-like steps work.

A hinge of the leads m_k = Δ + z_k − z_y of the rivals k of class y is a largest value over a convex set A,

    ℓ(z) = max over α in A of Σ_k α_k·m_k − q(Σ_k α_k),

with A = [0, 1]^(C−1) and q = 0 for Weston–Watkins; {α ≥ 0, Σα ≤ 1} and q = 0 for Crammer–Singer; {α ≥ 0} and
q(s) = s²/4 for Crammer–Singer squared. Less ½μ·Σ_k α_k² the largest value is taken at one α only, which is the
gradient in the leads and moves no faster than 1/μ. Then ℓ_μ ≤ ℓ, their conjugates differ by that same ½μ·Σα², and a
dual point of the one is a dual point of the other.

Source: Nesterov (2005), "Smooth minimization of non-smooth functions".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kullback.losses import CrammerSinger, Loss, WestonWatkins
from kullback.losses.base import Float
from kullback.losses.user_loss import UserLoss

Family = Literal["weston_watkins", "crammer_singer", "squared_crammer_singer"]


@dataclass(frozen=True)
class SmoothedHinge(UserLoss):
    """A hinge, rounded off.

    Args:
        ignore_index: class index of rows that do not count, or None.
        class_weight: (C,) costs, or None for all ones.
        margin: Δ > 0.
        family: which hinge.
        smoothness: μ > 0.
    """

    name: ClassVar[str] = "smoothed_hinge"
    link: ClassVar[str] = "none"

    class_weight: tuple[float, ...] | None = None
    margin: float = 1.0
    family: Family = "weston_watkins"
    smoothness: float = 1.0

    @property
    def ignores_level(self) -> bool:
        """True, as of the hinge."""
        return True

    @property
    def convex(self) -> bool:
        """True: a largest value of linear functions."""
        return True

    def value(self, logits: Float, mass: Float) -> Float:
        """Losses (n,)."""
        total = np.zeros(len(logits))
        for rows, own, share in _classes_of(mass):
            leads, alpha, _ = self._pulls(logits[rows], own)
            cost = (alpha * np.where(alpha > 0, leads, 0.0)).sum(axis=1) - 0.5 * self.smoothness * np.square(alpha).sum(
                axis=1
            )
            if self.family == "squared_crammer_singer":
                cost -= np.square(alpha.sum(axis=1)) / 4
            total[rows] += share * cost
        return total

    def gradient(self, logits: Float, mass: Float) -> Float:
        """Gradients (n, C)."""
        total = np.zeros_like(logits)
        for rows, own, share in _classes_of(mass):
            _, alpha, _ = self._pulls(logits[rows], own)
            alpha *= share[:, None]
            alpha[np.arange(len(rows)), own] = -alpha.sum(axis=1)
            total[rows] += alpha
        return total

    def _products(self, x: Float, s: Float, v: Float) -> Float:
        total = np.zeros_like(x)
        for rows, own, share in _classes_of(s):
            _, _, free = self._pulls(x[rows], own)
            every = np.arange(len(rows))
            moved = np.where(free, v[rows] - v[rows, own][:, None], 0.0)
            count = free.sum(axis=1)
            together = moved.sum(axis=1) * self._coupling(x[rows], own, count)
            alpha = np.where(free, moved - together[:, None], 0.0) * (share / self.smoothness)[:, None]
            alpha[every, own] = -alpha.sum(axis=1)
            total[rows] += alpha
        return total

    def _diagonals(self, x: Float, s: Float) -> Float:
        total = np.zeros_like(x)
        for rows, own, share in _classes_of(s):
            _, _, free = self._pulls(x[rows], own)
            count = free.sum(axis=1)
            coupling = self._coupling(x[rows], own, count)
            diagonal = np.where(free, 1.0 - coupling[:, None], 0.0)
            diagonal[np.arange(len(rows)), own] = count - coupling * count**2
            total[rows] += diagonal * (share / self.smoothness)[:, None]
        return total

    def _pulls(self, logits: Float, own: NDArray[np.int64]) -> tuple[Float, Float, NDArray[np.bool_]]:
        """The leads, the α of each, and which of them move with their lead, (n, C)."""
        every, mu = np.arange(len(own)), self.smoothness
        leads = self.margin + logits - logits[every, own][:, None]
        leads[every, own] = -np.inf
        if self.family == "weston_watkins":
            alpha = np.clip(leads / mu, 0.0, 1.0)
            return leads, alpha, (leads > 0) & (leads < mu)
        alpha = np.maximum(leads - self._threshold(leads)[:, None], 0.0) / mu
        return leads, alpha, alpha > 0

    def _threshold(self, leads: Float) -> Float:
        """τ with α = max(0, m − τ)/μ: what all α share."""
        mu = self.smoothness
        ordered = -np.sort(-leads, axis=1)[:, :-1]
        sums, count = np.cumsum(ordered, axis=1), np.arange(1, ordered.shape[1] + 1)
        if self.family == "squared_crammer_singer":
            level = sums / (2 * mu + count)
        else:
            level = (sums - mu) / count
        last = np.maximum((ordered > level).sum(axis=1) - 1, 0)
        return np.asarray(np.maximum(level[np.arange(len(leads)), last], 0.0), dtype=np.float64)

    def _coupling(self, logits: Float, own: NDArray[np.int64], count: NDArray[np.int64]) -> Float:
        """How much each lead that moves pulls on the α of the others, (n,)."""
        if self.family == "weston_watkins":
            return np.zeros(len(own))
        if self.family == "squared_crammer_singer":
            return np.asarray(1.0 / (2 * self.smoothness + count), dtype=np.float64)
        every = np.arange(len(own))
        leads = self.margin + logits - logits[every, own][:, None]
        leads[every, own] = -np.inf
        full = self._threshold(leads) > 0
        return np.where(full, 1.0 / np.maximum(count, 1), 0.0)


def _classes_of(mass: Float) -> list[tuple[NDArray[np.int64], NDArray[np.int64], Float]]:
    """Rows, one of the classes that each holds, and the mass there, in parts that hold every row at most once."""
    held = mass > 0
    place = np.cumsum(held, axis=1)
    parts = []
    for number in range(1, int(place[:, -1].max(initial=0)) + 1):
        rows, own = np.nonzero(held & (place == number))
        parts.append((rows, own, mass[rows, own]))
    return parts


@dataclass(frozen=True)
class Rounding(SmoothedHinge):
    """½μ·Σα², by which the conjugate of a rounded-off hinge lies above that of the hinge itself."""

    name: ClassVar[str] = "rounding"

    @classmethod
    def of(cls, hinge: SmoothedHinge) -> Rounding:
        """That of a rounded-off hinge."""
        return cls(**{field.name: getattr(hinge, field.name) for field in fields(hinge)})

    def value(self, logits: Float, mass: Float) -> Float:
        """(n,) of logits (n, C) and target mass (n, C)."""
        total = np.zeros(len(logits))
        for rows, own, share in _classes_of(mass):
            total[rows] += share * 0.5 * self.smoothness * np.square(self._pulls(logits[rows], own)[1]).sum(axis=1)
        return total


def rounded_off(loss: Loss) -> SmoothedHinge | None:
    """The hinge with its kinks rounded off; None for a loss that is no hinge, or has no kinks."""
    family: Family
    if isinstance(loss, WestonWatkins) and not loss.squared:
        family = "weston_watkins"
    elif isinstance(loss, CrammerSinger):
        family = "squared_crammer_singer" if loss.squared else "crammer_singer"
    else:
        return None
    return SmoothedHinge(
        ignore_index=loss.ignore_index, class_weight=loss.class_weight, margin=loss.margin, family=family
    )
