"""Where a fit ended, in raw weights, and what every fit is given to run side by side and to report to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate
from kullback.linear.solvers.base import IterationRecord, SolverResult

Vector: TypeAlias = NDArray[np.float64]
# Weights (d, C) and intercepts (C,).
Parameters: TypeAlias = tuple[Vector, Vector]
# `map`, or one that runs several calls at once and keeps their order.
Run: TypeAlias = Callable[..., Iterator[Any]]
# Called with the record of every accepted step, and a function that gives the raw weights and intercepts there.
Follow: TypeAlias = Callable[[IterationRecord, Callable[[], Parameters]], object]


@dataclass(frozen=True, eq=False)
class RawFit:
    """Where a fit ended.

    Attributes:
        weights: (d, C) raw weights of the logits.
        intercept: (C,).
        result: what the solver says, of all columns.
        certificate: what is proved.
    """

    weights: Vector
    intercept: Vector
    result: SolverResult
    certificate: Certificate
