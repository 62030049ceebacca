"""Cross-entropy of probabilities: for models that end in a softmax of their own."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InputError, KullbackWarning
from kullback.kernels.recipe import Evaluation, PlainRecipe, Recipe
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float
from kullback.losses.block_loss import BlockLoss
from kullback.losses.cross_entropy import CrossEntropy
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.targets import Targets, as_class_targets


class ClippedWarning(KullbackWarning):
    """Probabilities of true classes lie below the clip: those examples cost a constant and teach nothing."""


class Clipping(NamedTuple):
    """How much of a batch the clip decides.

    low: rows with target mass on a class whose probability is below ε; the clip cuts their gradient off.
    high: rows with target mass on a class whose probability is above 1 − ε.
    rows: rows that count.
    share: (low + high) / rows, 0 where no row counts.
    """

    low: int
    high: int
    rows: int
    share: float


@dataclass(frozen=True)
class CrossEntropyFromProbabilities(BlockLoss):
    """−Σ_k s_k·log clip(x_k / Σx, ε, 1 − ε) for inputs x that are probabilities, in nats.

    Renormalises and clips as Keras does with ``from_logits=False``. A softmax that has saturated in floating point
    has nothing left to tell: below ε the loss is a constant −log ε and its gradient zero, so exactly the worst
    mistakes are not learnt from. `clipping` counts such rows and calls warn of them; with logits at hand use
    `CrossEntropy`, which has no such limit.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε of the targets, in [0, 1).
        ignore_index: class index of rows that do not count, or None.
        clip: ε, in (0, 0.5).

    Warns:
        ClippedWarning: where true classes lie below the clip, with their share.

    >>> round(CrossEntropyFromProbabilities()([[0.5, 1.5]], [0]), 4)  # log 4
    1.3863
    """

    name: ClassVar[str] = "cross_entropy_from_probabilities"
    link: ClassVar[str] = "identity"

    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = -100
    clip: float = 1e-7

    def __post_init__(self) -> None:
        same = self._cross_entropy()
        for name in ("class_weight", "label_smoothing", "ignore_index"):
            object.__setattr__(self, name, getattr(same, name))
        object.__setattr__(self, "clip", base.check_positive("clip", self.clip))
        if self.clip >= 0.5:
            raise InputError(f"clip={self.clip!r} is not valid; it lies in (0, 0.5)")

    def _cross_entropy(self) -> CrossEntropy:
        """The loss of the same meaning on logits."""
        return CrossEntropy(
            class_weight=self.class_weight, label_smoothing=self.label_smoothing, ignore_index=self.ignore_index
        )

    def clipping(
        self, probabilities: ArrayLike, targets: ArrayLike | Targets, *, sample_weight: ArrayLike | None = None
    ) -> Clipping:
        """Count the rows that the clip decides.

        Args:
            probabilities: (N, C).
            targets: N class targets.
            sample_weight: (N,) or None; rows of weight 0 do not count.

        Raises:
            TargetError, ShapeError, InputError: as for calling the loss.

        >>> CrossEntropyFromProbabilities().clipping([[1.0, 0.0], [0.5, 0.5]], [1, 1])
        Clipping(low=1, high=0, rows=2, share=0.5)
        """
        x = base.as_logits(probabilities)
        batch = Batch(self, (len(x), x.shape[1]), targets, sample_weight, "sum")
        if (recipe := self._in_kernels(x.shape[1])) is not None:
            passed, low, high = self._tallied(recipe, x, batch.targets, row_weight=batch.row_weight)
            rows = passed.counted
        else:
            low, high, rows = self._clipped_rows(x, batch.targets, batch.row_weight)
        return Clipping(low, high, rows, (low + high) / rows if rows else 0.0)

    # ------------------------------------------------------------ what the loss is

    @property
    def convex(self) -> bool:
        """False: renormalising and clipping bend it."""
        return False

    @property
    def proper(self) -> bool:
        """As far as the clip reaches, True unless smoothing or unequal class weights move the minimiser."""
        return self._cross_entropy().proper

    @property
    def bounded_gradient(self) -> bool:
        """True for rows that sum to one: no component exceeds Σs/ε."""
        return True

    @property
    def ceiling(self) -> float:
        """−log ε, times the largest class weight."""
        return -math.log(self.clip) * max(self.class_weight or (1.0,))

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal probabilities: log C, unless the clip is above 1/C."""
        n_classes = base.check_class_number(n_classes)
        self._cross_entropy().initial_value(n_classes)
        return -math.log(min(max(1 / n_classes, self.clip), 1 - self.clip))

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
        """The lowest loss any probabilities could reach, to within ε; arguments as for other losses.

        −log(1 − ε) for class indices, the entropy of shared targets.
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        losses = np.zeros(len(wrapped))
        counted = np.flatnonzero(base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index))
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // base.BLOCK_ELEMENTS):
            s = self._effective(wrapped[rows].dense(n_classes))
            total = s.sum(axis=1, keepdims=True)
            # below ε a class costs the same whatever it gets, so it gets nothing
            kept = np.where(s >= self.clip * total, s, 0.0)
            sums = kept.sum(axis=1, keepdims=True)
            q = np.divide(kept, sums, out=np.zeros_like(kept), where=sums > 0)
            losses[rows] = -(s * np.log(np.clip(q, self.clip, 1 - self.clip))).sum(axis=1)
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """The probabilities (C,) of the best model without features."""
        same = self._cross_entropy()
        constant = same.best_constant(targets, n_classes=n_classes, sample_weight=sample_weight)
        return np.asarray(same.probabilities(constant[None, :])[0])

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
        """The inputs divided by their row's sum, (N, C)."""
        x = base.as_logits(logits)
        return np.asarray(self._shares(x.astype(np.float64))[0].astype(x.dtype))

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """The logarithm of `probabilities`, (N, C)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.probabilities(logits)))

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest probability, (N,); the first of equals."""
        return np.asarray(np.argmax(base.as_logits(logits), axis=1))

    # ------------------------------------------------------------ blocks

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
        passed = None
        if (recipe := self._in_kernels(logits.shape[1])) is not None:
            passed, low, _ = self._tallied(
                recipe,
                logits,
                targets,
                row_weight=row_weight,
                scale=scale,
                per_example=per_example,
                gradient=gradient,
            )
            n = passed.counted
        else:
            low, _, n = self._clipped_rows(logits, targets, row_weight)
        if low:
            warnings.warn(
                f"{low} of {n} rows ({low / n:.1%}) give a true class less than {self.clip:g}: they cost a constant "
                "and have no gradient. Use CrossEntropy on the logits before the softmax",
                ClippedWarning,
                stacklevel=4,
            )
        return passed or super()._evaluate(
            logits, targets, row_weight=row_weight, scale=scale, per_example=per_example, gradient=gradient
        )

    def _hessian_product(
        self, logits: Array, targets: Any, direction: Array, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        self._check_inputs(logits, targets, row_weight)
        super()._hessian_product(logits, targets, direction, row_weight=row_weight, scale=scale, out=out)

    def _hessian_diagonal(
        self, logits: Array, targets: Any, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        self._check_inputs(logits, targets, row_weight)
        super()._hessian_diagonal(logits, targets, row_weight=row_weight, scale=scale, out=out)

    def _check_inputs(self, x: Array, targets: Any, row_weight: Float | None) -> None:
        """Raise for counted rows that are no probabilities."""
        if (recipe := self._in_kernels(x.shape[1])) is not None:
            self._tallied(recipe, x, targets, row_weight=row_weight, scale=1.0, per_example=None, gradient=None)
            return
        counts = self._counted(x, targets, row_weight)
        for rows, part, _, _, spoilt in self._blocks(x, targets, row_weight, counts):
            self._shares(part, spoilt, rows)

    def _clipped_rows(self, x: Array, targets: Any, row_weight: Float | None) -> tuple[int, int, int]:
        """How many rows have mass below the clip, how many above, and how many count; bad inputs raise."""
        counts = self._counted(x, targets, row_weight)
        low = high = 0
        for rows, part, s, _, spoilt in self._blocks(x, targets, row_weight, counts):
            q, _ = self._shares(part, spoilt, rows)
            low += int(((s > 0) & (q < self.clip)).any(axis=1).sum())
            high += int(((s > 0) & (q > 1 - self.clip)).any(axis=1).sum())
        return low, high, int(counts.sum())

    def _kernel_recipe(self, n_classes: int) -> PlainRecipe:
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        return PlainRecipe(self.name, (self.clip,), self.label_smoothing, weight)

    def _tallied(self, recipe: Recipe, x: Array, targets: Any, **how: Any) -> tuple[Evaluation, int, int]:
        """One pass of the C++ kernels, with how many rows lie below the clip and above; bad inputs raise."""
        from kullback.kernels import cpu

        gradient = how.get("gradient")
        if gradient is not None and np.may_share_memory(x, gradient):
            self._check_inputs(x, targets, how["row_weight"])  # once the gradient stands in their place, it is too late
        tally = np.empty(3, np.int64)
        passed = cpu.evaluate(recipe, x, targets, ignore_index=self.ignore_index, tally=tally, **how)
        low, high, amiss = tally.tolist()
        if amiss >= 0:
            self._shares(x[amiss : amiss + 1].astype(np.float64), np.zeros(1, bool), [amiss])
        return passed, low, high

    def _effective(self, mass: Float) -> Float:
        return self._cross_entropy()._effective(mass)

    def _shares(self, x: Float, spoilt: Any = None, rows: Any = None) -> tuple[Float, Float]:
        """x / Σx (n, C) and Σx (n, 1); bad inputs raise, with the caller's row numbers."""
        with np.errstate(over="ignore"):
            total = x.sum(axis=1, keepdims=True)
        if spoilt is not None:
            bad = ~spoilt & ((x < 0).any(axis=1) | (total[:, 0] <= 0))
            if bad.any():
                i = int(np.argmax(bad))
                k = int(np.argmax(x[i] < 0))
                what = (
                    f"column {k}: probability {x[i, k]}" if x[i, k] < 0 else f"the sum of probabilities {total[i, 0]}"
                )
                raise InputError(
                    f"row {rows[i]}, {what} is not valid; this loss takes probabilities: at least 0, not all 0. "
                    "For logits use CrossEntropy"
                )
        with np.errstate(invalid="ignore", divide="ignore"):
            if np.isinf(total).any():  # of finite terms whose sum is beyond the largest float
                x = x / np.maximum(x.max(axis=1, keepdims=True, initial=0.0), 1.0)
                return x / x.sum(axis=1, keepdims=True), total
            return x / total, total

    def _clipped(self, x: Float, s: Float) -> tuple[Float, Float, Float, Float]:
        """Shares q, row sums, and the first two derivatives of the loss in q."""
        q, total = self._shares(x)
        inside = (q >= self.clip) & (q <= 1 - self.clip)
        with np.errstate(invalid="ignore", divide="ignore"):
            held = np.where(inside, q, 1.0)
            return q, total, np.where(inside, -s / held, 0.0), np.where(inside, s / held**2, 0.0)

    def _values(self, x: Float, s: Float) -> Float:
        q, _ = self._shares(x)
        return np.asarray(-(s * np.log(np.clip(q, self.clip, 1 - self.clip))).sum(axis=1))

    def _gradients(self, x: Float, s: Float) -> Float:
        q, total, first, _ = self._clipped(x, s)
        return np.asarray((first - (q * first).sum(axis=1, keepdims=True)) / total)

    def _products(self, x: Float, s: Float, v: Float) -> Float:
        q, total, first, second = self._clipped(x, s)
        grown = v.sum(axis=1, keepdims=True)
        moved = (v - q * grown) / total
        pull = (q * first).sum(axis=1, keepdims=True)
        turned = second * moved
        change = turned - (moved * first + q * turned).sum(axis=1, keepdims=True)
        return np.asarray((change - grown * (first - pull) / total) / total)

    def _diagonals(self, x: Float, s: Float) -> Float:
        q, total, first, second = self._clipped(x, s)
        pull = (q * first).sum(axis=1, keepdims=True)
        bend = (q**2 * second).sum(axis=1, keepdims=True)
        return np.asarray((second * (1 - 2 * q) + bend - 2 * (first - pull)) / total**2)
