"""Poly-1: cross-entropy with another weight on its first polynomial term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class Poly(SoftmaxLoss):
    """Poly-1: −log p_y + ε₁·(1 − p_y) (Leng et al., 2022, "PolyLoss", eq. 6), in nats.

    Cross-entropy is Σ_j (1 − p_y)^j / j; this changes the coefficient of its first term, the one that still pulls
    when a row is nearly right. Its minimiser is more confident than the truth for ε₁ > 0 and less for ε₁ < 0;
    `recover` undoes that, p ∝ q/(1 + ε₁·q).

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        epsilon: ε₁ ≥ −1; 0 is cross-entropy.

    >>> round(Poly(epsilon=1)([[0.0, 0.0]], [0]), 4)  # log 2 + 1/2
    1.1931
    """

    name: ClassVar[str] = "poly"
    family: ClassVar[str] = "poly"
    scalars: ClassVar[tuple[str, ...]] = ("epsilon",)

    epsilon: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("epsilon", base.check_at_least("epsilon", self.epsilon, -1))

    @property
    def truthful(self) -> bool:  # type: ignore[override]
        """Only without the extra term."""
        return self.epsilon == 0

    @property
    def convex(self) -> bool:
        """Up to ε₁ = 1: beyond, the bounded term outweighs the log far out."""
        return self.epsilon <= 1

    def _log_steepness(self, log_q: Float, log_miss: Float) -> Float:
        """h = 1/q + ε₁ = ((1 − q) + (1 + ε₁)·q)/q, a sum that nothing cancels in."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp(log_miss, np.log1p(self.epsilon) + log_q) - log_q)
