"""Whether the rounding of float64 alone keeps a duality gap open.

The gap of a weak penalty is what the gradient leaves over, divided by the penalty: of an L2 penalty the sum of
g_j²·s_j²/2λ over the columns standardised by s_j, of the norms the largest excess of |g_j| over τ/s_j, as a share of
that. Near the optimum g_j is rounding, a few 1e-16 nats; beside columns of large numbers, which need next to no
weights, that may be more than the penalty.

Of examples on a kink of the loss more is lost. Their slopes lie between those on its two sides, as far as the kink is
rounded off, over μ margins, and change by 1/μ there: what float64 rounds of logits z, or of the weights that make them,
is multiplied by that. The mean of h·|z|, with h the second derivative of the rounded-off loss, times float64's ε, says
how much that may be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What a standardised gradient is rounded by, in nats.
GRADIENT = 8 * float(np.finfo(np.float64).eps)
# Columns that spread over less than this are not what loses a penalty.
WIDE = 1e2


def lost_in_rounding(
    scale: NDArray[np.float64], *, lasso: float, ridge: float, tol: float, objective: float, kinks: float = 0.0
) -> str:
    """Why no gap of `tol` can be proved whatever the solver does, or an empty string if it can.

    Args:
        scale: (d,) of the columns.
        lasso: factor of the norm, per example.
        ridge: factor of ½‖W‖², per example.
        tol: the relative gap wanted.
        objective: in nats per example.
        kinks: what a standardised gradient is rounded by because examples lie on kinks of the loss, in nats.
    """
    widest = float(scale.max(initial=0.0))

    def lost(gradient: float) -> bool:
        # Without one of the two there is nothing that it could close the gap with.
        norm_is_lost = lasso * tol < gradient * widest
        ridge_is_lost = 2 * ridge * tol * objective < (gradient * widest) ** 2
        return bool(lasso or ridge) and norm_is_lost and ridge_is_lost

    if lost(GRADIENT):
        if widest < WIDE:
            return f"the penalty, {max(lasso, ridge):.1e} per example, is lost in float64's rounding; lower C"
        return (
            f"beside columns that spread over {widest:.2g} the penalty on their weights is lost in float64's rounding; "
            "standardise the columns"
        )
    if lost(kinks):
        return (
            f"of the examples on a kink of the loss float64 rounds the slopes by {kinks:.1e} nats, which is too much "
            "beside so weak a penalty; lower C, or take sample weights that differ less"
        )
    return ""
