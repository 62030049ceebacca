"""Multi-class hinges: losses on the differences of logits, for decisions and not for probabilities."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback import kernels
from kullback.errors import InputError
from kullback.kernels.recipe import MarginRecipe, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float
from kullback.losses.generic import best_class_logits
from kullback.losses.recipe_loss import RecipeLoss
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.losses.softmax_loss import no_probabilities
from kullback.targets import ClassRows, ClassTargets, Targets, as_class_targets


@dataclass(frozen=True)
class MarginLoss(RecipeLoss):
    """A loss of h(Δ + z_k − z_y) over the rivals k of the true class y, with h(x) = max(0, x) or its square.

    It is zero once the true class leads every rival by the margin Δ, and from then on teaches nothing: the scores of
    a confident model cannot be told from those of a very confident one, and no probabilities can be read from them.
    Soft targets cost what their classes cost on average.

    Args:
        margin: Δ > 0.
        squared: whether hinges are squared.
        class_weight: (C,) costs, or None for all ones.
        ignore_index: class index of rows that do not count, or None.

    Raises:
        InputError: for a setting outside its range.
    """

    target_form: ClassVar[Literal["classes", "labels"]] = "classes"
    link: ClassVar[str] = "none"
    family: ClassVar[str]

    margin: float = 1.0
    squared: bool = False
    class_weight: tuple[float, ...] | None = None
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", base.check_positive("margin", self.margin))
        if not isinstance(self.squared, bool):
            raise InputError(f"squared={self.squared!r} is not True or False")
        object.__setattr__(self, "class_weight", base.class_vector("class_weight", self.class_weight))
        object.__setattr__(self, "ignore_index", base.check_ignore_index(self.ignore_index))

    @abstractmethod
    def _lowest(self, s: Float) -> tuple[Float, float]:
        """Logits (C,) that minimise the loss on target mass s (C,), weights included, and the loss there."""

    # ------------------------------------------------------------ what the loss is

    @property
    def ignores_level(self) -> bool:
        """True: a hinge looks at differences of scores."""
        return True

    @property
    def convex(self) -> bool:
        """True: hinges of linear functions."""
        return True

    @property
    def proper(self) -> bool:
        """False: its minimiser is a decision."""
        return False

    @property
    def bounded_gradient(self) -> bool:
        """True for the hinge; squared, a mistake pulls in proportion to its size."""
        return not self.squared

    @property
    def ceiling(self) -> float:
        """Infinity: a mistake costs in proportion to its size, or to the square of it."""
        return math.inf

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
        """The lowest loss any logits could reach: zero for class indices, above zero for targets that are shared.

        Args:
            targets: any class target form.
            n_classes: C, needed for index targets.
            sample_weight: (N,) or None.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            denominator: as for calling the loss.
            empty: as for calling the loss.

        >>> CrammerSinger().floor([[0.75, 0.25]])
        0.5
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        losses = np.zeros(len(wrapped))
        weight = base.per_class("class_weight", self.class_weight, n_classes)
        counted = np.flatnonzero(base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index))
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // 2**20):
            masses = wrapped[rows].dense(n_classes) * (1.0 if weight is None else weight)
            for i in np.flatnonzero((masses > 0).sum(axis=1) > 1):
                losses[rows[i]] = self._lowest(masses[i])[1]
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features. Plain hinges may have others that are as good.

        Raises:
            InputError: if no row counts, or `n_classes` is needed.

        >>> CrammerSinger().best_constant([0, 0, 0, 1], n_classes=2)
        array([1., 0.])
        """
        wrapped = as_class_targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, "sum")
        counted = base.checked_rows(wrapped, n_classes, batch.row_weight, self.ignore_index)
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        mass = wrapped[counted].class_mass(n_classes, weight[counted])
        class_weight = base.per_class("class_weight", self.class_weight, n_classes)
        mass = mass if class_weight is None else mass * class_weight
        if not mass.any():
            raise InputError("no row counts, so there is no best constant")
        return self._lowest(mass)[0]

    def _refuse(self) -> NoReturn:
        raise no_probabilities(self, "a hinge is zero beyond its margin, so scores say which class and not how likely")

    def elicited(self, p: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the minimiser is a decision."""
        self._refuse()

    def recover(self, q: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the minimiser is a decision."""
        self._refuse()

    def recover_log(self, log_q: ArrayLike) -> Float:
        """Raise NoProbabilitiesError: the minimiser is a decision."""
        self._refuse()

    def probabilities(self, logits: ArrayLike) -> Array:
        """Raise NoProbabilitiesError: scores of a hinge are no log-probabilities."""
        self._refuse()

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """Raise NoProbabilitiesError: scores of a hinge are no log-probabilities."""
        self._refuse()

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest logit, (N,); the first of equals."""
        return np.asarray(np.argmax(base.as_logits(logits), axis=1))

    # ------------------------------------------------------------ kernels

    def _recipe(self, n_classes: int) -> MarginRecipe:
        return MarginRecipe(
            family=self.family,
            margin=self.margin,
            power=2 if self.squared else 1,
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


@dataclass(frozen=True)
class WestonWatkins(MarginLoss):
    """Σ_{k≠y} h(Δ + z_k − z_y): every rival within the margin pushes (Weston & Watkins, 1999).

    The multi-class SVM loss of many courses. PyTorch's ``multi_margin_loss`` is this divided by C.

    Args:
        margin: Δ > 0.
        squared: whether hinges are squared.
        class_weight: (C,) costs, or None for all ones.
        ignore_index: class index of rows that do not count, or None.

    >>> WestonWatkins()([[3.0, 2.5, 0.0, 4.0]], [0])  # 0.5 + 0 + 2
    2.5
    """

    name: ClassVar[str] = "weston_watkins"
    family: ClassVar[str] = "weston_watkins"

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits: C − 1 rivals at the full margin."""
        n_classes = base.check_class_number(n_classes)
        base.per_class("class_weight", self.class_weight, n_classes)
        return float((n_classes - 1) * self.margin ** (2 if self.squared else 1))

    def _lowest(self, s: Float) -> tuple[Float, float]:
        if not self.squared:
            levels = _hinge_levels(s)
            z = self.margin * levels
            return z, float(s @ (np.maximum(0.0, 1 + levels[None, :] - levels[:, None]).sum(axis=1) - 1) * self.margin)
        plain = WestonWatkins(margin=self.margin, squared=True)
        z = best_class_logits(plain, s)
        return z - z.min(), float(plain(z[None, :], ClassRows(s[None, :]), reduction="sum"))


@dataclass(frozen=True)
class CrammerSinger(MarginLoss):
    """max_{k≠y} h(Δ + z_k − z_y): only the strongest rival pushes (Crammer & Singer, 2001).

    scikit-learn's multi-class ``hinge_loss`` is this with Δ = 1. Where no class has a majority its best constant is
    all classes equal, so it can be consistent only on data where one does.

    Args:
        margin: Δ > 0.
        squared: whether hinges are squared.
        class_weight: (C,) costs, or None for all ones.
        ignore_index: class index of rows that do not count, or None.

    >>> CrammerSinger()([[3.0, 2.5, 0.0, 4.0]], [0])
    2.0
    """

    name: ClassVar[str] = "crammer_singer"
    family: ClassVar[str] = "crammer_singer"

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits: the full margin, or 0 for one class."""
        n_classes = base.check_class_number(n_classes)
        base.per_class("class_weight", self.class_weight, n_classes)
        return float(self.margin ** (2 if self.squared else 1)) if n_classes > 1 else 0.0

    def _lowest(self, s: Float) -> tuple[Float, float]:
        total, k = float(s.sum()), int(np.argmax(s))
        z = np.zeros(len(s))
        majority = float(s[k]) / total
        if len(s) == 1:
            return z, 0.0
        if self.squared:
            z[k] = self.margin * max(0.0, 2 * majority - 1)
            return z, total * self.margin**2 * (4 * majority * (1 - majority) if majority > 0.5 else 1.0)
        z[k] = self.margin if majority > 0.5 else 0.0
        return z, total * self.margin * min(1.0, 2 * (1 - majority))


def _hinge_levels(s: Float) -> Float:
    """Whole numbers z (C,) that minimise Σ_y s_y·Σ_{k≠y} max(0, 1 + z_k − z_y).

    The objective is L♮-convex, so some minimiser is integer, and raising sets of classes by one, while that helps,
    ends at one (Murota, "Discrete Convex Analysis", ch. 10). Classes with more mass never come lower, so the sets are
    the leading classes in order of mass. Raising the first j costs j for the mass outside and gains, for the mass
    inside of the level that the set cuts, the number of classes left behind on it.
    """
    order = np.argsort(-s, kind="stable")
    mass = np.concatenate([[0.0], np.cumsum(s[order])])
    n_classes = len(s)
    level = np.zeros(n_classes)
    size = np.arange(1, n_classes)
    while n_classes > 1:
        first = np.searchsorted(-level, -level[size - 1], side="left")  # the cut level's own range
        last = np.searchsorted(-level, -level[size - 1], side="right")
        change = size * (mass[-1] - mass[size]) - (mass[size] - mass[first]) * (last - size)
        best = int(np.argmin(change))
        if not change[best] < -1e-12 * mass[-1]:
            break
        level[: best + 1] += 1
    out = np.empty(n_classes)
    out[order] = level
    return out
