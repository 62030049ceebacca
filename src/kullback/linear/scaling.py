"""A change of variables that puts every column on the same footing without touching the data.

A fit on raw columns (income in dollars beside age in years) is badly conditioned. Standardising the data would cost a
copy and destroy sparsity; the same effect comes from optimising over V = s∘W and b' = b + μᵀW, since
X·W + b = ((X − μ)/s)·V + b'. The penalty stays on W, so the minimiser is the one of the raw columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kullback.linear.design import DenseDesign, SparseDesign

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ColumnScaling:
    """The change of variables.

    Attributes:
        centre: (d,) μ, zeros without an intercept.
        scale: (d,) s > 0.
    """

    centre: Vector
    scale: Vector

    def to_raw(self, scaled: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """From (V, b') to (W, b): shapes (d, C) and (C,)."""
        weights = scaled / self.scale[:, None]
        return weights, intercept - self.centre @ weights

    def from_raw(self, weights: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """From (W, b) to (V, b'): shapes (d, C) and (C,)."""
        return weights * self.scale[:, None], intercept + self.centre @ weights


def column_scaling(
    design: DenseDesign | SparseDesign,
    sample_weight: Vector | None,
    *,
    penalty: float,
    curvature: float,
    fit_intercept: bool,
    run: Callable[..., Iterator[Any]] = map,
) -> ColumnScaling:
    """Choose the scales that give the objective the same curvature along every column at the start.

    Along W_j the curvature is about κ·σ_j² from the loss plus λ from the penalty, so s_j² = σ_j² + λ/κ.

    Args:
        design: the data.
        sample_weight: (N,) or None.
        penalty: λ, per example.
        curvature: κ, the loss's mean second derivative in one logit.
        fit_intercept: without an intercept columns cannot be centred, and σ_j² is the second moment about zero.
        run: runs several calls at once and keeps their order.
    """
    mean, variance = design.column_moments(sample_weight, run)
    if not fit_intercept:
        variance = variance + mean**2
        mean = np.zeros_like(mean)
    # Rounding leaves a constant column with a variance of about (eps·mean)²; scaled up it would only be noise.
    rounding = 8 * float(np.finfo(design.dtype).eps) * np.abs(mean)
    variance = np.where(np.sqrt(variance) <= rounding, 0.0, variance)
    scale = np.sqrt(variance + penalty / curvature)
    scale[~(scale > 0) | ~np.isfinite(scale)] = 1.0
    return ColumnScaling(mean, scale)
