"""What all losses on a sigmoid per label have in common.

One loss of this family is a name, a family of `kullback.kernels.elements`, its own settings, and what it claims about
itself; everything else is here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback import kernels
from kullback.errors import InputError
from kullback.kernels.elements import SIGMOID_FAMILIES, Odds, sigmoid_odds
from kullback.kernels.recipe import SigmoidRecipe, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float
from kullback.losses.recipe_loss import RecipeLoss
from kullback.losses.recovery import FLOOR, unsmooth
from kullback.losses.reduction import Denominator, Empty, Reduction, check_choice
from kullback.targets import LabelRows, Targets, as_label_targets

LabelReduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class SigmoidLoss(RecipeLoss):
    """A loss on p = sigmoid(logits / T), each label on its own, linear in t' = (1 − ε)·t + ε/2.

    A label costs w_k·(π_k·t'·on(p) + (1 − t')·off(p)), a row the mean or the sum over its labels.

    Args:
        positive_weight: (C,) π, finite and above 0, or None for all ones.
        class_weight: (C,) weight of each label, finite and non-negative, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: entries with this value do not count (unknown labels), or None. The mean is then over the
            labels of the row that count.
        label_reduction: ``"mean"`` or ``"sum"`` over a row's labels.

    Raises:
        InputError: for a setting outside its range.
    """

    target_form: ClassVar[Literal["classes", "labels"]] = "labels"
    link: ClassVar[str] = "sigmoid"
    family: ClassVar[str]
    truthful: ClassVar[bool] = False  # without weights and smoothing, is the truth its minimiser?
    label_ceiling: ClassVar[float] = math.inf  # the most a label of unit mass may cost

    positive_weight: tuple[float, ...] | None = None
    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    temperature: float = 1.0
    ignore_index: int | None = None
    label_reduction: LabelReduction = "mean"

    def __post_init__(self) -> None:
        positive = base.class_vector("positive_weight", self.positive_weight)
        if positive is not None and min(positive) == 0:
            raise InputError(
                f"positive_weight[{positive.index(0.0)}] = 0 is not valid: no presence of the label would ever count; "
                "to leave a label out altogether use class_weight"
            )
        self._set("positive_weight", positive)
        self._set("class_weight", base.class_vector("class_weight", self.class_weight))
        self._set("label_smoothing", base.check_unit("label_smoothing", self.label_smoothing))
        self._set("temperature", base.check_temperature(self.temperature))
        self._set("ignore_index", base.check_ignore_index(self.ignore_index))
        check_choice("label_reduction", self.label_reduction, LabelReduction)

    # ------------------------------------------------------------ what one loss of the family may say

    def _set(self, name: str, value: object) -> None:
        """Store a validated setting of a frozen instance."""
        object.__setattr__(self, name, value)

    def _parameters(self) -> tuple[float, ...]:
        """The family's own scalars."""
        return ()

    def _balance(self) -> tuple[float, float]:
        """Factors on the cost of present and of absent labels."""
        return 1.0, 1.0

    # ------------------------------------------------------------ what the loss is

    @property
    def proper(self) -> bool:
        """Whether the true probabilities are its minimiser; label weights do not move it, positive weights do."""
        balanced = self._balance()[0] == self._balance()[1] and all(w == 1 for w in self.positive_weight or ())
        return self.truthful and self.label_smoothing == 0 and balanced

    @property
    def bounded_gradient(self) -> bool:
        """True: no component exceeds a constant times w·max(π, 1)/T."""
        return True

    @property
    def ceiling(self) -> float:
        """The least upper bound of one example's loss, in nats; of a sum over labels, infinity unless C is set."""
        if math.isinf(self.label_ceiling):
            return math.inf
        n_labels = max(len(self.positive_weight or ()), len(self.class_weight or ()))
        if n_labels == 0:
            n_labels, known = 1, False
        else:
            known = True
        on, off = self._masses(np.ones(n_labels))[0], self._masses(np.zeros(n_labels))[1]
        if self.label_reduction == "sum":
            return float(np.maximum(on, off).sum() * self.label_ceiling) if known else math.inf
        worst = np.maximum(on, off)
        return float((worst.mean() if self.ignore_index is None else worst.max()) * self.label_ceiling)

    def initial_value(self, n_classes: int) -> float:
        """Loss of all-zero logits where every label holds half the time, in nats; log 2 for cross-entropy."""
        n_classes = base.check_class_number(n_classes)
        on, off = self._masses(np.full(n_classes, 0.5))
        return float(self._costs(np.zeros(n_classes), on, off).sum() / self._labels(n_classes))

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
        """The lowest loss any logits could reach, in nats.

        For cross-entropy it is zero for 0/1 labels, the labels' entropy for soft or smoothed ones.

        Args:
            targets: (N, C) labels.
            n_classes: C; the rows say it, so it is only checked.
            sample_weight: (N,) or None.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            denominator: as for calling the loss.
            empty: as for calling the loss.
        """
        wrapped = self._labels_of(targets, n_classes)
        n_labels = wrapped.rows.shape[1]
        batch = Batch(self, (len(wrapped), n_labels), wrapped, sample_weight, reduction, denominator, empty)
        counted = np.flatnonzero(base.checked_rows(wrapped, n_labels, batch.row_weight, self.ignore_index))
        losses = np.zeros(len(wrapped))
        for rows in np.array_split(counted, 1 + len(counted) * n_labels // 2**20):  # blocks of about 8 MB
            on, off = self._masses(*self._known(wrapped[rows]))
            losses[rows] = self._costs(self._best_odds(on, off), on, off).sum(axis=1)
        losses /= 1.0 if self.ignore_index is not None else self._labels(n_labels)
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features; for cross-entropy T times the log-odds of each label's mean.

        A label that never (always) holds gets −inf (+inf), one that no counted row knows 0.

        >>> from kullback import BinaryCrossEntropy
        >>> BinaryCrossEntropy().best_constant([[1], [0], [0], [0]])
        array([-1.09861229])
        """
        wrapped = self._labels_of(targets, n_classes)
        n_labels = wrapped.rows.shape[1]
        batch = Batch(self, (len(wrapped), n_labels), wrapped, sample_weight, "sum")
        counted = np.flatnonzero(base.checked_rows(wrapped, n_labels, batch.row_weight, self.ignore_index))
        if len(counted) == 0:
            raise InputError("no row counts, so there is no best constant")
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        on, off = np.zeros(n_labels), np.zeros(n_labels)
        for rows in np.array_split(counted, 1 + len(counted) * n_labels // 2**20):
            part_on, part_off = self._masses(*self._known(wrapped[rows]))
            on += weight[rows] @ part_on
            off += weight[rows] @ part_off
        return np.where((on == 0) & (off == 0), 0.0, self.temperature * self._best_odds(on, off))

    def elicited(self, p: ArrayLike) -> Float:
        """What the loss' minimiser reports when labels hold with probability `p`, (C,) or (N, C).

        For cross-entropy: odds π times the smoothed truth's. Elsewhere found to the last bit by bisection.

        >>> from kullback import BinaryCrossEntropy
        >>> BinaryCrossEntropy(positive_weight=[3]).elicited([0.25])
        array([0.5])
        """
        truth = as_label_probabilities(p, "p")
        if self.proper:
            return truth
        on, off = self._masses(truth, weighted=False)
        return sigmoid_odds(self._best_odds(on, off)).p

    def recover(self, q: ArrayLike) -> Float:
        """The labels' true probabilities behind reported ones: the inverse of `elicited`, in closed form.

        At the minimum the odds of the truth are −off′/(π·on′), with ′ the derivative in the log-odds; then smoothing
        is taken out. Reported values outside what smoothing allows are moved to the nearest that is, kept just
        inside (0, 1).

        >>> from kullback import BinaryCrossEntropy
        >>> BinaryCrossEntropy(positive_weight=[3]).recover([0.5])
        array([0.25])
        """
        reported = as_label_probabilities(q, "q")
        if self.proper:
            return reported
        with np.errstate(divide="ignore"):
            odds = Odds(reported, 1 - reported, np.log(reported), np.log1p(-reported))
        return self._restored(odds)

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities, (N, C)."""
        log_p = np.asarray(log_q, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return log_p if self.proper else np.log(self.recover(np.exp(log_p)))

    def _restored(self, odds: Odds) -> Float:
        family = SIGMOID_FAMILIES[self.family]
        assert family.off is not None
        on_balance, off_balance = self._balance()
        # certainties are left as they are: the derivatives vanish there, and with them what they could tell
        inner = Odds(*(np.where((odds.p > 0) & (odds.miss > 0), x, math.log(0.5) if k > 1 else 0.5)
                       for k, x in enumerate(odds[:4])))  # fmt: skip
        pull = -on_balance * self._positive(odds.p.shape[-1]) * family.on(inner, self._parameters(), None).first
        push = off_balance * family.off(inner, self._parameters(), None).first
        truth = np.where((odds.p > 0) & (odds.miss > 0), push / (push + pull), odds.p)
        if self.label_smoothing:
            truth = np.minimum(unsmooth(truth, self.label_smoothing, 2), 1 - FLOOR)
        return np.asarray(truth)

    def probabilities(self, logits: ArrayLike) -> Array:
        """σ(logits / T), (N, C): each label's own probability; rows need not sum to one."""
        return self._link(logits, log=False)

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """log σ(logits / T), (N, C)."""
        return self._link(logits, log=True)

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """1 where a label's logit is above 0, (N, C)."""
        return (base.as_logits(logits) > 0).astype(np.int64)

    # ------------------------------------------------------------ kernels

    def _link(self, logits: ArrayLike, *, log: bool) -> Array:
        array = base.as_logits(logits)
        out = np.empty(array.shape, dtype=array.dtype)
        kernels.active().sigmoid_probabilities(array, temperature=self.temperature, log=log, out=out)
        return out

    def _recipe(self, n_classes: int) -> SigmoidRecipe:
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        positive = base.per_class("positive_weight", self.positive_weight, n_classes)
        on_balance, off_balance = self._balance()
        if (on_balance, off_balance) != (1.0, 1.0):
            positive = (np.ones(n_classes) if positive is None else positive) * (on_balance / off_balance)
            weight = (np.ones(n_classes) if weight is None else weight) * off_balance
        if self.label_reduction == "mean" and self.ignore_index is None:
            weight = (np.ones(n_classes) if weight is None else weight) / self._labels(n_classes)
        return SigmoidRecipe(
            family=self.family,
            parameters=self._parameters(),
            smoothing=self.label_smoothing,
            temperature=self.temperature,
            positive_weight=positive,
            class_weight=weight,
        )

    def _targets(self, targets: ArrayLike | Targets) -> LabelRows:
        return as_label_targets(targets)

    def _summary(self, targets: LabelRows, n_classes: int, row_weight: Float | None) -> TargetSummary:
        return kernels.active().sigmoid_targets(targets, row_weight=row_weight, ignore_index=self.ignore_index)

    def _row_weight(self, targets: LabelRows, sample_weight: Float | None) -> Float | None:
        return self._summary_and_weight(targets, 0, sample_weight)[1] if self._over_known else sample_weight

    def _summary_and_weight(
        self, targets: LabelRows, n_classes: int, sample_weight: Float | None
    ) -> tuple[TargetSummary, Float | None]:
        if not self._over_known:
            return self._summary(targets, n_classes, sample_weight), sample_weight
        known = np.empty(len(targets))
        summary = kernels.active().sigmoid_targets(
            targets, row_weight=sample_weight, ignore_index=self.ignore_index, known=known
        )
        share = np.divide(1.0, known, out=np.zeros_like(known), where=known > 0)
        return summary, share if sample_weight is None else share * sample_weight

    @property
    def _over_known(self) -> bool:
        """Whether the mean is over the labels that count, a number of each row's own."""
        return self.label_reduction == "mean" and self.ignore_index is not None

    # ------------------------------------------------------------ helpers

    def _labels(self, n_labels: int) -> int:
        """What a row's summed loss is divided by where every label counts."""
        return max(n_labels, 1) if self.label_reduction == "mean" else 1

    def _positive(self, n_labels: int) -> Float | float:
        weight = base.per_class("positive_weight", self.positive_weight, n_labels)
        return 1.0 if weight is None else weight

    def _labels_of(self, targets: ArrayLike | Targets, n_classes: int | None) -> LabelRows:
        wrapped = as_label_targets(targets)
        if n_classes is not None and n_classes != wrapped.rows.shape[1]:
            raise InputError(f"n_classes={n_classes}, but the targets have {wrapped.rows.shape[1]} columns")
        return wrapped

    def _known(self, targets: LabelRows) -> tuple[Float, Float]:
        """Labels in float64 and 1 where they count; an ignored entry is 0 in both."""
        rows = np.asarray(targets.rows, dtype=np.float64)
        known = np.ones_like(rows) if self.ignore_index is None else (rows != self.ignore_index).astype(np.float64)
        return np.where(known == 0, 0.0, rows), known

    def _masses(self, labels: Float, known: Float | float = 1.0, *, weighted: bool = True) -> tuple[Float, Float]:
        """What pulls each label on and off: w·π·t' and w·(1 − t')."""
        n_labels = labels.shape[-1]
        weight = base.per_class("class_weight", self.class_weight, n_labels) if weighted else None
        counted = known if weight is None else known * weight
        smoothed = (1 - self.label_smoothing) * labels + self.label_smoothing / 2
        on, off = self._balance()
        return (
            np.asarray(on * counted * self._positive(n_labels) * smoothed),
            np.asarray(off * counted * (1 - smoothed)),
        )

    def _best_odds(self, on: Float, off: Float) -> Float:
        """The log-odds that minimise on·on(o) + off·off(o): ±inf where only one of the masses is there."""
        if self.truthful:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(on == off, 0.0, np.log(on) - np.log(off))
        family = SIGMOID_FAMILIES[self.family]
        assert family.off is not None
        low, high = np.full(on.shape, -800.0), np.full(on.shape, 800.0)
        for _ in range(64):
            middle = 0.5 * (low + high)
            odds = sigmoid_odds(middle)
            slope = on * family.on(odds, self._parameters(), None).first
            slope += off * family.off(odds, self._parameters(), None).first
            up = slope < 0
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        best = 0.5 * (low + high)
        return np.where(off == 0, np.where(on == 0, 0.0, math.inf), np.where(on == 0, -math.inf, best))

    def _costs(self, log_odds: Float, on: Float, off: Float) -> Float:
        """on·on(o) + off·off(o), element by element; no mass times an infinite cost is nothing."""
        family, odds = SIGMOID_FAMILIES[self.family], sigmoid_odds(log_odds)
        assert family.off is not None
        costs = (family.on(odds, self._parameters(), None).value, family.off(odds, self._parameters(), None).value)
        return np.where(on == 0, 0.0, on * np.where(on == 0, 0.0, costs[0])) + np.where(
            off == 0, 0.0, off * np.where(off == 0, 0.0, costs[1])
        )


def as_label_probabilities(values: ArrayLike, what: str) -> Float:
    """Probabilities of labels, each in [0, 1], (C,) or (N, C)."""
    p = np.asarray(values, dtype=np.float64)
    if p.ndim not in (1, 2):
        raise InputError(f"{what} has shape {p.shape}, expected (C,) or (N, C)")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"{what} has an entry outside [0, 1]; each is the probability of a label")
    return p
