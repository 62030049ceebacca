"""What a solver is given and what it gives back; solvers know nothing of losses, columns or classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Point(NamedTuple):
    """A smooth objective at one place.

    objective: the minimised value, in nats per example, penalty included.
    loss: its data term alone, in nats per example.
    gradient: (P,) derivative of the objective.
    """

    objective: float
    loss: float
    gradient: Vector


class Problem(Protocol):
    """A smooth convex function of P parameters, scaled so that its curvature is of the order of one."""

    @property
    def size(self) -> int:
        """P, the number of parameters."""

    @property
    def rounding(self) -> float:
        """How far two values may lie apart, as a share of either, without meaning anything."""

    def evaluate(self, parameters: Vector) -> Point:
        """Value and gradient at (P,) parameters."""

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """The Hessian at (P,) parameters times a (P,) direction."""


@dataclass(frozen=True)
class IterationRecord:
    """One accepted step.

    Attributes:
        iteration: 0 for the starting point.
        objective: penalised objective in nats per example.
        loss: data term in nats per example; at zero parameters log C for cross-entropy.
        gradient_norm: largest absolute component of the scaled gradient, which the tolerance is compared with.
        seconds: time since the solver started.
    """

    iteration: int
    objective: float
    loss: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True, eq=False)
class SolverResult:
    """Where a solver stopped and why.

    Attributes:
        parameters: (P,) the best parameters found.
        converged: whether the gradient norm is within the tolerance.
        reason: why it stopped, when it did not converge; otherwise an empty string.
        history: one record per accepted iterate, the start first.
    """

    parameters: Vector
    converged: bool
    reason: str
    history: tuple[IterationRecord, ...]


Callback = Callable[[IterationRecord], object]


class Solver(Protocol):
    """Minimises a problem from a starting point."""

    def __call__(
        self, problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback
    ) -> SolverResult:
        """Minimise.

        Args:
            problem: what to minimise.
            start: (P,) starting parameters.
            tol: stop once no component of the gradient exceeds this.
            max_iter: stop after this many accepted steps.
            callback: called with the record of every accepted step, the start included. Whatever it raises passes
                through.
        """
