"""The base class of a user's own loss: a value is enough, a gradient makes it fast."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from kullback.errors import ShapeError
from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.block_loss import BlockLoss
from kullback.losses.solved_loss import SolvedLoss

# fourth-order central differences: (f(−2h) − 8f(−h) + 8f(h) − f(2h)) / 12h; h balances h⁴ against rounding / h
_STEP = float(np.finfo(np.float64).eps) ** 0.2
_WEIGHTS = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


@dataclass(frozen=True)
class UserLoss(SolvedLoss, BlockLoss):
    """Write `value`, give the class a `name`, and the loss does what every loss does.

    `value` gets a block of rows in float64: logits (n, C) and the target's mass (n, C), one-hot for class indices.
    Return one loss per row, in nats. Sample weights, ignored rows, reductions, all target forms and every method of
    `Loss` come with the class, and `kullback.testing.check_loss` checks the result. The loss must be linear in the
    mass: a soft target costs what its classes cost on average, and a row of zeros nothing.

    Without `gradient`, derivatives are fourth-order central differences of the value in float64 with steps of about
    7e-4, good to about 1e-11 of the loss' own scale where it is smooth, at 4·C evaluations a row. With it, Hessians
    are differences of the gradient. A kink gets the slope between its sides.

    What the loss means (`elicited`, `recover`, `floor`, `best_constant`) is solved for numerically. Claims that cannot
    be found out (`convex`, `proper`, `bounded_gradient`, `ceiling`) start out cautious; override them.

    Args:
        ignore_index: class index of rows that do not count, or None.

    >>> class Hellinger(UserLoss):
    ...     name = "hellinger"
    ...
    ...     def value(self, logits, mass):
    ...         p = self.probabilities(logits)
    ...         return (mass * (1 - np.sqrt(p))).sum(axis=1)
    >>> loss = Hellinger()
    >>> round(loss([[0.0, 0.0]], [0]), 4)
    0.2929
    >>> loss.value_and_gradient([[0.0, 0.0]], [0])[1].round(4)
    array([[-0.1768,  0.1768]])
    """

    name: ClassVar[str] = "user_loss"
    target_form: ClassVar[Literal["classes", "labels"]] = "classes"
    link: ClassVar[str] = "softmax"
    symmetric: ClassVar[bool] = (
        True  # whether all classes are alike; an ordinal loss says False, and is not tried on it
    )

    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignore_index", base.check_ignore_index(self.ignore_index))

    # ------------------------------------------------------------ what a user writes

    @abstractmethod
    def value(self, logits: Float, mass: Float) -> Float:
        """Losses (n,) of logits (n, C) and target mass (n, C)."""

    def gradient(self, logits: Float, mass: Float) -> Float:
        """Gradients (n, C); if not overridden, central differences of `value`."""
        x, result = logits.copy(), np.empty_like(logits)
        for k in range(logits.shape[1]):
            own = logits[:, k]
            step = np.where(np.isfinite(own), _STEP * np.maximum(1.0, np.abs(own)), 0.0)
            change = np.zeros(len(own))
            for times, weight in _WEIGHTS:
                x[:, k] = own + times * step
                change += weight * self.value(x, mass)
            x[:, k] = own
            result[:, k] = np.divide(change, step, out=np.zeros_like(change), where=step > 0)
        return result

    # ------------------------------------------------------------ cautious claims

    @property
    def convex(self) -> bool:
        """False unless overridden."""
        return False

    @property
    def proper(self) -> bool:
        """False unless overridden: then `recover` is solved for."""
        return False

    @property
    def bounded_gradient(self) -> bool:
        """False unless overridden."""
        return False

    @property
    def ceiling(self) -> float:
        """Infinity unless overridden."""
        return float("inf")

    # ------------------------------------------------------------ blocks

    def _values(self, x: Float, s: Float) -> Float:
        losses = np.asarray(self.value(x, s), dtype=np.float64)
        if losses.shape != (len(x),):
            raise ShapeError(
                f"{type(self).__name__}.value returned shape {losses.shape}, expected ({len(x)},): one loss a row"
            )
        return losses

    def _gradients(self, x: Float, s: Float) -> Float:
        pulls = np.asarray(self.gradient(x, s), dtype=np.float64)
        if pulls.shape != x.shape:
            raise ShapeError(
                f"{type(self).__name__}.gradient returned shape {pulls.shape}, expected {x.shape}, the logits' own"
            )
        return pulls

    def _products(self, x: Float, s: Float, v: Float) -> Float:
        along = np.where(np.isfinite(x), v, 0.0)
        size = np.abs(along).max(axis=1, keepdims=True)
        reach = np.maximum(1.0, np.abs(np.where(np.isfinite(x), x, 0.0)).max(axis=1, keepdims=True))
        step = np.divide(_STEP * reach, size, out=np.zeros_like(size), where=size > 0)
        change = np.zeros_like(x)
        for times, weight in _WEIGHTS:
            change += weight * self._gradients(x + times * step * along, s)
        return np.asarray(np.divide(change, step, out=np.zeros_like(x), where=step > 0))

    def _diagonals(self, x: Float, s: Float) -> Float:
        diagonal = np.empty_like(x)
        for k in range(x.shape[1]):
            unit = np.zeros_like(x)
            unit[:, k] = 1.0
            diagonal[:, k] = self._products(x, s, unit)[:, k]
        return diagonal
