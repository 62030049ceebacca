"""What a solver is given and what it gives back; solvers know nothing of losses, columns or classes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

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


Apply: TypeAlias = Callable[[Vector], Vector]


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

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """How far a point is from the optimum, in the unit of the tolerance, and the point as now known."""

    def refine(self) -> bool:
        """Compute more exactly from now on; False if nothing more exact is left."""

    @property
    def estimate_passes(self) -> float:
        """How many evaluations it takes as long as to make what `precondition` returns."""

    def precondition(self, parameters: Vector) -> Apply | None:
        """What applies an estimate of the inverse Hessian at (P,) parameters, or None for no estimate."""


@dataclass(frozen=True)
class IterationRecord:
    """One accepted step.

    Attributes:
        iteration: 0 for the starting point.
        objective: penalised objective in nats per example.
        loss: data term in nats per example; at zero parameters log C for cross-entropy.
        gradient_norm: largest absolute component of the gradient, per column standardised.
        distance: the relative duality gap, as far as it is known by then, or the gradient norm where there is none;
            what the tolerance is compared with.
        seconds: time since the solver started.
    """

    iteration: int
    objective: float
    loss: float
    gradient_norm: float
    distance: float
    seconds: float


@dataclass(frozen=True, eq=False)
class SolverResult:
    """Where a solver stopped and why.

    Attributes:
        parameters: (P,) the best parameters found.
        converged: whether the last distance is within the tolerance.
        reason: why it stopped, when it did not converge; otherwise an empty string.
        history: one record per accepted iterate, the start first.
    """

    parameters: Vector
    converged: bool
    reason: str
    history: tuple[IterationRecord, ...]


Callback = Callable[[IterationRecord], object]


class History:
    """The records of accepted steps, each told to `callback` as it comes; `began` is the time they count from."""

    def __init__(self, callback: Callback, began: float) -> None:
        self._callback, self._began = callback, began
        self._records: list[IterationRecord] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, point: Point, gradient_norm: float, distance: float) -> None:
        """Record a step."""
        seconds = time.perf_counter() - self._began
        record = IterationRecord(len(self), point.objective, point.loss, gradient_norm, distance, seconds)
        self._records.append(record)
        self._callback(record)

    def result(self, parameters: Vector, reason: str = "") -> SolverResult:
        """Where the solver stopped: converged, unless there is a reason why not."""
        return SolverResult(parameters, not reason, reason, tuple(self._records))


class Solver(Protocol):
    """Minimises a problem from a starting point."""

    def __call__(
        self, problem: Problem, start: Vector, *, tol: float, max_iter: int, callback: Callback
    ) -> SolverResult:
        """Minimise.

        Args:
            problem: what to minimise.
            start: (P,) starting parameters.
            tol: stop once the distance from the optimum is not above this.
            max_iter: stop after this many accepted steps.
            callback: called with the record of every accepted step, the start included. Whatever it raises passes
                through.
        """
