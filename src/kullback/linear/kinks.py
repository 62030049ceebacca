"""Losses with kinks, by themselves or in a weighted sum, with their kinks rounded off.

A loss with kinks is a largest value, ℓ(z) = max over α in a convex set of ⟨α, Az + c⟩ − q(α). Less ½μ·Σα² it has
none, and its conjugate at the same dual point lies higher by that ½μ·Σα² (see `smoothed_hinge`). In a sum the conjugate
is the least Σ_k a_k·ℓ_k*(α_k) over all ways to split the dual point into Σ_k a_k·α_k, so any split bounds it, that into
the terms' own gradients among them. The smooth terms then lose nothing, and each of the others gains its
a_k·½μ·Σα_k².

Source: Nesterov (2005), "Smooth minimization of non-smooth functions".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from kullback.kernels.recipe import Recipe
from kullback.linear.smoothed_hinge import Rounding, rounded_off
from kullback.losses import LogitL1, Loss, WeightedSum, WestonWatkins
from kullback.losses.base import Float


@dataclass(frozen=True)
class RoundedAbsolute(LogitL1):
    """Σ_k |z_k| with the kinks rounded off: z²/2μ up to μ (Huber's function).

    Args:
        target_form: as of the penalty.
        ignore_index: as of the penalty.
        smoothness: μ > 0.
    """

    name: ClassVar[str] = "rounded_absolute"

    smoothness: float = 1.0

    def _kernel_recipe(self, n_classes: int) -> Recipe | None:
        return None

    def _pulls(self, x: Float) -> Float:
        """The α of each logit."""
        return np.clip(np.where(np.isneginf(x), 0.0, x) / self.smoothness, -1.0, 1.0)

    def _cost(self, x: Float) -> Float:
        alpha = self._pulls(x)
        return np.asarray((alpha * (np.where(alpha == 0, 0.0, x) - 0.5 * self.smoothness * alpha)).sum(axis=1))

    def _slope(self, x: Float) -> Float:
        return self._pulls(x)

    def _bend(self, x: Float, v: Float) -> Float:
        return np.asarray(self._own_bend(x) * v)

    def _own_bend(self, x: Float) -> Float:
        return np.where(np.abs(x) < self.smoothness, 1.0 / self.smoothness, 0.0)


@dataclass(frozen=True)
class AbsoluteRounding(RoundedAbsolute):
    """½μ·Σα², by which the conjugate of a `RoundedAbsolute` lies above that of the penalty itself."""

    name: ClassVar[str] = "absolute_rounding"

    def _cost(self, x: Float) -> Float:
        return np.asarray(0.5 * self.smoothness * np.square(self._pulls(x)).sum(axis=1))


def has_kinks(loss: Loss) -> bool:
    """Whether a convex loss of the catalogue, or a sum, has kinks.

    >>> from kullback import CrossEntropy, WestonWatkins
    >>> has_kinks(0.7 * CrossEntropy() + 0.3 * WestonWatkins()), has_kinks(WestonWatkins(squared=True))
    (True, False)
    """
    return without_kinks(loss, 1.0) is not None


def bends_suddenly(loss: Loss) -> bool:
    """Whether the slope of a loss has kinks, or that of a sum: a squared hinge bends on one side of its margin only.

    >>> from kullback import WestonWatkins
    >>> bends_suddenly(WestonWatkins(squared=True))
    True
    """
    if isinstance(loss, WeightedSum):
        return any(bends_suddenly(term) for _, term in loss.terms)
    return isinstance(loss, WestonWatkins) and loss.squared


def without_kinks(loss: Loss, smoothness: float) -> tuple[Loss, Loss] | None:
    """The loss with its kinks rounded off, and what the conjugate of the loss itself is lower by; None without kinks.

    Args:
        loss: a loss, or a sum.
        smoothness: μ > 0, in margins of a hinge.
    """
    if isinstance(loss, WeightedSum):
        if not loss.convex:
            return None
        smooth: list[tuple[float, Loss]] = []
        worth: list[tuple[float, Loss]] = []
        for factor, term in loss.terms:
            found = without_kinks(term, smoothness)
            smooth.append((factor, term if found is None else found[0]))
            if found is not None:
                worth.append((factor, found[1]))
        return (replace(loss, terms=tuple(smooth)), WeightedSum(tuple(worth))) if worth else None
    if isinstance(loss, LogitL1):
        settings: dict[str, Any] = {
            "target_form": loss.target_form,
            "ignore_index": loss.ignore_index,
            "smoothness": smoothness,
        }
        return RoundedAbsolute(**settings), AbsoluteRounding(**settings)
    hinge = rounded_off(loss)
    if hinge is None:
        return None
    hinge = replace(hinge, smoothness=smoothness * hinge.margin)
    return hinge, Rounding.of(hinge)
