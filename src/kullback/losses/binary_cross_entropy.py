"""Binary cross-entropy over independent labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback import kernels
from kullback.errors import InputError
from kullback.kernels.recipe import Evaluation, SigmoidRecipe, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float, Loss
from kullback.losses.recovery import FLOOR, unsmooth
from kullback.losses.reduction import Denominator, Empty, Reduction, check_choice
from kullback.targets import LabelRows, Targets, as_label_targets, counted_rows

LabelReduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of each label on its own: several may hold at once, in nats.

    With σ the sigmoid, z = logits / T and t' = (1 − ε)·t + ε/2, a label costs
    w_k·(−π_k·t'·log σ(z) − (1 − t')·log σ(−z)), where the positive weight π makes misses dearer than false alarms
    (``pos_weight`` in PyTorch). A row's loss is the mean over its labels, which agrees with PyTorch and Keras and
    starts at log 2, or their sum, the joint log-likelihood of independent labels.

    One-of-k labels do not belong here: with C classes a model that always says "absent" is right on a share
    1 − 1/C of the entries, and looks good. Use `CrossEntropy` for them.

    Its minimiser reports odds π times the (smoothed) true odds; `recover` undoes that.

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

    >>> import numpy as np
    >>> loss = BinaryCrossEntropy()
    >>> round(loss(np.zeros((2, 3)), [[1, 0, 1], [0, 0, 0]]), 4)  # log 2
    0.6931
    """

    name: ClassVar[str] = "binary_cross_entropy"
    target_form: ClassVar[Literal["classes", "labels"]] = "labels"
    link: ClassVar[str] = "sigmoid"

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
        object.__setattr__(self, "positive_weight", positive)
        object.__setattr__(self, "class_weight", base.class_vector("class_weight", self.class_weight))
        object.__setattr__(self, "label_smoothing", base.check_unit("label_smoothing", self.label_smoothing))
        object.__setattr__(self, "temperature", base.check_positive("temperature", self.temperature))
        object.__setattr__(self, "ignore_index", base.check_ignore_index(self.ignore_index))
        check_choice("label_reduction", self.label_reduction, LabelReduction)

    # ------------------------------------------------------------ what the loss is

    @property
    def convex(self) -> bool:
        """True: a sum of softplus functions."""
        return True

    @property
    def proper(self) -> bool:
        """True unless smoothing or positive weights move the minimiser; label weights do not."""
        return self.label_smoothing == 0 and all(w == 1 for w in self.positive_weight or ())

    @property
    def bounded_gradient(self) -> bool:
        """True: no component exceeds w·max(π, 1)/T."""
        return True

    @property
    def ceiling(self) -> float:
        """Infinity: a confident mistake costs without limit."""
        return math.inf

    def initial_value(self, n_classes: int) -> float:
        """Loss of all-zero logits: log 2 per label, times the label weights.

        With positive weights it depends on how often labels hold; this is the value where each holds half the time.
        """
        on, off = self._masses(np.full(n_classes, 0.5))
        return float(np.sum(on + off) * math.log(2) / self._labels(n_classes))

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
        """The lowest loss any logits could reach: zero for 0/1 labels, the labels' entropy for soft or smoothed ones.

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
        counted = np.flatnonzero(counted_rows(wrapped, batch.row_weight))
        losses = np.zeros(len(wrapped))
        for rows in np.array_split(counted, 1 + len(counted) * n_labels // 2**20):  # blocks of about 8 MB
            on, off = self._masses(*self._known(wrapped[rows]))
            total = on + off
            share_on = np.divide(on, total, out=np.ones_like(on), where=on > 0)
            share_off = np.divide(off, total, out=np.ones_like(off), where=off > 0)
            losses[rows] = -(on * np.log(share_on) + off * np.log(share_off)).sum(axis=1)
        losses /= 1.0 if self.ignore_index is not None else self._labels(n_labels)
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features: T times the log-odds of each label's mean.

        A label that never (always) holds gets −inf (+inf), one that no counted row knows 0.

        >>> BinaryCrossEntropy().best_constant([[1], [0], [0], [0]])
        array([-1.09861229])
        """
        wrapped = self._labels_of(targets, n_classes)
        n_labels = wrapped.rows.shape[1]
        batch = Batch(self, (len(wrapped), n_labels), wrapped, sample_weight, "sum")
        counted = np.flatnonzero(counted_rows(wrapped, batch.row_weight))
        if len(counted) == 0:
            raise InputError("no row counts, so there is no best constant")
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        on, off = np.zeros(n_labels), np.zeros(n_labels)
        for rows in np.array_split(counted, 1 + len(counted) * n_labels // 2**20):
            part_on, part_off = self._masses(*self._known(wrapped[rows]))
            on += weight[rows] @ part_on
            off += weight[rows] @ part_off
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(on == off, 0.0, self.temperature * (np.log(on) - np.log(off)))

    def elicited(self, p: ArrayLike) -> Float:
        """Odds π times the smoothed truth's, for each label: (C,) or (N, C).

        >>> BinaryCrossEntropy(positive_weight=[3]).elicited([0.25])
        array([0.5])
        """
        truth = _as_label_probabilities(p, "p")
        smoothed = (1 - self.label_smoothing) * truth + self.label_smoothing / 2
        on = self._positive(truth.shape[-1]) * smoothed
        return np.asarray(on / (on + 1 - smoothed))

    def recover(self, q: ArrayLike) -> Float:
        """The labels' true probabilities behind reported ones: divide the odds by π, take the smoothing out.

        Reported values outside what smoothing allows are moved to the nearest that is, kept just inside (0, 1).

        >>> BinaryCrossEntropy(positive_weight=[3]).recover([0.5])
        array([0.25])
        """
        reported = _as_label_probabilities(q, "q")
        truth = reported / (reported + self._positive(reported.shape[-1]) * (1 - reported))
        if self.label_smoothing:
            truth = np.minimum(unsmooth(truth, self.label_smoothing, 2), 1 - FLOOR)
        return np.asarray(truth)

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities, (N, C)."""
        with np.errstate(divide="ignore"):
            return np.asarray(log_q, dtype=np.float64) if self.proper else np.log(self.recover(np.exp(log_q)))

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
        if self.label_reduction == "mean" and self.ignore_index is None:
            weight = (np.ones(n_classes) if weight is None else weight) / self._labels(n_classes)
        return SigmoidRecipe(
            smoothing=self.label_smoothing,
            temperature=self.temperature,
            positive_weight=base.per_class("positive_weight", self.positive_weight, n_classes),
            class_weight=weight,
        )

    def _targets(self, targets: ArrayLike | Targets) -> LabelRows:
        return as_label_targets(targets)

    def _summary(self, targets: LabelRows, n_classes: int, row_weight: Float | None) -> TargetSummary:
        return kernels.active().sigmoid_targets(targets, row_weight=row_weight, ignore_index=self.ignore_index)

    def _row_weight(self, targets: LabelRows, sample_weight: Float | None) -> Float | None:
        if self.label_reduction == "sum" or self.ignore_index is None:
            return sample_weight
        # the mean is over the labels that count, a number of each row's own
        known = np.empty(len(targets))
        for start in range(0, len(targets), 4096):
            part = slice(start, start + 4096)
            known[part] = (targets.rows[part] != self.ignore_index).sum(axis=1)
        share = np.divide(1.0, known, out=np.zeros_like(known), where=known > 0)
        return share if sample_weight is None else share * sample_weight

    def _evaluate(
        self,
        logits: Array,
        targets: LabelRows,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation:
        return kernels.active().sigmoid_evaluate(
            self._recipe(logits.shape[1]),
            logits,
            targets,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            scale=scale,
            per_example=per_example,
            gradient=gradient,
        )

    def _hessian_product(
        self,
        logits: Array,
        targets: LabelRows,
        direction: Array,
        *,
        row_weight: Float | None,
        scale: float,
        out: Array,
    ) -> None:
        kernels.active().sigmoid_hessian_product(
            self._recipe(logits.shape[1]),
            logits,
            targets,
            direction,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            scale=scale,
            out=out,
        )

    def _hessian_diagonal(
        self, logits: Array, targets: LabelRows, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        kernels.active().sigmoid_hessian_diagonal(
            self._recipe(logits.shape[1]),
            logits,
            targets,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            scale=scale,
            out=out,
        )

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

    def _masses(self, labels: Float, known: Float | float = 1.0) -> tuple[Float, Float]:
        """What pulls each label on and off: w·π·t' and w·(1 − t')."""
        n_labels = labels.shape[-1]
        weight = base.per_class("class_weight", self.class_weight, n_labels)
        counted = known if weight is None else known * weight
        smoothed = (1 - self.label_smoothing) * labels + self.label_smoothing / 2
        return np.asarray(counted * self._positive(n_labels) * smoothed), np.asarray(counted * (1 - smoothed))


def _as_label_probabilities(values: ArrayLike, what: str) -> Float:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim not in (1, 2):
        raise InputError(f"{what} has shape {p.shape}, expected (C,) or (N, C)")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"{what} has an entry outside [0, 1]; each is the probability of a label")
    return p
