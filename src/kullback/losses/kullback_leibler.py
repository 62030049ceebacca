"""Kullback–Leibler divergence of the softmax from the target distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kullback.kernels.recipe import SoftmaxRecipe
from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.losses.softmax_loss import SoftmaxLoss
from kullback.targets import Targets


@dataclass(frozen=True)
class KullbackLeibler(SoftmaxLoss):
    """KL(s ‖ p) = Σ_k s_k·log(s_k / (Σs·p_k)) with p = softmax(logits / T), in nats (Kullback & Leibler, 1951).

    Cross-entropy less the entropy of the target, which no model can change: the same gradient, and zero exactly where
    p is the target. For class indices without smoothing it is cross-entropy. Of all losses here it alone is not
    linear in the target: the entropy is that of the row as it is given.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

    >>> import numpy as np
    >>> round(KullbackLeibler()(np.log([[0.5, 0.5]]), [[0.75, 0.25]]), 4)
    0.1308
    """

    name: ClassVar[str] = "kullback_leibler"
    family: ClassVar[str] = "cross_entropy"
    truthful: ClassVar[bool] = True

    @property
    def convex(self) -> bool:
        """True, as cross-entropy."""
        return True

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits on equally frequent class indices: log C less the entropy of smoothing."""
        n_classes = base.check_class_number(n_classes)
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        weight = np.ones(n_classes) if weight is None else weight
        spread = weight * self.label_smoothing / n_classes
        own = spread + weight * (1 - self.label_smoothing)
        # of the target of class y: −Σ_k s_k·log(s_k / S), whose terms differ from the spread's at y alone
        sums = spread.sum() - spread + own
        entropy = _x_log_x(sums) - (_x_log_x(spread).sum() - _x_log_x(spread) + _x_log_x(own))
        return math.log(n_classes) - float(entropy.sum() / weight.sum())

    def floor(
        self,
        targets: ArrayLike | Targets,
        *,
        n_classes: int | None = None,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> Any:
        """Zero, whatever the targets; arguments as for other losses."""
        return super().floor(
            targets,
            n_classes=n_classes,
            sample_weight=sample_weight,
            reduction=reduction,
            denominator=denominator,
            empty=empty,
        )

    def _lowest(self, s: Float) -> Float:
        return np.zeros(len(s))

    def _recipe(self, n_classes: int) -> SoftmaxRecipe:
        return replace(super()._recipe(n_classes), divergence=True)


def _x_log_x(x: Float) -> Float:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
