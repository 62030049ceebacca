"""Balanced softmax: cross-entropy that knows how often the classes occur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.priors import check_priors, log_shares, warn_without_counts
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class BalancedSoftmax(SoftmaxLoss):
    """Cross-entropy of softmax(logits / T + log n), n the class counts (Ren et al., 2020, "Balanced meta-softmax").

    The same as ``CrossEntropy(priors=n)`` (logit adjustment with τ = 1). What it reports leaves the counts out: the
    model's own logits are those of equally frequent classes, and so are its decisions. `recover` puts the counts
    back.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        class_counts: (C,) counts or shares in the training data, all above 0; None for equal ones.

    >>> loss = BalancedSoftmax(class_counts=[90, 10])
    >>> loss.elicited([0.9, 0.1])
    array([0.5, 0.5])
    """

    name: ClassVar[str] = "balanced_softmax"
    family: ClassVar[str] = "cross_entropy"
    truthful: ClassVar[bool] = True

    class_counts: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("class_counts", check_priors("class_counts", self.class_counts))
        if self.class_counts is None:
            warn_without_counts(self.name, "it is plain cross-entropy")

    def _offset(self, n_classes: int) -> Float | None:
        counts = base.per_class("class_counts", self.class_counts, n_classes)
        return None if counts is None else log_shares(counts)

    @property
    def convex(self) -> bool:
        """True: cross-entropy of shifted logits."""
        return True

    @property
    def proper(self) -> bool:
        """True only for equal counts, without smoothing and weights."""
        return super().proper and len(set(self.class_counts or ())) <= 1

    @property
    def ceiling(self) -> float:
        """Infinity: a confident mistake costs without limit."""
        return math.inf
