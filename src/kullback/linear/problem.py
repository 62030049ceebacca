"""What a linear fit gives its solver: the objective in two precisions, its gap, and a preconditioner.

Passes over the data run in float32 as long as that is enough. What decides that a fit is done is computed in float64,
from the data as given; where float32 leaves too much rounding to get there, the rest of the fit runs in float64.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from kullback.linear.certificate import Certificate, duality_gap, weight_gap, why_no_gap
from kullback.linear.column_curvature import ColumnCurvature
from kullback.linear.curvature import SubsampledCurvature
from kullback.linear.objective import LinearObjective, Vector
from kullback.linear.solvers.base import Apply, Point

# A mean over the classes below this share of the largest parameter is rounding.
UNCENTRED = 1e-12


class LinearProblem:
    """A `Problem` whose distance from the optimum is the relative duality gap, or the gradient where there is none.

    Args:
        exact: the objective in float64.
        fast: the same in float32, or None to compute everything in float64.
        tol: the distance that ends the fit.
        curvature: makes preconditioners, or None for a problem that does without.
    """

    def __init__(
        self,
        exact: LinearObjective,
        fast: LinearObjective | None,
        *,
        tol: float,
        curvature: SubsampledCurvature | ColumnCurvature | None = None,
    ) -> None:
        self.exact = exact
        self._fast = fast
        self._active = exact if fast is None else fast
        self._tol = tol
        self._curvature = curvature
        self._began = time.perf_counter()
        self._why_no_gap = why_no_gap(exact)
        self._dual, self._reason = -math.inf, self._why_no_gap
        # An exact check costs several passes, so it waits until the cheap one has fallen this low.
        self._check_below = tol
        self._proved_at: tuple[Vector, Point] | None = None

    @property
    def tol(self) -> float:
        """The distance that ends the fit."""
        return self._tol

    @property
    def size(self) -> int:
        """P."""
        return self.exact.size

    @property
    def passes(self) -> int:
        """How often the data was read."""
        return self.exact.passes + (0 if self._fast is None else self._fast.passes)

    @property
    def rounding(self) -> float:
        """Relative rounding of a value."""
        return self._active.rounding

    def evaluate(self, parameters: Vector) -> Point:
        """Value and gradient at (P,) parameters."""
        return self._active.evaluate(parameters)

    def hessian_product(self, parameters: Vector, direction: Vector) -> Vector:
        """The Hessian at (P,) parameters times a (P,) direction."""
        return self._active.hessian_product(parameters, direction)

    @property
    def estimate_passes(self) -> float:
        """How many evaluations it takes as long as to make an estimate of the inverse Hessian, where it is whole."""
        return self._curvature.passes if isinstance(self._curvature, SubsampledCurvature) else math.inf

    def precondition(self, parameters: Vector) -> Apply | None:
        """Apply an estimate of the inverse Hessian at (P,) parameters."""
        return None if self._curvature is None else self._curvature.inverse_at(parameters)

    def refine(self) -> bool:
        """Compute in float64 from now on; False if that is so already."""
        rounded = self._active is not self.exact
        self._active = self.exact
        return (self._curvature is not None and self._curvature.refine()) or rounded

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """The distance from the optimum, and the point as exactly as it has become known."""
        cheap = self._cheap(point)
        # What was proved at an earlier point still holds, as far as this value is not rounded.
        known = relative_gap(point.objective, self._dual)
        if cheap > self._check_below and known > self._tol:
            return unproved(cheap, known, self._tol), point
        exact_point = self._exactly(parameters, point)
        distance = _norm(exact_point) if self._why_no_gap else self._prove(parameters, exact_point)
        if distance <= self._tol:
            return distance, exact_point
        # Rounding is to blame where float64 sees a much larger gradient than float32 did.
        if known <= self._tol or self._cheap(exact_point) > max(self._tol, 2 * cheap):
            self._active = self.exact
            return distance, exact_point
        self._check_below = cheap / 4
        return distance, point

    def centred(self, parameters: Vector) -> Vector:
        """Of all parameters (P,) with the same logits but for shifts of all outputs, those with the least penalty.

        They have mean zero over the outputs. For a loss that such shifts do not change: what is known of the point
        given is then known of this one too, without a pass over the data.
        """
        by_output = parameters.reshape(-1, self.exact.n_outputs)
        mean = by_output.mean(axis=1, keepdims=True)
        if np.abs(mean).max(initial=0.0) <= UNCENTRED * np.abs(by_output).max(initial=0.0):
            return parameters
        moved: Vector = (by_output - mean).ravel()
        if self._proved_at is not None and np.array_equal(self._proved_at[0], parameters):
            self._proved_at = moved, self.exact.with_penalty_of(self._proved_at[1], parameters, moved)
        return moved

    def prove(self, dual: float) -> None:
        """Take in a value that the optimum cannot lie below, found elsewhere."""
        self._dual = max(self._dual, dual)

    def certificate(self, parameters: Vector) -> Certificate:
        """What is proved of (P,) parameters, in float64."""
        point = self._exactly(parameters, None)
        distance = relative_gap(point.objective, self._dual)
        if not self._why_no_gap and distance > self._tol:
            distance = self._prove(parameters, point)
        return Certificate(
            primal=point.objective,
            dual=float(min(self._dual, point.objective)),  # the bound may round to a hair above what it bounds
            gap=distance * self._dual if math.isfinite(distance) else point.objective - self._dual,
            relative_gap=distance,
            gradient_norm=_norm(point),
            passes=self.passes,
            seconds=time.perf_counter() - self._began,
            reason="" if math.isfinite(self._dual) else self._reason,
        )

    def _prove(self, parameters: Vector, point: Point) -> float:
        """The relative gap, from the best bound known so far."""
        gap = duality_gap(self.exact, parameters, point)
        dual = point.objective - gap.value
        if dual > self._dual:
            self._dual = dual
            # Not from the difference of the two, which rounds.
            return gap.value / dual if dual > 0 else relative_gap(gap.value, 0.0)
        self._reason = gap.reason or self._reason
        return relative_gap(point.objective, self._dual)

    def _exactly(self, parameters: Vector, point: Point | None) -> Point:
        if self._proved_at is None or not np.array_equal(self._proved_at[0], parameters):
            known = point is not None and self._active is self.exact
            self._proved_at = (
                parameters.copy(),
                point if point is not None and known else self.exact.evaluate(parameters),
            )
        return self._proved_at[1]

    def _cheap(self, point: Point) -> float:
        if self._why_no_gap:
            return _norm(point)
        if not point.gradient.any():
            return 0.0
        gap = weight_gap(self.exact, point.gradient)
        return gap / point.objective if point.objective > 0 else math.inf


def relative_gap(primal: float, dual: float) -> float:
    """(primal − dual) / dual, never below 0; 0 where they meet, otherwise inf where the dual is not above 0."""
    if primal <= dual:
        return 0.0
    return float(max(0.0, primal - dual) / dual) if dual > 0 else math.inf


def unproved(cheap: float, known: float, tol: float) -> float:
    """The distance to report where a cheap estimate has not been proved: what ends a fit must be `known`.

    The estimate may be too low: it leaves the intercept out, or comes from a rough bound.
    """
    return min(cheap, known) if cheap > tol else known


def _norm(point: Point) -> float:
    return float(np.abs(point.gradient).max(initial=0.0))


class Watched:
    """A problem that remembers the last point a solver accepted: every such point is checked.

    Attributes:
        parameters: (P,) that point.
    """

    def __init__(self, problem: Any, start: Vector) -> None:
        self._problem = problem
        self.parameters = start

    def check(self, parameters: Vector, point: Point) -> tuple[float, Point]:
        """As the problem's own."""
        self.parameters = parameters
        checked: tuple[float, Point] = self._problem.check(parameters, point)
        return checked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)
