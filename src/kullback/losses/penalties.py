"""Penalties on the scores themselves, to be added to a loss: ``CrossEntropy() + 0.01 * LogitL2()``.

They look at a row's logits and not at which class is true; only rows that count are penalised, in proportion to their
target mass, so that a sum of loss and penalty is as linear in its targets as the loss is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InputError
from kullback.kernels.recipe import PlainRecipe, Recipe, SigmoidRecipe
from kullback.kernels.reference.softmax import softmax_odds
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float
from kullback.losses.block_loss import BlockLoss
from kullback.losses.reduction import Denominator, Empty, Reduction, check_choice
from kullback.losses.softmax_loss import no_probabilities
from kullback.targets import LabelRows, Targets, as_class_targets, as_label_targets


@dataclass(frozen=True)
class Penalty(BlockLoss):
    """A function of a row's scores; targets only say which rows count.

    Args:
        target_form: ``"classes"`` or ``"labels"``: the form of the targets it goes with.
        ignore_index: class index of rows that do not count, or None.
    """

    link: ClassVar[str] = "none"

    target_form: Literal["classes", "labels"] = "classes"  # type: ignore[misc]
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        check_choice("target_form", self.target_form, Literal["classes", "labels"])
        object.__setattr__(self, "ignore_index", base.check_ignore_index(self.ignore_index))

    # ------------------------------------------------------------ what one penalty says

    @abstractmethod
    def _cost(self, x: Float) -> Float: ...

    @abstractmethod
    def _slope(self, x: Float) -> Float: ...

    @abstractmethod
    def _bend(self, x: Float, v: Float) -> Float: ...

    @abstractmethod
    def _own_bend(self, x: Float) -> Float: ...

    def _least(self, x: Float) -> Float:
        """The lowest costs (n,) of rows x (n, C) in which what is ignored is −inf."""
        return np.zeros(len(x))

    # ------------------------------------------------------------ what the loss is

    @property
    def convex(self) -> bool:
        """Whether the penalty is convex in the logits."""
        return True

    @property
    def proper(self) -> bool:
        """False: it does not look at the truth."""
        return False

    @property
    def bounded_gradient(self) -> bool:
        """Whether no score is pulled with unbounded force."""
        return True

    @property
    def ceiling(self) -> float:
        """The least upper bound of a row's penalty."""
        return math.inf

    def initial_value(self, n_classes: int) -> float:
        """The penalty of scores that are all 0."""
        n_classes = base.check_class_number(n_classes)
        return float(self._cost(np.zeros((1, n_classes)))[0])

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
        """The lowest penalty; arguments as for other losses."""
        wrapped = self._targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        counted = np.flatnonzero(base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index))
        losses = np.zeros(len(wrapped))
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // base.BLOCK_ELEMENTS):
            part = wrapped[rows]
            mass = np.asarray(part.rows if isinstance(part, LabelRows) else part.dense(n_classes), dtype=np.float64)
            ignored = isinstance(part, LabelRows) and self.ignore_index is not None and mass == self.ignore_index
            losses[rows] = self._mass_of(mass) * self._least(np.where(ignored, -math.inf, np.zeros(mass.shape)))
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """All scores 0.

        Raises:
            InputError: if no row counts, or `n_classes` is needed.
        """
        wrapped = self._targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, "sum")
        if not base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index).any():
            raise InputError("no row counts, so there is no best constant")
        return np.zeros(n_classes)

    def elicited(self, p: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the penalty does not look at the truth."""
        raise no_probabilities(self, "a penalty does not look at the truth")

    def recover(self, q: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the penalty does not look at the truth."""
        raise no_probabilities(self, "a penalty does not look at the truth")

    def recover_log(self, log_q: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the penalty does not look at the truth."""
        raise no_probabilities(self, "a penalty does not look at the truth")

    def probabilities(self, logits: ArrayLike) -> Array:
        """Raise NoProbabilitiesError: the penalty does not look at the truth."""
        raise no_probabilities(self, "a penalty does not look at the truth")

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """Raise NoProbabilitiesError: the penalty does not look at the truth."""
        raise no_probabilities(self, "a penalty does not look at the truth")

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest logit, (N,), or 1 where a label's logit is above 0, (N, C)."""
        array = base.as_logits(logits)
        return np.asarray(np.argmax(array, axis=1)) if self.target_form == "classes" else (array > 0).astype(np.int64)

    # ------------------------------------------------------------ blocks

    def _targets(self, targets: ArrayLike | Targets) -> Targets:
        return as_label_targets(targets) if self.target_form == "labels" else as_class_targets(targets)

    def _kernel_recipe(self, n_classes: int) -> Recipe | None:
        return PlainRecipe(self.name, (float(self.target_form == "labels"),))

    def _mass_of(self, mass: Float) -> Float:
        """What a row's penalty is multiplied by: its target mass; labels are a row of their own each."""
        return np.ones(len(mass)) if self.target_form == "labels" else mass.sum(axis=1)

    def _values(self, x: Float, s: Float) -> Float:
        return self._mass_of(s) * self._cost(x)

    def _gradients(self, x: Float, s: Float) -> Float:
        return self._mass_of(s)[:, None] * self._slope(x)

    def _products(self, x: Float, s: Float, v: Float) -> Float:
        return self._mass_of(s)[:, None] * self._bend(x, v)

    def _diagonals(self, x: Float, s: Float) -> Float:
        return self._mass_of(s)[:, None] * self._own_bend(x)


@dataclass(frozen=True)
class LogitL1(Penalty):
    """Σ_k |z_k|: pulls every score towards 0 with the same force. Masked scores (−inf) are left alone.

    Args:
        target_form: ``"classes"`` or ``"labels"``.
        ignore_index: class index of rows that do not count, or None.

    >>> LogitL1()([[3.0, -1.0]], [0])
    4.0
    """

    name: ClassVar[str] = "logit_l1"

    def _cost(self, x: Float) -> Float:
        return np.asarray(np.abs(_unmasked(x)).sum(axis=1))

    def _slope(self, x: Float) -> Float:
        return np.sign(_unmasked(x))

    def _bend(self, x: Float, v: Float) -> Float:
        return np.zeros_like(x)

    def _own_bend(self, x: Float) -> Float:
        return np.zeros_like(x)


@dataclass(frozen=True)
class LogitL2(Penalty):
    """½·Σ_k z_k²: pulls every score towards 0 in proportion to its size. Masked scores (−inf) are left alone.

    The logit penalty of Kornblith et al., 2021, "Why do better loss functions lead to less transferable features?".

    Args:
        target_form: ``"classes"`` or ``"labels"``.
        ignore_index: class index of rows that do not count, or None.

    >>> LogitL2()([[3.0, -1.0]], [0])
    5.0
    """

    name: ClassVar[str] = "logit_l2"

    @property
    def bounded_gradient(self) -> bool:
        """False: the pull grows with the score."""
        return False

    def _cost(self, x: Float) -> Float:
        return np.asarray(0.5 * (_unmasked(x) ** 2).sum(axis=1))

    def _slope(self, x: Float) -> Float:
        return _unmasked(x)

    def _bend(self, x: Float, v: Float) -> Float:
        return np.where(np.isneginf(x), 0.0, v)

    def _own_bend(self, x: Float) -> Float:
        return np.where(np.isneginf(x), 0.0, 1.0)


@dataclass(frozen=True)
class NegativeEntropy(Penalty):
    """Σ_k p_k·log p_k with p = softmax(z), in nats: added, it makes confidence cost (Pereyra et al., 2017).

    From −log C for equal scores to 0 for certainty. Subtracted (a negative factor) it rewards confidence, as in
    entropy minimisation.

    With labels p = σ(z) is a probability of its own for each, and the row's penalty is the sum over its labels of
    p·log p + (1 − p)·log(1 − p), from −C·log 2. Ignored labels and scores of ±inf add nothing.

    Args:
        target_form: ``"classes"`` or ``"labels"``.
        ignore_index: class index of rows that do not count, or None.

    >>> round(NegativeEntropy()([[0.0, 0.0]], [0]), 4)
    -0.6931
    >>> round(NegativeEntropy(target_form="labels")([[0.0, 0.0]], [[1, 0]]), 4)
    -1.3863
    """

    name: ClassVar[str] = "negative_entropy"

    @property
    def ignores_level(self) -> bool:
        """True of classes, whose probabilities are a softmax."""
        return self.target_form == "classes"

    @property
    def convex(self) -> bool:
        """False: flat far out."""
        return False

    @property
    def ceiling(self) -> float:
        """0: a certain prediction."""
        return 0.0

    def _least(self, x: Float) -> Float:
        n_scores = np.asarray((~np.isneginf(x)).sum(axis=1))
        return -math.log(2) * n_scores if self.target_form == "labels" else -np.log(np.maximum(n_scores, 1))

    def initial_value(self, n_classes: int) -> float:
        """The penalty of scores that are all 0: −log C, or −C·log 2 of labels."""
        return float(self._least(np.zeros((1, base.check_class_number(n_classes))))[0])

    def _kernel_recipe(self, n_classes: int) -> Recipe | None:
        return SigmoidRecipe("label_entropy") if self.target_form == "labels" else super()._kernel_recipe(n_classes)

    def _cost(self, x: Float) -> Float:
        return np.asarray(_parts(x)[2][:, 0])

    def _slope(self, x: Float) -> Float:
        p, log_p, total = _parts(x)
        return np.asarray(p * (log_p - total))

    def _bend(self, x: Float, v: Float) -> Float:
        p, log_p, total = _parts(x)
        delta = v - (p * v).sum(axis=1, keepdims=True)
        change = delta - (p * (log_p + 1) * delta).sum(axis=1, keepdims=True)
        return np.asarray(p * delta * (log_p - total) + p * change)

    def _own_bend(self, x: Float) -> Float:
        p, log_p, total = _parts(x)
        return np.asarray(p * (1 - 2 * p) * (log_p - total) + p * (1 - p))


def _parts(x: Float) -> tuple[Float, Float, Float]:
    """p, log p with 0 for masked classes, and the sum of p·log p."""
    odds = softmax_odds(x).odds
    log_p = np.where(odds.p > 0, odds.log_p, 0.0)
    return odds.p, log_p, (odds.p * log_p).sum(axis=1, keepdims=True)


def _unmasked(x: Float) -> Float:
    return np.where(np.isneginf(x), 0.0, x)
