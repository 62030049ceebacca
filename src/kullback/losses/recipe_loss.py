"""Losses that the kernels run as a recipe: what one hands to them, and where it runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from kullback.kernels import dispatch
from kullback.kernels.recipe import Evaluation, Recipe
from kullback.losses import base
from kullback.losses.base import Array, Float, Loss


class RecipeLoss(Loss):
    """A loss whose rows a backend evaluates, given its recipe."""

    ignore_index: int | None

    @abstractmethod
    def _recipe(self, n_classes: int) -> Recipe:
        """The loss as the kernels take it, for this number of classes or labels."""

    @property
    def backend(self) -> str:
        """Where the loss runs: ``"cpu"`` (C++), or ``"reference"`` (NumPy, slow) for what C++ does not cover."""
        return dispatch.backend_of(self._recipe(base.class_count(self) or 1))

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
        recipe = self._recipe(logits.shape[1])
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

    def _hessian_product(
        self, logits: Array, targets: Any, direction: Array, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        recipe = self._recipe(logits.shape[1])
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

    def _hessian_diagonal(
        self, logits: Array, targets: Any, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        recipe = self._recipe(logits.shape[1])
        dispatch.runner(recipe).hessian_diagonal(
            recipe, logits, targets, row_weight=row_weight, ignore_index=self.ignore_index, scale=scale, out=out
        )
