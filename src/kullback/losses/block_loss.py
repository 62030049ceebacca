"""Losses given by functions of a block of rows: users' own, and those whose NumPy reference is such functions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from kullback import kernels
from kullback.kernels import dispatch
from kullback.kernels.recipe import Evaluation, PlainRecipe, Recipe, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Float, Loss
from kullback.targets import ClassTargets, LabelRows, Targets, as_class_targets, as_label_targets


class BlockLoss(Loss):
    """A loss given by functions of a block of rows in float64; targets arrive as dense masses.

    Rows that do not count never arrive, and ignored labels arrive masked: input −inf, mass 0. Rows with a NaN or +inf
    input come out as NaN whatever the functions say. Where the kernels know the loss too, they run it.
    """

    target_form: ClassVar[Literal["classes", "labels"]] = "classes"
    class_weight: tuple[float, ...] | None = None
    ignore_index: int | None = None

    @abstractmethod
    def _values(self, x: Float, s: Float) -> Float:
        """Losses (n,) of inputs x (n, C) and masses s (n, C)."""

    @abstractmethod
    def _gradients(self, x: Float, s: Float) -> Float:
        """Their gradients in x, (n, C)."""

    @abstractmethod
    def _products(self, x: Float, s: Float, v: Float) -> Float:
        """Hessians times v, (n, C)."""

    @abstractmethod
    def _diagonals(self, x: Float, s: Float) -> Float:
        """Diagonals of the Hessians, (n, C)."""

    def _effective(self, mass: Float) -> Float:
        """What the functions get for target mass (n, C)."""
        weight = base.per_class("class_weight", self.class_weight, mass.shape[-1])
        return mass if weight is None else np.asarray(mass * weight)

    def _kernel_recipe(self, n_classes: int) -> Recipe | None:
        """The loss as kernels know it, or None."""
        return None

    def _in_kernels(self, n_classes: int) -> Recipe | None:
        """The recipe, where there are kernels to run it: those in NumPy have no plain losses."""
        recipe = self._kernel_recipe(n_classes)
        return None if isinstance(recipe, PlainRecipe) and dispatch.backend_of(recipe) != "cpu" else recipe

    @property
    def backend(self) -> str:
        """Where the loss runs: ``"cpu"`` (C++), ``"reference"``, or ``"numpy"`` for what is nowhere else."""
        recipe = self._kernel_recipe(base.class_count(self) or 1)
        return "numpy" if recipe is None else dispatch.backend_of(recipe)

    def _targets(self, targets: ArrayLike | Targets) -> Targets:
        return as_label_targets(targets) if self.target_form == "labels" else as_class_targets(targets)

    def _summary(self, targets: Any, n_classes: int, row_weight: Float | None) -> TargetSummary:
        if isinstance(targets, LabelRows):
            return kernels.active().sigmoid_targets(targets, row_weight=row_weight, ignore_index=self.ignore_index)
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
        targets: ClassTargets | LabelRows,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation:
        if (recipe := self._in_kernels(logits.shape[1])) is not None:
            return dispatch.runner(recipe).evaluate(
                recipe,
                logits,
                targets,
                row_weight=row_weight,
                ignore_index=self.ignore_index,
                scale=scale,
                per_example=per_example,
                gradient=gradient,
            )
        counts = self._counted(logits, targets, row_weight)
        if per_example is not None:
            per_example[~counts] = 0
        if gradient is not None:
            gradient[~counts] = 0
        total, infinite_row = 0.0, -1
        for rows, x, s, weight, spoilt in self._blocks(logits, targets, row_weight, counts):
            losses = weight * np.where(spoilt, np.nan, self._values(x, s))
            if infinite_row < 0 and np.isposinf(losses).any():
                infinite_row = int(rows[np.argmax(np.isposinf(losses))])
            total += float(losses.sum())
            if per_example is not None:
                per_example[rows] = losses
            if gradient is not None:
                values = np.where(spoilt[:, None], np.nan, self._gradients(x, s))
                gradient[rows] = scale * weight[:, None] * values
        return Evaluation(total, infinite_row)

    def _hessian_product(
        self, logits: Array, targets: Any, direction: Array, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        if (recipe := self._in_kernels(logits.shape[1])) is not None:
            dispatch.runner(recipe).hessian_product(
                recipe,
                logits,
                targets,
                direction,
                row_weight=row_weight,
                ignore_index=self.ignore_index,
                scale=scale,
                out=out,
            )
            return
        counts = self._counted(logits, targets, row_weight)
        along = direction.copy() if np.may_share_memory(direction, out) else direction
        out[~counts] = 0
        for rows, x, s, weight, spoilt in self._blocks(logits, targets, row_weight, counts):
            values = self._products(x, s, along[rows].astype(np.float64))
            out[rows] = scale * weight[:, None] * np.where(spoilt[:, None], np.nan, values)

    def _hessian_diagonal(
        self, logits: Array, targets: Any, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        if (recipe := self._in_kernels(logits.shape[1])) is not None:
            dispatch.runner(recipe).hessian_diagonal(
                recipe,
                logits,
                targets,
                row_weight=row_weight,
                ignore_index=self.ignore_index,
                scale=scale,
                out=out,
            )
            return
        counts = self._counted(logits, targets, row_weight)
        out[~counts] = 0
        for rows, x, s, weight, spoilt in self._blocks(logits, targets, row_weight, counts):
            out[rows] = scale * weight[:, None] * np.where(spoilt[:, None], np.nan, self._diagonals(x, s))

    def _counted(self, logits: Array, targets: Any, row_weight: Float | None) -> Any:
        return base.checked_rows(targets, logits.shape[1], row_weight, self.ignore_index)

    def _blocks(
        self, logits: Array, targets: Any, row_weight: Float | None, counts: Any
    ) -> Iterator[tuple[Any, Float, Float, Float, Any]]:
        """Row numbers, inputs, masses, weights, and which rows hold a NaN or +inf, a block at a time."""
        n_classes = logits.shape[1]
        counted = np.flatnonzero(counts)
        for rows in np.array_split(counted, 1 + len(counted) * n_classes // base.BLOCK_ELEMENTS):
            x = logits[rows].astype(np.float64)
            part = targets[rows]
            if isinstance(part, LabelRows):
                mass = part.rows.astype(np.float64)
                if self.ignore_index is not None:
                    x[mass == self.ignore_index], mass[mass == self.ignore_index] = -np.inf, 0.0
            else:
                mass = part.dense(n_classes)
            weight = np.ones(len(rows)) if row_weight is None else row_weight[rows]
            yield rows, x, self._effective(mass), weight, (np.isnan(x) | np.isposinf(x)).any(axis=1)
