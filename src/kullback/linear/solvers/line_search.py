"""A step along a descent direction that satisfies the strong Wolfe conditions, or those that rounding leaves.

Source: Nocedal & Wright (2006), "Numerical Optimization", algorithms 3.5 and 3.6, for the bracket and the zoom;
Hager & Zhang (2005), "A new conjugate gradient method with guaranteed descent and an efficient line search",
equation 4.1, for the test that uses slopes alone where two values differ by less than their rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from kullback.linear.solvers.base import Point, Vector

DECREASE = 1e-4
CURVATURE = 0.9
MOST_TRIALS = 30
# Where values cannot be told apart, the slope must have turned by this share to count as a decrease.
SLOPE_SHARE = 0.1


class Step(NamedTuple):
    """An accepted step: its length, and the objective there."""

    length: float
    parameters: Vector
    point: Point


class _Trial(NamedTuple):
    length: float
    value: float
    slope: float


def search(
    evaluate: Callable[[Vector], Point],
    start: Vector,
    point: Point,
    direction: Vector,
    *,
    length: float = 1.0,
    rounding: float,
) -> Step | None:
    """Find a step from `start` along `direction`.

    Args:
        evaluate: value and gradient at (P,) parameters.
        start: (P,).
        point: the objective at `start`.
        direction: (P,), downhill.
        length: the first step tried.
        rounding: how far two values may lie apart without meaning anything.

    Returns:
        The step, or None where no step lowers the objective beyond rounding. Where the slope jumps, as that of a sharp
        softmax does at long steps, none of those tried may have one that is flat enough: then it is the best of them.
    """
    origin = _Trial(0.0, point.objective, float(point.gradient @ direction))
    if not origin.slope < 0:
        return None
    low, high, best = origin, None, None
    for _ in range(MOST_TRIALS):
        parameters = start + length * direction
        reached = evaluate(parameters)
        trial = _Trial(length, reached.objective, float(reached.gradient @ direction))
        if not _lower(trial, origin, rounding) or (trial.value > low.value + rounding and low is not origin):
            high = trial
        elif abs(trial.slope) <= CURVATURE * abs(origin.slope):
            return Step(length, parameters, reached)
        elif trial.slope < 0:
            low, best = trial, Step(length, parameters, reached)
        else:
            high = trial
        if high is None:
            length *= 4.0
        else:
            length = _between(low, high)
            if not min(low.length, high.length) < length < max(low.length, high.length):
                break
    return best


def _lower(trial: _Trial, origin: _Trial, rounding: float) -> bool:
    if not (math.isfinite(trial.value) and math.isfinite(trial.slope)):
        return False
    if trial.value <= origin.value + DECREASE * trial.length * origin.slope:
        return True
    # (2δ − 1)·φ′(0) ≥ φ′(α): the sufficient decrease of a parabola, told by its slopes.
    return trial.value <= origin.value + rounding and trial.slope <= (2 * SLOPE_SHARE - 1) * origin.slope


def _between(low: _Trial, high: _Trial) -> float:
    """The minimum of the cubic through both ends, kept away from them; halfway where there is none."""
    width = high.length - low.length
    halfway = low.length + 0.5 * width
    if not (math.isfinite(high.value) and math.isfinite(high.slope)):
        return low.length + 0.1 * width
    bend = low.slope + high.slope - 3 * (low.value - high.value) / (low.length - high.length)
    discriminant = bend * bend - low.slope * high.slope
    if discriminant < 0:
        return halfway
    root = math.copysign(math.sqrt(discriminant), width)
    below = high.slope - low.slope + 2 * root
    if below == 0:
        return halfway
    length = high.length - width * (high.slope + root - bend) / below
    share = (length - low.length) / width
    return low.length + min(max(share, 0.05), 0.95) * width if math.isfinite(share) else halfway
