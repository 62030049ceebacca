"""The "full" cross-entropy formula on softmax outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class OneVsRest(SoftmaxLoss):
    """−Σ_k [t_k·log p_k + (1 − t_k)·log(1 − p_k)] on softmax probabilities, in nats.

    The formula of binary cross-entropy, applied to mutually exclusive classes. Unlike cross-entropy it distinguishes
    how the rest is spread over the other classes: (0.4, 0.6, 0, 0) costs more than (0.4, 0.2, 0.2, 0.2). It is
    proper: a sum of proper losses of each class against the rest.

    Args:
        class_weight: (C,) costs, or None for all ones. They weigh rows by their true class.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

    >>> import numpy as np
    >>> loss = OneVsRest()
    >>> even, one_sided = np.log([[0.4, 0.2, 0.2, 0.2]]), np.log([[0.4, 0.4, 0.1, 0.1]])
    >>> round(loss(even, [0]), 4), round(loss(one_sided, [0]), 4)
    (1.5857, 1.6378)
    """

    name: ClassVar[str] = "one_vs_rest"
    family: ClassVar[str] = "one_vs_rest"
    truthful: ClassVar[bool] = True
    row_ceiling: ClassVar[float | None] = float("inf")

    @property
    def convex(self) -> bool:
        """False for three classes and more: log(1 − p_k) is not concave in the logits."""
        return False
