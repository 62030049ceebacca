"""LDAM: cross-entropy with a larger margin for rarer classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.elicitation import falling_root, log_complement, log_sum
from kullback.losses.priors import check_priors, warn_without_counts
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class Ldam(SoftmaxLoss):
    """Cross-entropy with Δ_y taken off the true class' logit: −log softmax((z − Δ_y·e_y) / T)_y, in nats.

    The label-distribution-aware margin Δ_k ∝ n_k^(−1/4) asks more of rare classes (Cao et al., 2019, "Learning
    imbalanced datasets with label-distribution-aware margin loss", eq. 13). There logits are cosines and multiplied
    by 30, hence the default temperature of 1/30.

    Margins make its minimiser more confident than the truth; `recover` undoes that, p ∝ q·(1 − q + q·e^(−Δ/T)).

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        class_counts: (C,) counts or shares in the training data, all above 0; None for equal ones.
        max_margin: Δ ≥ 0 of the rarest class.

    >>> loss = Ldam(temperature=1, class_counts=[16, 1], max_margin=1)
    >>> round(loss([[0.5, 0.0]], [0]), 4)  # Δ = (0.5, 1)
    0.6931
    """

    name: ClassVar[str] = "ldam"
    family: ClassVar[str] = "ldam"

    temperature: float = 1 / 30
    class_counts: tuple[float, ...] | None = None
    max_margin: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("class_counts", check_priors("class_counts", self.class_counts))
        if self.class_counts is None and self.max_margin > 0:
            warn_without_counts(self.name, "every class gets the same margin")
        self._set("max_margin", base.check_at_least("max_margin", self.max_margin, 0))

    def margins(self, n_classes: int) -> Float:
        """Δ (C,), in units of the logits."""
        counts = base.per_class("class_counts", self.class_counts, n_classes)
        if counts is None:
            return np.full(n_classes, self.max_margin)
        return np.asarray(self.max_margin * (counts / counts.min()) ** -0.25)

    def _shift(self, n_classes: int) -> Float:
        return self.margins(n_classes) / self.temperature

    @property
    def truthful(self) -> bool:  # type: ignore[override]
        """Only without margins."""
        return self.max_margin == 0

    @property
    def convex(self) -> bool:
        """True: a log-sum-exp of shifted logits."""
        return True

    def _log_steepness(self, log_q: Float, log_miss: Float) -> Float:
        """h = 1/(q·((1 − q) + q·e^(−Δ/T)))."""
        return np.asarray(-log_q - np.logaddexp(log_miss, log_q - self._shift(log_q.shape[1])))

    def _best_scores(self, s: Float) -> Float:
        """Solve s_k·ν = q_k·(1 − A_k·q_k) for q, A = 1 − e^(−Δ/T), and ν so that the q_k sum to one; log q (N, C).

        Each equation has a lower root, rising with ν, and an upper one above ½, which at most one class can take:
        the one whose lower root would leave the reals first. There the unknown is log(1 − q) of that class, elsewhere
        ν itself; both are found to the last bit.
        """
        if self.max_margin == 0 or s.shape[1] < 2:
            return super()._best_scores(s)
        shift = self._shift(s.shape[1])
        bend = np.maximum(-np.expm1(-shift), 1e-300)

        def lower(nu: Float) -> Float:
            return np.asarray(2 * s * nu / (1 + np.sqrt(np.maximum(1 - 4 * bend * s * nu, 0.0))))

        with np.errstate(divide="ignore"):
            log_s, limit = np.log(s), 1 / (4 * bend * s)
        first = np.argmin(limit, axis=1)[:, None]
        own = np.arange(s.shape[1]) == first
        end = np.minimum(np.take_along_axis(limit, first, 1), 1e300)
        turns = lower(end).sum(axis=1, keepdims=True) < 1
        low, high = np.zeros_like(end), np.minimum(end, 2.0)
        for _ in range(200):
            nu = 0.5 * (low + high)
            above = lower(nu).sum(axis=1, keepdims=True) > 1
            low, high = np.where(above, low, nu), np.where(above, nu, high)
        with np.errstate(divide="ignore"):
            log_q = np.log(lower(low))

        def others(x: Float) -> Float:
            """log q of the rest where the first class takes its upper root, x = log(1 − q)."""
            top = log_complement(x)
            log_nu = top + np.logaddexp(x, top - shift[first]) - np.take_along_axis(log_s, first, 1)
            ratio = np.sqrt(np.maximum(1 - 4 * bend * np.exp(log_s + log_nu), 0.0))
            return np.where(own, -np.inf, math.log(2) + log_s + log_nu - np.log1p(ratio))

        alone = (s > 0).sum(axis=1, keepdims=True) < 2
        solved = turns & ~alone
        start = np.log1p(-1 / (2 * np.where(solved, bend[first], 1.0)))
        x = falling_root(lambda x: np.where(solved, log_sum(others(x)) - x, 0.0), start)
        upper = np.where(own, np.where(alone, 0.0, log_complement(x)), others(x))
        return np.where(turns, upper, log_q)
