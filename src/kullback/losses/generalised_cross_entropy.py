"""Generalised cross-entropy: between cross-entropy and the mean absolute error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from kullback.losses import base
from kullback.losses.softmax_loss import SoftmaxLoss, no_probabilities


@dataclass(frozen=True)
class GeneralisedCrossEntropy(SoftmaxLoss):
    """(1 − p_y^q)/q: bounded, so that wrong labels cannot pull without end.

    As q → 0 it becomes cross-entropy, at q = 1 it is 1 − p_y, half the mean absolute error (Zhang & Sabuncu, 2018,
    "Generalized cross entropy loss for training deep neural networks with noisy labels", eq. 6).

    Its minimiser is more confident than the truth, q_k ∝ p_k^(1/(1−q)); `recover` undoes that. At q = 1 it reports
    nothing but the most likely class.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        q: in (0, 1].

    >>> loss = GeneralisedCrossEntropy(q=0.5)
    >>> loss.elicited([0.75, 0.25])
    array([0.9, 0.1])
    >>> loss.ceiling
    2.0
    """

    name: ClassVar[str] = "generalised_cross_entropy"
    family: ClassVar[str] = "generalised_cross_entropy"
    scalars: ClassVar[tuple[str, ...]] = ("q",)

    q: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("q", base.check_between("q", base.check_positive("q", self.q), 0, 1))

    def _best_scores(self, s: base.Float) -> base.Float:
        return base.sharpened(s, math.inf if self.q == 1 else 1 / (1 - self.q))

    def _check_elicits(self) -> None:
        if self.q == 1:
            raise no_probabilities(self, "at q = 1 its minimiser is the most likely class, whatever its probability")

    def _log_steepness(self, log_q: base.Float, log_miss: base.Float) -> base.Float:
        """h = q^(q−1) with the loss' own q in the exponent."""
        return (self.q - 1) * log_q
