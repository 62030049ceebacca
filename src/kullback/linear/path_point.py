"""The fit of one penalty among several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate
from kullback.linear.solvers import IterationRecord
from kullback.linear.task import Solution

Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PathPoint:
    """The fit of one C.

    Attributes:
        weights: (d, C) of the logits.
        intercept: (C,).
        history: its records, the start first.
        certificate: what is proved of it.
        converged: whether it came as near to its minimum as was asked for.
        ended: why not; otherwise an empty string.
        solver: the solver that ran.
        solver_reason: why that one.
        base: the objective without any weights, in a cross-validation, where that measures the gap.
        score: of held-out rows, in a cross-validation.
    """

    weights: Vector
    intercept: Vector
    history: list[IterationRecord] = field(repr=False)
    certificate: Certificate
    converged: bool
    ended: str
    solver: str
    solver_reason: str
    base: float = float("nan")
    score: float = float("nan")

    @classmethod
    def of(cls, solution: Solution, history: list[IterationRecord]) -> PathPoint:
        """Where a task ended, with the records as they were followed."""
        result = solution.result
        return cls(
            solution.weights,
            solution.intercept,
            history,
            solution.certificate,
            result.converged,
            result.reason,
            solution.solver,
            solution.reason,
        )

    @property
    def n_iter(self) -> int:
        """Iterations used."""
        return self.history[-1].iteration

    @property
    def share(self) -> float:
        """Its gap as a share of `base`; inf where there is none."""
        return self.certificate.gap / self.base if self.base > 0 else self.certificate.gap
