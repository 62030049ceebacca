"""Where a fit ended, in raw weights: what the fits that leave the scaled variables behind have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import Certificate
from kullback.linear.solvers.base import SolverResult

Vector: TypeAlias = NDArray[np.float64]


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
