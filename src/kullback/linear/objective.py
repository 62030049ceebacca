"""The objective of a linear model: mean loss of X·W + b plus an L2 penalty on W, over scaled parameters.

With S the loss's own denominator (the sum of sample × class weights) and λ = 1/(C·S), minimising

    Σ_i w_i·loss_i / S + ½·λ·‖W‖²

is minimising scikit-learn's C·Σ_i w_i·loss_i + ½·‖W‖², in nats per example. The intercept is not penalised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.linear.design import Design
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import Point
from kullback.losses import Loss
from kullback.targets import Targets

Array = NDArray[Any]
Vector = NDArray[np.float64]


@dataclass(eq=False)
class LinearObjective:
    """A `Problem` over (P,) = V (d, C) row by row, then b' (C,) if there is an intercept.

    Attributes:
        design: data matrix (N, d).
        loss: any loss over N targets.
        targets: wrapped targets.
        sample_weight: (N,) or None.
        n_outputs: C, the number of classes or labels.
        total_weight: S, what the summed loss is divided by.
        penalty: λ ≥ 0 on ½‖W‖², per example.
        fit_intercept: whether b' is a parameter.
        scaling: the change of variables between (V, b') and (W, b).
    """

    design: Design
    loss: Loss
    targets: Targets
    sample_weight: Vector | None
    n_outputs: int
    total_weight: float
    penalty: float
    fit_intercept: bool
    scaling: ColumnScaling
    _blocks: list[tuple[slice, Targets, Vector | None]] = field(init=False, repr=False)
    _logits: Array = field(init=False, repr=False)
    _ones: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ranges = self.design.blocks(self.n_outputs)
        longest = max(rows.stop - rows.start for rows in ranges)
        weight = self.sample_weight
        self._blocks = [(rows, self.targets[rows], None if weight is None else weight[rows]) for rows in ranges]
        self._logits = np.empty((longest, self.n_outputs), dtype=self.design.dtype)
        self._ones = np.ones(longest, dtype=self.design.dtype)

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return (self.design.shape[1] + self.fit_intercept) * self.n_outputs

    def split(self, parameters: Vector) -> tuple[Vector, Vector]:
        """(P,) parameters as V (d, C) and b' (C,), zeros without an intercept."""
        n_weights = self.design.shape[1] * self.n_outputs
        scaled = parameters[:n_weights].reshape(-1, self.n_outputs)
        intercept = parameters[n_weights:] if self.fit_intercept else np.zeros(self.n_outputs)
        return scaled, intercept

    def join(self, scaled: Vector, intercept: Vector) -> Vector:
        """The inverse of `split`."""
        return np.concatenate([scaled.ravel(), intercept]) if self.fit_intercept else scaled.ravel().copy()

    def evaluate(self, parameters: Vector) -> Point:
        """Value and gradient at (P,) parameters, in one pass over the data."""
        weights, intercept = self.scaling.to_raw(*self.split(parameters))
        rounded = weights.astype(self.design.dtype)
        total = 0.0
        pull, pull_intercept = np.zeros_like(weights), np.zeros(self.n_outputs)
        for rows, targets, row_weight in self._blocks:
            logits = self._forward(rows, rounded, intercept, self._logits)
            value, gradient = self.loss.value_and_gradient(
                logits, targets, sample_weight=row_weight, reduction="sum", out=logits
            )
            total += value
            self._backward(rows, gradient, pull, pull_intercept)
        loss = total / self.total_weight
        objective = loss + 0.5 * self.penalty * float(np.vdot(weights, weights))
        return Point(objective, loss, self._to_parameters(pull, pull_intercept, weights))

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """The Hessian at (P,) parameters times a (P,) direction."""
        weights, intercept = self.scaling.to_raw(*self.split(parameters))
        along, along_intercept = self.scaling.to_raw(*self.split(direction))
        dtype = self.design.dtype
        rounded, rounded_along = weights.astype(dtype), along.astype(dtype)
        change = np.empty_like(self._logits)
        pull, pull_intercept = np.zeros_like(weights), np.zeros(self.n_outputs)
        for rows, targets, row_weight in self._blocks:
            logits = self._forward(rows, rounded, intercept, self._logits)
            moved = self._forward(rows, rounded_along, along_intercept, change)
            product = self.loss.hessian_product(logits, targets, moved, sample_weight=row_weight, reduction="sum")
            self._backward(rows, product, pull, pull_intercept)
        return self._to_parameters(pull, pull_intercept, along)

    def _forward(self, rows: slice, weights: Array, intercept: Vector, buffer: Array) -> Array:
        logits = buffer[: rows.stop - rows.start]
        self.design.forward(rows, weights, logits)
        logits += intercept.astype(logits.dtype)
        return logits

    def _backward(self, rows: slice, gradient: Array, pull: Vector, pull_intercept: Vector) -> None:
        self.design.backward(rows, gradient, pull)
        pull_intercept += self._ones[: len(gradient)] @ gradient

    def _to_parameters(self, pull: Vector, pull_intercept: Vector, weights: Vector) -> Vector:
        """Chain rule from Σ_i x_i·g_i (d, C) and Σ_i g_i (C,) to the scaled parameters, penalty added."""
        centred = pull - np.outer(self.scaling.centre, pull_intercept)
        slope = (centred / self.total_weight + self.penalty * weights) / self.scaling.scale[:, None]
        return self.join(slope, pull_intercept / self.total_weight)
