"""Cross-entropy over mutually exclusive classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback import kernels
from kullback.errors import InputError
from kullback.kernels.recipe import Evaluation, SoftmaxRecipe, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float, Loss
from kullback.losses.recovery import unsmooth
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.targets import ClassTargets, Targets, as_class_targets, counted_rows


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy: −Σ_k s_k·log p_k with p = softmax(logits / T), in nats.

    The effective target is s_k = w_k·((1 − ε)·t_k + Σt·ε/C): class weights w multiply each class' term, and label
    smoothing ε spreads that share of the target evenly (Szegedy et al., 2016, "Rethinking the Inception
    Architecture", §7), both as in PyTorch. The gradient is (p·Σs − s)/T, for one-hot targets p − y: the true class
    is pulled up and every other class pushed down in proportion to its own probability.

    Its minimiser reports q_k ∝ w_k·((1 − ε)·p_k + ε/C) when the truth is p; `recover` undoes that.

    Args:
        class_weight: (C,) costs, finite and non-negative, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

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
    """

    name: ClassVar[str] = "cross_entropy"
    target_form: ClassVar[Literal["classes", "labels"]] = "classes"
    link: ClassVar[str] = "softmax"

    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    temperature: float = 1.0
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_weight", base.class_vector("class_weight", self.class_weight))
        object.__setattr__(self, "label_smoothing", base.check_unit("label_smoothing", self.label_smoothing))
        object.__setattr__(self, "temperature", base.check_positive("temperature", self.temperature))
        object.__setattr__(self, "ignore_index", base.check_ignore_index(self.ignore_index))

    # ------------------------------------------------------------ what the loss is

    @property
    def convex(self) -> bool:
        """True: log-sum-exp is convex and the rest is linear."""
        return True

    @property
    def proper(self) -> bool:
        """True unless smoothing or unequal class weights move the minimiser."""
        return self.label_smoothing == 0 and len(set(self.class_weight or ())) <= 1

    @property
    def bounded_gradient(self) -> bool:
        """True: no component exceeds Σs/T."""
        return True

    @property
    def ceiling(self) -> float:
        """Infinity: a confident mistake costs without limit."""
        return math.inf

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits, log C.

        This holds for any class weights under ``denominator="weights"``; smoothing together with unequal weights
        makes it depend on the class frequencies, and log C is then its value for equally frequent classes.
        """
        base.per_class("class_weight", self.class_weight, n_classes)
        return math.log(n_classes)

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
        """The lowest loss any logits could reach: the entropy of the effective targets, Σs·H(s/Σs).

        Zero for plain class indices; above zero once targets are soft or smoothed, whatever the model.

        Args:
            targets: any class target form.
            n_classes: C, needed for index targets.
            sample_weight: (N,) or None.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            denominator: as for calling the loss.
            empty: as for calling the loss.

        >>> CrossEntropy().floor([[0.5, 0.5]])
        0.6931471805599453
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        counted = np.flatnonzero(counted_rows(wrapped, batch.row_weight, self.ignore_index))
        losses = np.zeros(len(wrapped))
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // 2**20):  # blocks of about 8 MB
            s = self._effective(wrapped[rows].dense(n_classes))
            q = np.divide(s, s.sum(axis=1, keepdims=True), out=np.ones_like(s), where=s > 0)
            losses[rows] = -(s * np.log(q)).sum(axis=1)
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features: T·log of the mean effective target.

        A class that never occurs gets −inf (unless smoothing gives it mass). Adding a constant changes nothing; here
        the logits are log-probabilities times T.

        Raises:
            InputError: if no row counts, or `n_classes` is needed.

        >>> CrossEntropy().probabilities([CrossEntropy().best_constant([0, 0, 0, 1], n_classes=2)])
        array([[0.75, 0.25]])
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, "sum")
        counted = counted_rows(wrapped, batch.row_weight, self.ignore_index)
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        mass = self._effective(wrapped[counted].class_mass(n_classes, weight[counted]))
        if not mass.any():
            raise InputError("no row counts, so there is no best constant")
        with np.errstate(divide="ignore"):
            return np.asarray(self.temperature * np.log(mass / mass.sum()))

    def elicited(self, p: ArrayLike) -> Float:
        """q_k ∝ w_k·((1 − ε)·p_k + ε/C), (C,) or (N, C).

        >>> CrossEntropy(class_weight=[1, 3]).elicited([0.75, 0.25])
        array([0.5, 0.5])
        """
        mass = self._effective(base.as_distribution(p, "p"))
        return np.asarray(mass / mass.sum(axis=-1, keepdims=True))

    def recover(self, q: ArrayLike) -> Float:
        """The data's probabilities behind reported ones: divide by w, take the smoothing out, renormalise.

        Reported values below what smoothing allows cannot come from any truth; they are moved to the nearest that
        can, kept just above 0 so that their logarithm stays finite. A class of weight 0 taught the model nothing and
        gets 0: the result is the distribution among the classes that count.

        >>> CrossEntropy(class_weight=[1, 3]).recover([0.5, 0.5])
        array([0.75, 0.25])
        """
        reported = base.as_distribution(q, "q")
        weight = base.per_class("class_weight", self.class_weight, reported.shape[-1])
        if weight is not None:
            reported = np.divide(reported, weight, out=np.zeros_like(reported), where=weight > 0)
            reported /= reported.sum(axis=-1, keepdims=True)
        if self.label_smoothing:
            reported = unsmooth(reported, self.label_smoothing, reported.shape[-1])
            if weight is not None:
                reported[..., weight == 0] = 0
            reported /= reported.sum(axis=-1, keepdims=True)
        return reported

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities (N, C): exact far below the smallest float when there is no smoothing."""
        log_p = np.array(log_q, dtype=np.float64)
        if self.label_smoothing:
            with np.errstate(divide="ignore"):
                return np.log(self.recover(np.exp(log_p)))
        weight = base.per_class("class_weight", self.class_weight, log_p.shape[-1])
        if weight is None:
            return log_p
        with np.errstate(divide="ignore"):
            log_p -= np.log(weight, where=weight > 0, out=np.full_like(weight, math.inf))
        kernels.active().softmax_probabilities(log_p, log=True, out=log_p)
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
            smoothing=self.label_smoothing,
            temperature=self.temperature,
            class_weight=base.per_class("class_weight", self.class_weight, n_classes),
        )

    def _targets(self, targets: ArrayLike | Targets) -> ClassTargets:
        return as_class_targets(targets)

    def _summary(self, targets: ClassTargets, n_classes: int, row_weight: Float | None) -> TargetSummary:
        return kernels.active().softmax_targets(
            targets,
            n_classes,
            row_weight=row_weight,
            class_weight=base.per_class("class_weight", self.class_weight, n_classes),
            ignore_index=self.ignore_index,
        )

    def _evaluate(
        self,
        logits: Array,
        targets: ClassTargets,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation:
        return kernels.active().softmax_evaluate(
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
        targets: ClassTargets,
        direction: Array,
        *,
        row_weight: Float | None,
        scale: float,
        out: Array,
    ) -> None:
        kernels.active().softmax_hessian_product(
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
        self, logits: Array, targets: ClassTargets, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        kernels.active().softmax_hessian_diagonal(
            self._recipe(logits.shape[1]),
            logits,
            targets,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            scale=scale,
            out=out,
        )

    # ------------------------------------------------------------ helpers

    def _effective(self, mass: Float) -> Float:
        """s = w·((1 − ε)·t + Σt·ε/C) for target mass (C,) or (N, C)."""
        n_classes = mass.shape[-1]
        total = mass.sum(axis=-1, keepdims=True)
        effective = (1 - self.label_smoothing) * mass + self.label_smoothing / n_classes * total
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        return np.asarray(effective if weight is None else effective * weight)
