"""Whether the rounding of float64 alone keeps a duality gap open.

The gap of a weak penalty is what the gradient leaves over, divided by the penalty: of an L2 penalty the sum of
g_j²·s_j²/2λ over the columns standardised by s_j, of the norms the largest excess of |g_j| over τ/s_j, as a share of
that. Near the optimum g_j is rounding, a few 1e-16 nats; beside columns of large numbers, which need next to no
weights, that may be more than the penalty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What a standardised gradient is rounded by, in nats.
GRADIENT = 8 * float(np.finfo(np.float64).eps)


def lost_in_rounding(scale: NDArray[np.float64], *, lasso: float, ridge: float, tol: float, objective: float) -> str:
    """Why no gap of `tol` can be proved whatever the solver does, or an empty string if it can.

    Args:
        scale: (d,) of the columns.
        lasso: factor of the norm, per example.
        ridge: factor of ½‖W‖², per example.
        tol: the relative gap wanted.
        objective: in nats per example.
    """
    widest = float(scale.max(initial=0.0))
    # Without one of the two there is nothing that it could close the gap with.
    norm_is_lost = lasso * tol < GRADIENT * widest
    ridge_is_lost = 2 * ridge * tol * objective < (GRADIENT * widest) ** 2
    if not (lasso or ridge) or not (norm_is_lost and ridge_is_lost):
        return ""
    return (
        f"beside columns that spread over {widest:.2g} the penalty on their weights is lost in float64's rounding; "
        "standardise the columns"
    )
