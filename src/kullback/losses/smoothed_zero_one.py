"""The smoothed 0–1 loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from kullback.losses import base
from kullback.losses.softmax_loss import SoftmaxLoss, no_probabilities


@dataclass(frozen=True)
class SmoothedZeroOne(SoftmaxLoss):
    """1 − p_y with p = softmax(logits / T): the expected 0–1 loss of a prediction drawn from p.

    The inverse temperature β = 1/T sets how closely it follows the errors that are counted; as T → 0 it becomes the
    0–1 loss itself, with no slope left to learn from. It is half the mean absolute error between p and a one-hot
    target (Ghosh et al., 2017, "Robust loss functions under label noise for deep neural networks").

    Its minimiser is the most likely class, whatever its probability: there are no probabilities to recover.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits: 1/β.
        ignore_index: class index of rows that do not count, or None.

    >>> SmoothedZeroOne()([[0.0, 0.0, 0.0, 0.0]], [0])
    0.75
    """

    name: ClassVar[str] = "smoothed_zero_one"
    family: ClassVar[str] = "smoothed_zero_one"

    def _best_scores(self, s: base.Float) -> base.Float:
        return base.sharpened(s, math.inf)

    def _check_elicits(self) -> None:
        raise no_probabilities(self, "its minimiser is the most likely class, whatever its probability")
