"""How strong a penalty the data needs: C found on held-out rows.

The penalty is loosened tenfold at a time, each fit starting from the one before, as long as the held-out loss improves
by more than its own noise: a paired form of the one-standard-error rule (Breiman et al., 1984, "Classification and
Regression Trees", §3.4.3), which keeps the stronger penalty where a small fold cannot tell two apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

WEAKEST, STRONGEST = 1e4, 1e-4
_STEP = 10.0
# Less than this share of the loss is not worth a tenfold weaker penalty, however many rows make it certain.
_WORTH = 1e-3

Fitted = TypeVar("Fitted")


@dataclass(frozen=True, eq=False)
class Trial(Generic[Fitted]):
    """One penalty tried.

    Attributes:
        C: the inverse strength.
        fitted: what was fitted with it.
        losses: (N,) held-out losses in nats.
    """

    C: float
    fitted: Fitted
    losses: NDArray[np.float64]

    @property
    def loss(self) -> float:
        """The mean held-out loss."""
        return float(self.losses.mean())


def choose_strength(
    fit: Callable[[float, Fitted | None], Fitted], judge: Callable[[Fitted], NDArray[np.float64]], n_rows: int
) -> tuple[Trial[Fitted], list[Trial[Fitted]]]:
    """Fit along a path of penalties and stop where a weaker one no longer helps.

    The path begins where the penalty weighs about a hundredth of a row's loss, C ≈ 100/N, between 1e-4 and 1. If
    nothing is gained by loosening it there, it is tightened instead by the same rule.

    Args:
        fit: fits with a given C, starting from an earlier result or, for None, from nothing.
        judge: held-out losses (N,) of what was fitted.
        n_rows: training rows.

    Returns:
        The chosen trial, and all trials in order.
    """
    start = 10.0 ** min(max(round(math.log10(100 / max(n_rows, 1))), -4), 0)

    def attempt(C: float, before: Trial[Fitted] | None) -> Trial[Fitted]:
        fitted = fit(C, None if before is None else before.fitted)
        return Trial(C, fitted, judge(fitted))

    best = attempt(start, None)
    trials = [best]
    for step in (_STEP, 1 / _STEP):
        while STRONGEST * 0.99 < best.C * step < WEAKEST * 1.01:
            candidate = attempt(float(f"{best.C * step:.1e}"), best)
            trials.append(candidate)
            if not _better(candidate.losses, best.losses):
                break
            best = candidate
        if start != best.C:
            break
    return best, trials


def _better(new: NDArray[np.float64], old: NDArray[np.float64]) -> bool:
    if not np.isfinite(old).all():
        return bool(np.isfinite(new).all())
    gain = old - new
    noise = gain.std() / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return bool(gain.mean() > max(noise, _WORTH * old.mean()))
