"""The negative log-likelihood of log-probabilities that somebody else computed."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import KullbackWarning
from kullback.kernels.recipe import Evaluation, PlainRecipe
from kullback.losses import base
from kullback.losses.base import Array, Float
from kullback.losses.block_loss import BlockLoss
from kullback.losses.cross_entropy import CrossEntropy
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.targets import Targets, counted_rows

_ROUNDING = 2e-3  # above 0, what rounding may do to the log-probability of a certainty, in half precision even


class NotLogProbabilitiesWarning(KullbackWarning):
    """What a loss of log-probabilities is given is above 0: logits, most likely."""


@dataclass(frozen=True)
class NegativeLogLikelihood(BlockLoss):
    """−Σ_k s_k·x_k for inputs x that are log-probabilities already, in nats.

    PyTorch's ``nll_loss``. With logits use `CrossEntropy`, which is exact where a log of a rounded probability is
    not; this is for models that end in a log-softmax. The gradient is −s in x, whatever x: it is the model's own
    log-softmax that turns it into p·Σs − s.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        ignore_index: class index of rows that do not count, or None.

    Warns:
        NotLogProbabilitiesWarning: where inputs among the first 131072 are above 0 by more than rounding.

    >>> import numpy as np
    >>> round(NegativeLogLikelihood()(np.log([[0.25, 0.75]]), [0]), 4)  # log 4
    1.3863
    """

    name: ClassVar[str] = "negative_log_likelihood"
    link: ClassVar[str] = "log"

    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        same = self._cross_entropy()
        for name in ("class_weight", "label_smoothing", "ignore_index"):
            object.__setattr__(self, name, getattr(same, name))

    def _cross_entropy(self) -> CrossEntropy:
        """The loss of the same meaning on logits."""
        return CrossEntropy(
            class_weight=self.class_weight, label_smoothing=self.label_smoothing, ignore_index=self.ignore_index
        )

    @property
    def convex(self) -> bool:
        """True: linear in the log-probabilities."""
        return True

    @property
    def proper(self) -> bool:
        """Among log-probabilities, True unless smoothing or unequal class weights move the minimiser."""
        return self._cross_entropy().proper

    @property
    def bounded_gradient(self) -> bool:
        """True: the gradient is −s."""
        return True

    @property
    def ceiling(self) -> float:
        """Infinity: a confident mistake costs without limit."""
        return math.inf

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal probabilities: log C."""
        return self._cross_entropy().initial_value(n_classes)

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
        """The lowest loss that log-probabilities could reach, as for `CrossEntropy`; other numbers go below it."""
        return self._cross_entropy().floor(
            targets,
            n_classes=n_classes,
            sample_weight=sample_weight,
            reduction=reduction,
            denominator=denominator,
            empty=empty,
        )

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """The log-probabilities (C,) of the best model without features."""
        return self._cross_entropy().best_constant(targets, n_classes=n_classes, sample_weight=sample_weight)

    def elicited(self, p: ArrayLike) -> Float:
        """As for `CrossEntropy`: q_k ∝ w_k·((1 − ε)·p_k + ε/C)."""
        return self._cross_entropy().elicited(p)

    def recover(self, q: ArrayLike) -> Float:
        """As for `CrossEntropy`."""
        return self._cross_entropy().recover(q)

    def recover_log(self, log_q: ArrayLike) -> Float:
        """As for `CrossEntropy`."""
        return self._cross_entropy().recover_log(log_q)

    def probabilities(self, logits: ArrayLike) -> Array:
        """exp of the inputs, (N, C)."""
        return np.asarray(np.exp(base.as_logits(logits)))

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """The inputs, (N, C)."""
        return base.as_logits(logits).copy()

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest log-probability, (N,); the first of equals."""
        return np.asarray(np.argmax(base.as_logits(logits), axis=1))

    def _kernel_recipe(self, n_classes: int) -> PlainRecipe:
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        return PlainRecipe(self.name, (), self.label_smoothing, weight)

    def _evaluate(
        self,
        logits: Array,
        targets: Any,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation:
        seen = slice(0, max(1, base.BLOCK_ELEMENTS // max(1, logits.shape[1])))  # logits show in any of a batch' rows
        counts = counted_rows(targets[seen], None if row_weight is None else row_weight[seen], self.ignore_index)
        highest = logits[seen].max(axis=1, initial=-math.inf)
        over = counts & (highest > _ROUNDING) & (highest < math.inf)
        if over.any():
            row = int(np.argmax(over))
            warnings.warn(
                f"row {row} holds {highest[row]:.4g}, and {int(over.sum())} of the first {len(over)} rows one "
                "above 0: they are no log-probabilities. Use CrossEntropy for logits",
                NotLogProbabilitiesWarning,
                stacklevel=4,
            )
        return super()._evaluate(
            logits, targets, row_weight=row_weight, scale=scale, per_example=per_example, gradient=gradient
        )

    def _effective(self, mass: Float) -> Float:
        return self._cross_entropy()._effective(mass)

    def _values(self, x: Float, s: Float) -> Float:
        return np.asarray(-np.where(s > 0, s * np.where(s > 0, x, 0.0), 0.0).sum(axis=1))

    def _gradients(self, x: Float, s: Float) -> Float:
        return -s

    def _products(self, x: Float, s: Float, v: Float) -> Float:
        return np.zeros_like(x)

    def _diagonals(self, x: Float, s: Float) -> Float:
        return np.zeros_like(x)
