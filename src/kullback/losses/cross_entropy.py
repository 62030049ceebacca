"""Cross-entropy over mutually exclusive classes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kullback.errors import InputError
from kullback.kernels.recipe import SoftmaxRecipe
from kullback.kernels.reference.softmax import softcap, softmax_odds
from kullback.losses import base
from kullback.losses.base import Array, Float
from kullback.losses.priors import check_priors, log_shares
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class CrossEntropy(SoftmaxLoss):
    """Softmax cross-entropy: −Σ_k s_k·log p_k with p = softmax(logits / T), in nats.

    The effective target is s_k = w_k·((1 − ε)·t_k + Σt·ε/C): class weights w multiply each class' term, and label
    smoothing ε spreads that share of the target evenly (Szegedy et al., 2016, "Rethinking the Inception
    Architecture", §7), both as in PyTorch. The gradient is (p·Σs − s)/T, for one-hot targets p − y: the true class
    is pulled up and every other class pushed down in proportion to its own probability.

    Its minimiser reports q_k ∝ w_k·((1 − ε)·p_k + ε/C) when the truth is p; `recover` undoes that.

    Three options of large and of imbalanced models:

    - `priors` π trains on p ∝ π^τ·softmax (Menon et al., 2021, "Long-tail learning via logit adjustment", eq. 10).
      What is reported leaves the priors out, so decisions are those for equally frequent classes; `recover` puts
      them back.
    - `softcap` c replaces each logit by c·tanh(logit / c), in training and in what is reported, so that none leaves
      (−c, c). A logit of −inf still masks its class. A truth more extreme than the cap allows is reported clipped.
    - `z_loss` λ adds λ·Σs·(log Σexp)², which holds the logits' common level near 0 (Chowdhery et al., 2022, "PaLM",
      §5) and does not move the minimiser.

    Args:
        class_weight: (C,) costs, finite and non-negative, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.
        priors: (C,) class shares or counts, all above 0, or None.
        adjustment: τ, the power of the priors; only with `priors`.
        softcap: c > 0, or None.
        z_loss: λ ≥ 0.

    Raises:
        InputError: for a setting outside its range.

    >>> import numpy as np
    >>> loss = CrossEntropy()
    >>> round(loss(np.array([[2.0, 0.0, 0.0]]), [0]), 4)
    0.2395
    >>> round(loss.initial_value(3), 4)  # log 3
    1.0986
    >>> str(CrossEntropy(label_smoothing=0.1))
    'cross_entropy(label_smoothing=0.1)'
    >>> CrossEntropy(priors=[9, 1]).recover([0.5, 0.5])
    array([0.9, 0.1])
    """

    name: ClassVar[str] = "cross_entropy"
    family: ClassVar[str] = "cross_entropy"
    truthful: ClassVar[bool] = True

    priors: tuple[float, ...] | None = None
    adjustment: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("priors", check_priors("priors", self.priors))
        self._set("adjustment", base.check_positive("adjustment", self.adjustment))
        if self.priors is None and self.adjustment != 1:
            raise InputError(f"adjustment={self.adjustment} has nothing to act on; give priors= as well")
        if self.softcap is not None:
            self._set("softcap", base.check_positive("softcap", self.softcap))
        self._set("z_loss", base.check_at_least("z_loss", self.z_loss, 0))

    @property
    def convex(self) -> bool:
        """True, log-sum-exp being convex, unless a softcap or a z-loss bends it."""
        return self.softcap is None and self.z_loss == 0

    @property
    def ignores_level(self) -> bool:
        """False with a softcap or a z-loss, which hold the level of the logits."""
        return self.softcap is None and self.z_loss == 0

    @property
    def proper(self) -> bool:
        """True unless smoothing, unequal class weights, unequal priors or a softcap move the minimiser."""
        return super().proper and self.softcap is None and len(set(self.priors or ())) <= 1

    @property
    def bounded_gradient(self) -> bool:
        """True, no component exceeding Σs/T, unless a z-loss pulls on the level without limit."""
        return self.z_loss == 0

    @property
    def ceiling(self) -> float:
        """Infinity: a confident mistake costs without limit (a softcap sets one, which depends on C)."""
        return math.inf

    def probabilities(self, logits: ArrayLike) -> Array:
        """softmax(logits / T) of the capped logits, (N, C): what the model reports, priors left out."""
        return super().probabilities(self._capped(logits))

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """log softmax(logits / T) of the capped logits, (N, C)."""
        return super().log_probabilities(self._capped(logits))

    def elicited(self, p: ArrayLike) -> Float:
        """q_k ∝ w_k·((1 − ε)·p_k + ε/C) / π_k^τ, as far as a softcap allows, (C,) or (N, C)."""
        return super().elicited(p)

    def _reports_target(self, n_classes: int) -> bool:
        return self.softcap is None and super()._reports_target(n_classes)

    def _capped(self, logits: ArrayLike) -> ArrayLike:
        if self.softcap is None:
            return logits
        array = base.as_logits(logits)
        return softcap(array.astype(np.float64), self.softcap)[0].astype(array.dtype)

    def _offset(self, n_classes: int) -> Float | None:
        shares = base.per_class("priors", self.priors, n_classes)
        return None if shares is None else self.adjustment * log_shares(shares)

    def _recipe(self, n_classes: int) -> SoftmaxRecipe:
        return dataclasses.replace(super()._recipe(n_classes), softcap=self.softcap, z_loss=self.z_loss)

    def _best_scores(self, s: Float) -> Float:
        if self.softcap is None:
            return super()._best_scores(s)
        offset = self._offset(s.shape[1])
        middle = np.zeros(s.shape[1]) if offset is None else offset
        reach = self.softcap / self.temperature
        return _boxed_scores(s, middle - reach, middle + reach, self.z_loss)

    def _logits(self, scores: Float) -> Float:
        return self._uncapped(super()._logits(scores))

    def _logits_reporting(self, log_q: Float) -> Float:
        logits = super()._logits_reporting(log_q)
        if self.softcap is not None:  # centred, so that a cap on both sides leaves most room
            finite = np.where(np.isfinite(logits), logits, np.nan)
            logits = logits - 0.5 * (np.nanmax(finite, axis=1) + np.nanmin(finite, axis=1))[:, None]
        return self._uncapped(logits)

    def _uncapped(self, logits: Float) -> Float:
        if self.softcap is None:
            return logits
        with np.errstate(divide="ignore"):  # the cap is at infinity; 20 caps away tanh is 1 to the last bit
            uncapped = self.softcap * np.arctanh(np.clip(logits / self.softcap, -1, 1))
        return np.clip(uncapped, -20 * self.softcap, 20 * self.softcap)


def _boxed_scores(s: Float, low: Float, high: Float, z_loss: float) -> Float:
    """Scores u (N, C) between `low` and `high` that minimise −Σ s·u + log Σexp u + λ·(log Σexp u)², Σs = 1.

    Where neither bound holds, s = p·(1 + 2λL) with L = log Σexp u, so u = clip(log s + L − log(1 + 2λL)); L itself is
    found by bisection, the right side minus the left falling in L.
    """
    with np.errstate(divide="ignore"):
        log_s = np.log(s)

    def at(level: Float) -> Float:
        return np.clip(log_s + (level - np.log1p(2 * z_loss * level))[:, None], low, high)

    n_classes = s.shape[1]
    bottom = np.full(len(s), float(low.min()))
    if z_loss:
        bottom = np.maximum(bottom, -0.5 / z_loss * (1 - 1e-12))
    top = np.full(len(s), float(high.max()) + math.log(n_classes))
    for _ in range(100):
        middle = 0.5 * (bottom + top)
        above = softmax_odds(at(middle)).lse > middle
        bottom, top = np.where(above, middle, bottom), np.where(above, top, middle)
    return np.asarray(at(0.5 * (bottom + top)))
