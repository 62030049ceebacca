"""The focal loss over mutually exclusive classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class Focal(SoftmaxLoss):
    """Softmax focal loss: −(1 − p_y)^γ·log p_y, in nats; γ = 0 is cross-entropy.

    It turns down the examples that are already right (Lin et al., 2017, "Focal loss for dense object detection",
    eq. 4, there for a sigmoid: see `SigmoidFocal`). The weights' place matters: w·(1 − p)^γ·log p, never
    (1 − p^w)^γ as one gets by raising a weighted cross-entropy to a power.

    Its minimiser is less confident than the truth; `recover` undoes that in closed form,
    p ∝ q/((1 − q)^γ − γ·(1 − q)^(γ−1)·q·log q) (Charoenphakdee et al., 2021, "On focal loss for class-posterior
    probability estimation", theorem 11).

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        gamma: γ in [0, 100].

    >>> loss = Focal(gamma=2)
    >>> round(loss([[1.0, 0.0]], [0]), 4)
    0.0227
    >>> loss.recover(loss.elicited([0.9, 0.1]))
    array([0.9, 0.1])
    """

    name: ClassVar[str] = "focal"
    family: ClassVar[str] = "focal"
    scalars: ClassVar[tuple[str, ...]] = ("gamma",)

    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("gamma", base.check_between("gamma", self.gamma, 0, 100))

    @property
    def truthful(self) -> bool:  # type: ignore[override]
        """Only without focus is the truth its minimiser."""
        return self.gamma == 0

    @property
    def convex(self) -> bool:
        """Only without focus: a hopeless example is turned down too, which bends the loss the other way."""
        return self.gamma == 0

    def _log_steepness(self, log_q: Float, log_miss: Float) -> Float:
        """h = (1 − q)^(γ−1)·((1 − q)/q − γ·log q)."""
        if self.gamma == 0:
            return -log_q
        with np.errstate(divide="ignore"):
            return np.asarray(
                (self.gamma - 1) * log_miss + np.logaddexp(log_miss - log_q, np.log(self.gamma) + np.log(-log_q))
            )
