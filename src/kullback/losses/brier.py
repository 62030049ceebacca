"""The Brier score of a softmax: squared error of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class Brier(SoftmaxLoss):
    """Σ_k (p_k − y_k)², the squared error of softmax probabilities, summed over the classes (Brier, 1950).

    It is C times what "MSE" on probabilities reports, which takes the mean over the classes too. A soft target t
    costs what its classes cost on average, Σ_k (p_k − t_k)² + 1 − Σ_k t_k²: the second part is a constant.

    Proper like cross-entropy, but bounded: at a confident mistake p_y → 0 its gradient vanishes with p_y, so such an
    example is hardly learnt from at all.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

    >>> Brier()([[0.0, 0.0]], [0])
    0.5
    """

    name: ClassVar[str] = "brier"
    family: ClassVar[str] = "brier"
    truthful: ClassVar[bool] = True
    row_ceiling: ClassVar[float | None] = 2.0

    @property
    def convex(self) -> bool:
        """False: convex in p, but not in the logits."""
        return False
