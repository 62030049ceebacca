"""The Brier score of each label: squared error of sigmoid probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses.sigmoid_loss import SigmoidLoss


@dataclass(frozen=True)
class SigmoidBrier(SigmoidLoss):
    """(p − t)² per label, with p = sigmoid(logits / T): what "MSE" after a sigmoid reports for 0/1 labels.

    A soft label t costs t·(1 − p)² + (1 − t)·p² = (p − t)² + t·(1 − t): the second part is a constant. Proper, but
    its gradient vanishes at confident mistakes.

    Args:
        positive_weight: (C,) π, above 0, or None for all ones.
        class_weight: (C,) weight of each label, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: entries with this value do not count, or None.
        label_reduction: ``"mean"`` or ``"sum"`` over a row's labels.

    >>> SigmoidBrier()([[0.0, 0.0]], [[1, 0]])
    0.25
    """

    name: ClassVar[str] = "sigmoid_brier"
    family: ClassVar[str] = "sigmoid_brier"
    truthful: ClassVar[bool] = True
    label_ceiling: ClassVar[float] = 1.0

    @property
    def convex(self) -> bool:
        """False: convex in p, but not in the logits."""
        return False
