"""What all losses on a softmax over mutually exclusive classes have in common.

One loss of this family is a name, a family of `kullback.kernels.elements`, its own settings, and what it claims about
itself; everything else is here. See `kullback.losses.focal` for how little that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback import kernels
from kullback.errors import InputError, NoProbabilitiesError
from kullback.kernels.elements import SOFTMAX_FAMILIES, Odds
from kullback.kernels.recipe import SoftmaxRecipe, TargetSummary
from kullback.kernels.reference.softmax import softmax_odds
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float, Loss
from kullback.losses.elicitation import element_steepness, log_minimiser, share_of, truth_log
from kullback.losses.recipe_loss import RecipeLoss
from kullback.losses.recovery import unsmooth
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.targets import ClassIndices, ClassRows, ClassTargets, Targets, as_class_targets


@dataclass(frozen=True)
class SoftmaxLoss(RecipeLoss):
    """A loss on p = softmax(logits / T), linear in the effective target s_k = w_k·((1 − ε)·t_k + Σt·ε/C).

    With S = Σs a row costs Σ_k s_k·on(p_k) + (S − s_k)·off(p_k): a soft target costs what its classes cost on
    average, so index, one-hot, soft and mixed targets agree, and a row of zeros costs and pulls nothing.

    Args:
        class_weight: (C,) costs, finite and non-negative, or None for all ones. They multiply a row's whole loss.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

    Raises:
        InputError: for a setting outside its range.
    """

    target_form: ClassVar[Literal["classes", "labels"]] = "classes"
    link: ClassVar[str] = "softmax"
    family: ClassVar[str]
    scalars: ClassVar[tuple[str, ...]] = ()  # the settings that are the family's parameters, in its order
    truthful: ClassVar[bool] = False  # without weights and smoothing, is the truth its minimiser?
    row_ceiling: ClassVar[float | None] = (
        None  # the most a row of unit mass and weight may cost; None: its cost at p = 0
    )

    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    temperature: float = 1.0
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        self._set("class_weight", base.class_vector("class_weight", self.class_weight))
        self._set("label_smoothing", base.check_unit("label_smoothing", self.label_smoothing))
        self._set("temperature", base.check_temperature(self.temperature))
        self._set("ignore_index", base.check_ignore_index(self.ignore_index))

    # ------------------------------------------------------------ what one loss of the family may say

    def _set(self, name: str, value: object) -> None:
        """Store a validated setting of a frozen instance."""
        object.__setattr__(self, name, value)

    def _parameters(self) -> tuple[float, ...]:
        """The family's own scalars."""
        return tuple(float(getattr(self, name)) for name in self.scalars)

    def _shift(self, n_classes: int) -> Float | None:
        """The family's own number per class."""
        return None

    def _offset(self, n_classes: int) -> Float | None:
        """What is added to the scaled logits while training."""
        return None

    def _log_steepness(self, log_q: Float, log_miss: Float) -> Float:
        """log h, h = −dφ/dq the steepness of a class' cost φ(q), from log q and log(1 − q).

        A loss that reports less than the smallest float writes it on logarithms throughout.
        """
        family = SOFTMAX_FAMILIES[self.family]
        return element_steepness(family.on, self._parameters(), log_q, log_miss, self._shift(log_q.shape[-1]))

    def _log_share(self, level: Float) -> Float:
        """The log q, at most log ½, at which log h is `level`: the inverse of `_log_steepness`."""
        return share_of(self._log_steepness, level)

    def _best_scores(self, s: Float) -> Float:
        """Scaled and shifted logits (N, C) that minimise the expected loss when the effective truth is s (N, C)."""
        if self.truthful:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(s))
        return log_minimiser(self._log_steepness, self._log_share, s)

    def _check_elicits(self) -> None:
        """Raise NoProbabilitiesError if the minimiser does not determine the truth."""

    # ------------------------------------------------------------ what the loss is

    @property
    def convex(self) -> bool:
        """False, unless a loss says otherwise: every bounded loss is flat far out."""
        return False

    @property
    def proper(self) -> bool:
        """Whether the true distribution is its minimiser: nothing (smoothing, unequal weights, …) moves it."""
        return self.truthful and self.label_smoothing == 0 and len(set(self.class_weight or ())) <= 1

    @property
    def bounded_gradient(self) -> bool:
        """True: whatever the logits, no component exceeds a constant times Σs/T."""
        return True

    @property
    def ceiling(self) -> float:
        """The least upper bound of one example's loss, in nats."""
        highest = self.row_ceiling
        if highest is None:
            certain = Odds(*(np.array([x]) for x in (0.0, 1.0, -np.inf, 0.0)))
            highest = float(SOFTMAX_FAMILIES[self.family].on(certain, self._parameters(), None).value[0])
        return highest * max(self.class_weight or (1.0,))

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits, in nats, where all classes are equally frequent.

        Cross-entropy starts at log C whatever the class weights; smoothing with unequal weights makes the first loss
        depend on the frequencies.
        """
        n_classes = base.check_class_number(n_classes)
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        even = ClassRows(np.full((1, n_classes), 1 / n_classes))
        value = float(self.per_example(np.zeros((1, n_classes)), even)[0])
        return value if weight is None else value / float(weight.mean())

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
        """The lowest loss any logits could reach on these targets, in nats.

        For cross-entropy it is the entropy of the effective targets, Σs·H(s/Σs): zero for plain class indices, above
        zero once targets are soft or smoothed, whatever the model.

        Args:
            targets: any class target form.
            n_classes: C, needed for index targets.
            sample_weight: (N,) or None.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            denominator: as for calling the loss.
            empty: as for calling the loss.

        >>> from kullback import CrossEntropy
        >>> CrossEntropy().floor([[0.5, 0.5]])
        0.6931471805599453
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        counted = np.flatnonzero(base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index))
        losses = np.zeros(len(wrapped))
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // 2**20):  # blocks of about 8 MB
            losses[rows] = self._lowest(self._effective(wrapped[rows].dense(n_classes)))
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features.

        A class that never occurs gets −inf (unless smoothing gives it mass). Adding a constant changes nothing; for
        cross-entropy the logits are log-probabilities times T.

        Raises:
            InputError: if no row counts, or `n_classes` is needed.

        >>> from kullback import CrossEntropy
        >>> CrossEntropy().probabilities([CrossEntropy().best_constant([0, 0, 0, 1], n_classes=2)])
        array([[0.75, 0.25]])
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, "sum")
        counted = base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index)
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        mass = self._effective(wrapped[counted].class_mass(n_classes, weight[counted]))
        if not mass.any():
            raise InputError("no row counts, so there is no best constant")
        return np.asarray(self._logits(self._best_scores(mass[None, :] / mass.sum()))[0])

    def elicited(self, p: ArrayLike) -> Float:
        """What the loss' minimiser reports when the truth is `p`, (C,) or (N, C): `probabilities` of its logits.

        Exact for losses whose minimiser is the effective target (cross-entropy, Brier, one-vs-rest); elsewhere found
        to 1e-10, relative to each entry. A report below the smallest float is 0, and `recover` cannot tell what was
        behind it; `elicited_log` keeps it.

        Raises:
            NoProbabilitiesError: if the loss elicits a decision and no distribution.

        >>> from kullback import CrossEntropy
        >>> CrossEntropy(class_weight=[1, 3]).elicited([0.75, 0.25])
        array([0.5, 0.5])
        """
        self._check_elicits()
        mass = self._effective(base.as_distribution(p, "p"))
        mass = mass / mass.sum(axis=-1, keepdims=True)
        if self._reports_target(mass.shape[-1]):
            return np.asarray(mass)
        return softmax_odds(self._reported_scores(mass)).odds.p.reshape(mass.shape)

    def elicited_log(self, p: ArrayLike) -> Float:
        """The logarithm of `elicited`, (C,) or (N, C), found without rounding a probability first.

        >>> from kullback import JensenShannon
        >>> log_q = JensenShannon().elicited_log([[0.9999, 0.0001]])  # its least is 2^(−9999), below every float
        >>> JensenShannon().elicited([0.9999, 0.0001])
        array([1., 0.])
        >>> np.exp(JensenShannon().recover_log(log_q)).round(6)
        array([[9.999e-01, 1.000e-04]])
        """
        self._check_elicits()
        mass = self._effective(base.as_distribution(p, "p"))
        return softmax_odds(self._reported_scores(mass / mass.sum(axis=-1, keepdims=True))).odds.log_p.reshape(
            mass.shape
        )

    def _reports_target(self, n_classes: int) -> bool:
        """Whether the minimiser reports the effective target as it is."""
        return self.truthful and self._offset(n_classes) is None

    def _reported_scores(self, mass: Float) -> Float:
        """Scores (N, C) whose softmax the minimiser reports."""
        scores = self._best_scores(np.atleast_2d(mass))
        offset = self._offset(scores.shape[1])
        return np.asarray(scores if offset is None else scores - offset)

    def recover(self, q: ArrayLike) -> Float:
        """The data's probabilities behind reported ones, the inverse of `elicited`, (C,) or (N, C).

        Undoes, in this order, prior shift, the loss' own distortion (closed form), class weights and smoothing.
        Reported values below what smoothing allows cannot come from any truth; they are moved to the nearest that
        can, kept just above 0 so that their logarithm stays finite. A class of weight 0 taught the model nothing and
        gets 0: the result is the distribution among the classes that count.

        Raises:
            NoProbabilitiesError: if the loss elicits a decision and no distribution.

        >>> from kullback import CrossEntropy
        >>> CrossEntropy(class_weight=[1, 3]).recover([0.5, 0.5])
        array([0.75, 0.25])
        """
        self._check_elicits()
        reported = base.as_distribution(q, "q")
        if self.proper:
            return reported
        with np.errstate(divide="ignore"):
            return np.asarray(np.exp(self.recover_log(np.log(np.atleast_2d(reported)))).reshape(reported.shape))

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities (N, C): exact far below the smallest float when there is no smoothing."""
        self._check_elicits()
        log_p = np.array(log_q, dtype=np.float64)
        n_classes = log_p.shape[-1]
        weight, offset = base.per_class("class_weight", self.class_weight, n_classes), self._offset(n_classes)
        if offset is not None:
            log_p = _normalised(log_p + offset)
        if not self.truthful:
            log_p = _normalised(truth_log(self._log_steepness, log_p))
        if weight is not None:
            with np.errstate(divide="ignore"):
                log_p -= np.log(weight, where=weight > 0, out=np.full_like(weight, math.inf))
            log_p = _normalised(log_p)
        if self.label_smoothing:
            p = unsmooth(np.exp(log_p), self.label_smoothing, n_classes)
            if weight is not None:
                p[..., weight == 0] = 0
            with np.errstate(divide="ignore"):
                log_p = np.log(p / p.sum(axis=-1, keepdims=True))
        return log_p

    def probabilities(self, logits: ArrayLike) -> Array:
        """softmax(logits / T), (N, C): what the model reports. `recover` turns it into the data's own."""
        return self._link(logits, log=False)

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """log softmax(logits / T), (N, C), finite wherever the logits are within range of each other."""
        return self._link(logits, log=True)

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest logit, (N,); the first of equals."""
        return np.asarray(np.argmax(base.as_logits(logits), axis=1))

    # ------------------------------------------------------------ kernels

    def _link(self, logits: ArrayLike, *, log: bool) -> Array:
        array = base.as_logits(logits)
        out = np.empty(array.shape, dtype=array.dtype)
        kernels.active().softmax_probabilities(array, temperature=self.temperature, log=log, out=out)
        return out

    def _recipe(self, n_classes: int) -> SoftmaxRecipe:
        return SoftmaxRecipe(
            family=self.family,
            parameters=self._parameters(),
            smoothing=self.label_smoothing,
            temperature=self.temperature,
            class_weight=base.per_class("class_weight", self.class_weight, n_classes),
            shift=self._shift(n_classes),
            offset=self._offset(n_classes),
        )

    def _targets(self, targets: ArrayLike | Targets) -> ClassTargets:
        return as_class_targets(targets)

    def _summary(self, targets: ClassTargets, n_classes: int, row_weight: Float | None) -> TargetSummary:
        if (
            isinstance(targets, ClassIndices)
            and row_weight is None
            and self.class_weight is None
            and self.ignore_index is None
        ):
            # every row counts alike; whether each is a class, the pass over the logits finds out
            return TargetSummary(len(targets), float(len(targets)))
        return kernels.active().softmax_targets(
            targets,
            n_classes,
            row_weight=row_weight,
            class_weight=base.per_class("class_weight", self.class_weight, n_classes),
            ignore_index=self.ignore_index,
        )

    # ------------------------------------------------------------ helpers

    def _effective(self, mass: Float) -> Float:
        """s = w·((1 − ε)·t + Σt·ε/C) for target mass (C,) or (N, C)."""
        n_classes = mass.shape[-1]
        total = mass.sum(axis=-1, keepdims=True)
        effective = (1 - self.label_smoothing) * mass + self.label_smoothing / n_classes * total
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        return np.asarray(effective if weight is None else effective * weight)

    def _logits(self, scores: Float) -> Float:
        """Logits whose scaled and shifted scores are these."""
        offset = self._offset(scores.shape[-1])
        return np.asarray(self.temperature * (scores if offset is None else scores - offset))

    def _logits_reporting(self, log_q: Float) -> Float:
        """Logits (N, C) at which the model reports these log-probabilities."""
        return self.temperature * log_q

    def _lowest(self, s: Float) -> Float:
        """The lowest loss (N,) of rows of effective target mass (N, C)."""
        total = s.sum(axis=1, keepdims=True)
        share = np.divide(s, total, out=np.full_like(s, 1 / max(s.shape[1], 1)), where=total > 0)
        softmax = softmax_odds(self._best_scores(share))
        n_classes = s.shape[1]
        recipe, family = self._recipe(n_classes), SOFTMAX_FAMILIES[self.family]
        on = family.on(softmax.odds, recipe.parameters, recipe.shift).value
        value = np.where(s > 0, s * np.where(s > 0, on, 0.0), 0.0).sum(axis=1)
        if family.off is not None:
            rest, off = total - s, family.off(softmax.odds, recipe.parameters, recipe.shift).value
            value += np.where(rest > 0, rest * np.where(rest > 0, off, 0.0), 0.0).sum(axis=1)
        if recipe.z_loss:
            value += recipe.z_loss * total[:, 0] * softmax.lse**2
        return np.asarray(value)


def no_probabilities(loss: Loss, why: str) -> NoProbabilitiesError:
    """The error of a loss that elicits a decision only."""
    return NoProbabilitiesError(
        f"{loss} elicits no probabilities: {why}. Train with CrossEntropy() for probabilities, or keep this loss for "
        "its decisions"
    )


def _normalised(log_p: Float) -> Float:
    """Rows of log-probabilities that sum to one."""
    out = np.empty_like(np.atleast_2d(log_p))
    kernels.active().softmax_probabilities(np.atleast_2d(log_p), log=True, out=out)
    return out.reshape(log_p.shape)
