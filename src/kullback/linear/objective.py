"""The objective of a linear model: mean loss of X·W + b plus an L2 penalty on W, over scaled parameters.

With S the loss's own denominator (the sum of sample × class weights) and λ = 1/(C·S), minimising

    Σ_i w_i·loss_i / S + ½·λ·‖W‖²

is minimising scikit-learn's C·Σ_i w_i·loss_i + ½·‖W‖², in nats per example. The intercept is not penalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kullback.linear.dense_pass import dense_pass
from kullback.linear.design import Design, Rows
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import Point
from kullback.losses import Loss
from kullback.losses.base import Batch, warn_infinite
from kullback.targets import Targets

Array = NDArray[Any]
Vector = NDArray[np.float64]


class Block(NamedTuple):
    """Some rows with their targets and weights, and both as the loss has checked them."""

    rows: slice
    targets: Targets
    sample_weight: Vector | None
    checked: Batch


class BlockSum(NamedTuple):
    """Sums over rows: of the loss, of x_i·g_i (d, C), and of g_i (C,)."""

    value: float
    pull: Array
    pull_intercept: Array


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
        run: `map`, or one that runs several blocks at once and keeps their order.
        passes: how often the data was read so far.
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
    run: Callable[..., Iterator[Any]] = map
    passes: int = field(default=0, init=False)
    _buffers: SimpleQueue[Array] = field(init=False, repr=False)
    _ridge: Vector = field(init=False, repr=False)
    _pass: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ridge = (self.penalty / self.scaling.scale**2)[:, None]
        self._buffers = SimpleQueue()
        self._pass = dense_pass(
            self.design,
            self.loss,
            self.targets,
            self.sample_weight,
            self.n_outputs,
            fit_intercept=self.fit_intercept,
        )

    def by_blocks(self) -> LinearObjective:
        """This objective with its passes made of a call for each step of each block.

        Penalties with a kink need it: with columns stored twice, whose steps are told apart by rounding alone, a fit by
        one-call passes stops short of the optimum.
        """
        self._pass = None
        return self

    @cached_property
    def _blocks(self) -> list[Block]:
        weight = self.sample_weight
        return [
            self._block(rows, self.targets[rows], None if weight is None else weight[rows])
            for rows in self.design.blocks(self.n_outputs)
        ]

    @cached_property
    def _ones(self) -> Array:
        return np.ones(max(block.rows.stop - block.rows.start for block in self._blocks), dtype=self.design.dtype)

    def _block(self, rows: slice, targets: Targets, weight: Vector | None) -> Block:
        n_rows = rows.stop - rows.start
        return Block(rows, targets, weight, Batch(self.loss, (n_rows, self.n_outputs), targets, weight, "sum"))

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return (self.design.shape[1] + self.fit_intercept) * self.n_outputs

    @property
    def rounding(self) -> float:
        """The relative rounding of a value: a few times that of the logits it is made of."""
        return 4 * float(np.finfo(self.design.dtype).eps)

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
        if self._pass is not None:
            loss, pulled = self._one_call(parameters)
            weights, _ = self.split(parameters)
            bend = self._ridge * weights
            objective = loss + 0.5 * float(np.vdot(weights, bend))
            pulled[: bend.size] += bend.ravel()
            return Point(objective, loss, pulled)
        multiplied = self._multiplied(parameters)

        def one(block: Block) -> BlockSum:
            with self._buffer(block) as logits:
                rows = self.design.rows(block.rows)
                self._forward(rows, multiplied, logits)
                value = self.loss._run(logits, block.checked, None, logits)
                return self._backward(rows, value, logits)

        total, pull, pull_intercept = self._sum(one)
        loss = total / self.total_weight
        weights, _ = self.split(parameters)
        bend = self._ridge * weights
        objective = loss + 0.5 * float(np.vdot(weights, bend))
        return Point(objective, loss, self._to_parameters(pull, pull_intercept, bend))

    def with_penalty_of(self, point: Point, parameters: Vector, others: Vector) -> Point:
        """The value and gradient at other (P,) parameters, at which the losses are those of a known point."""
        weights, _ = self.split(others)
        bend = self._ridge * weights
        gradient = point.gradient.copy()
        gradient[: bend.size] += (bend - self._ridge * self.split(parameters)[0]).ravel()
        return Point(point.loss + 0.5 * float(np.vdot(weights, bend)), point.loss, gradient)

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """The Hessian at (P,) parameters times a (P,) direction."""
        if self._pass is not None:
            _, product = self._one_call(parameters, direction)
            straight, _ = self.split(direction)
            product[: straight.size] += (self._ridge * straight).ravel()
            return product
        multiplied, multiplied_along = self._multiplied(parameters), self._multiplied(direction)

        def one(block: Block) -> BlockSum:
            with self._buffer(block) as logits, self._buffer(block) as moved:
                rows = self.design.rows(block.rows)
                self._forward(rows, multiplied, logits)
                self._forward(rows, multiplied_along, moved)
                product = self.loss.hessian_product(
                    logits, block.targets, moved, sample_weight=block.sample_weight, reduction="sum"
                )
                return self._backward(rows, 0.0, product)

        _, pull, pull_intercept = self._sum(one)
        along, _ = self.split(direction)
        return self._to_parameters(pull, pull_intercept, self._ridge * along)

    def _one_call(self, parameters: Vector, direction: Vector | None = None) -> tuple[float, Vector]:
        """The mean loss and its gradient (P,), or its Hessian times a direction, without the penalty's share."""
        self.passes += 1
        sums = np.empty((self.size // self.n_outputs, self.n_outputs))
        if direction is None:
            total, _, infinite_row, _, _ = self._pass.evaluate(self._stacked(parameters), sums)
        else:
            total, _, infinite_row, _, _ = self._pass.product(self._stacked(parameters), self._stacked(direction), sums)
        if infinite_row >= 0:
            warn_infinite(infinite_row, stacklevel=5)
        if not self.design.standardised:
            if self.fit_intercept:
                sums[:-1] -= np.outer(self.scaling.centre, sums[-1])
                sums[:-1] /= self.scaling.scale[:, None]
            else:
                sums /= self.scaling.scale[:, None]
        sums /= self.total_weight
        return total / self.total_weight, sums.ravel()

    def _stacked(self, parameters: Vector) -> Vector:
        """The weights of the design's columns (d, C), with the intercepts below them if there are any."""
        if self.design.standardised:
            return parameters
        weights, intercept = self.scaling.to_raw(*self.split(parameters))
        return np.concatenate([weights, intercept[None]]) if self.fit_intercept else weights

    def over_logits(self, parameters: Vector, function: Callable[[Array, Block], Array]) -> Array:
        """Σ over blocks of `function` of the block's logits (n, C), in one pass over the data."""
        multiplied = self._multiplied(parameters)

        def one(block: Block) -> Array:
            with self._buffer(block) as logits:
                self._forward(self.design.rows(block.rows), multiplied, logits)
                return function(logits, block)

        self.passes += 1
        parts = self.run(one, self._blocks)
        total: Array = next(parts).astype(np.float64)
        for part in parts:
            total += part
        return total

    def pulled(self, pull: Callable[[Block], Array]) -> Vector:
        """The data term's gradient (P,), had the losses the derivatives `pull` (n, C) in their logits."""

        def one(block: Block) -> BlockSum:
            return self._backward(self.design.rows(block.rows), 0.0, pull(block))

        _, pull_weights, pull_intercept = self._sum(one)
        return self._to_parameters(pull_weights, pull_intercept, np.zeros_like(pull_weights))

    def _sum(self, one: Callable[[Block], BlockSum]) -> BlockSum:
        self.passes += 1
        total, pull = 0.0, np.zeros((self.design.shape[1], self.n_outputs))
        pull_intercept = np.zeros(self.n_outputs)
        for part in self.run(one, self._blocks):
            total += part.value
            pull += part.pull
            pull_intercept += part.pull_intercept
        return BlockSum(total, pull, pull_intercept)

    def _multiplied(self, parameters: Vector) -> tuple[Array, Array | None]:
        """What the design's columns are multiplied by, and what is added, in its precision."""
        if self.design.with_ones:
            return parameters.reshape(-1, self.n_outputs).astype(self.design.dtype), None
        weights, intercept = self.split(parameters)
        if not self.design.standardised:
            weights, intercept = self.scaling.to_raw(weights, intercept)
        return weights.astype(self.design.dtype), intercept.astype(self.design.dtype)

    @contextmanager
    def _buffer(self, block: Block) -> Iterator[Array]:
        """Lend an (n, C) array; as many are made as are ever in use at once, and no more."""
        try:
            whole = self._buffers.get_nowait()
        except Empty:
            whole = np.empty((len(self._ones), self.n_outputs), dtype=self.design.dtype)
        try:
            yield whole[: block.rows.stop - block.rows.start]
        finally:
            self._buffers.put(whole)

    def _forward(self, rows: Rows, multiplied: tuple[Array, Array | None], out: Array) -> None:
        weights, intercept = multiplied
        rows.forward(weights, out)
        if intercept is not None:
            out += intercept

    def _backward(self, rows: Rows, value: float, gradient: Array) -> BlockSum:
        pull = rows.backward(gradient)
        if self.design.with_ones:
            return BlockSum(value, pull[:-1], pull[-1])
        return BlockSum(value, pull, self._ones[: len(gradient)] @ gradient)

    def _to_parameters(self, pull: Vector, pull_intercept: Vector, bend: Vector) -> Vector:
        """Chain rule from Σ_i x_i·g_i (d, C) and Σ_i g_i (C,) to the scaled parameters, the penalty's share added."""
        if not self.design.standardised:
            pull = (pull - np.outer(self.scaling.centre, pull_intercept)) / self.scaling.scale[:, None]
        return self.join(pull / self.total_weight + bend, pull_intercept / self.total_weight)
