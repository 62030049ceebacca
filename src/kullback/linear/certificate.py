"""How far a linear fit can be from its optimum at most: a duality gap.

Let f(W, b) = Σ_i ω_i·ℓ_i(z_i) + ½λ‖W‖² with logits z_i = Wᵀx_i + b, in nats per example, and α_i a subgradient of
ℓ_i at z_i. By Fenchel's inequality every point α̃ with Σ_i ω_i·α̃_i = 0 (needed only with an intercept) bounds the
optimum from below:

    f* ≥ −Σ_i ω_i·ℓ*_i(α̃_i) − ‖Σ_i ω_i·x_i·α̃_iᵀ‖² / 2λ.

At α̃ = α Fenchel's inequality is an equality, and the gap becomes ‖∂f/∂W‖² / 2λ: for any convex loss, at no cost.

With an intercept, r = Σ_i ω_i·α_i is zero at the optimum only. The α_i are then moved by a shift δ of the intercept
along the curvature H_i of their loss, α̃_i = α_i + H_i·δ with Σ_i ω_i·H_i·δ = −r, which makes the sum exactly zero.
For cross-entropy α̃_i = m·(p̃ − t)/T with p̃ = p∘(1 + (δ − p·δ)/T): again a distribution, as long as the entries of δ
lie within T of each other. What Fenchel's inequality then loses is m·KL(p̃‖p) ≤ m·χ²(p̃‖p) = δᵀH_iδ, so

    f − f* ≤ δᵀHδ + ‖∂f/∂W + H_Wb·δ‖² / 2λ,    H = Σ_i ω_i·H_i.

The same holds per label for binary cross-entropy. For other losses with a continuous gradient the intercept itself is
moved, by Newton steps, to where the α_i sum to zero: there Fenchel's inequality is an equality again, so that the bound
is the objective there less its ‖∂f/∂W‖² / 2λ. Where a loss has kinks no intercept may do that.

Sources: Boyd & Vandenberghe (2004), "Convex Optimization", section 5.1 (weak duality); Gibbs & Su (2002), "On choosing
and bounding probability metrics" (KL ≤ χ²).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kullback.linear.objective import Block, LinearObjective, Vector
from kullback.linear.row_curvature import (
    coupled_probabilities,
    has_dual,
    intercept_curvature,
    row_scale,
    structure_of,
)
from kullback.linear.solvers.base import Point
from kullback.losses import Loss

# Probabilities up to this size are kept between the two passes of a certificate.
KEPT_BYTES = 1 << 25
# Newton steps of an intercept, and the derivative that is as good as none.
MOST_STEPS = 20
NEGLIGIBLE = 1e-14
# The root of the curvature that is as good as none, as a share of the largest one's.
IMMOVABLE = 1e-9
NO_PENALTY = "without a penalty (C=inf) the dual has no finite value off the optimum"
# The rounding of a mean loss over the rows, in units of its last digit.
BLURRED = 1000.0


@dataclass(frozen=True)
class Certificate:
    """What is known of a fit's distance from the optimum.

    Attributes:
        primal: the objective reached, in nats per example, penalty included.
        dual: a value that the optimum cannot lie below; −inf where none is known.
        gap: primal − dual, the most that the objective can still fall.
        relative_gap: gap / dual; inf where dual is not above 0.
        gradient_norm: largest absolute component of the gradient, per column standardised.
        passes: how often the data was read.
        seconds: of the whole fit.
        reason: why there is no finite gap; otherwise an empty string.
    """

    primal: float
    dual: float
    gap: float
    relative_gap: float
    gradient_norm: float
    passes: int
    seconds: float
    reason: str


class Gap(NamedTuple):
    """How far an objective can be above its optimum, in nats per example; inf, and why, if nothing is known."""

    value: float
    reason: str = ""


def why_no_gap(objective: LinearObjective) -> str:
    """Why a problem has no finite duality gap, or an empty string if it has one."""
    loss = objective.loss
    if not loss.convex:
        return f"{loss.name} is not convex, so no point can be proved optimal"
    if objective.penalty == 0:
        return NO_PENALTY
    return ""


def weight_gap(objective: LinearObjective, gradient: Vector) -> float:
    """‖∂f/∂W‖² / 2λ from the gradient in the scaled parameters: the gap, if the intercept is at its optimum."""
    slope, _ = objective.split(gradient)
    raw = slope * objective.scaling.scale[:, None]
    return float(np.vdot(raw, raw)) / (2 * objective.penalty)


def duality_gap(objective: LinearObjective, parameters: Vector, point: Point) -> Gap:
    """Bound how far a point can be above the optimum, in at most two passes over the data.

    Args:
        objective: in float64.
        parameters: (P,).
        point: the objective there.
    """
    reason = why_no_gap(objective)
    if reason:
        return Gap(math.inf, reason)
    balanced = balance(objective, parameters, point)
    if balanced.reason:
        return Gap(math.inf, balanced.reason)
    return Gap(balanced.fenchel + weight_gap(objective, balanced.gradient))


class Balanced(NamedTuple):
    """A dual point whose rows sum to zero, as the intercept demands.

    gradient: (P,) of the objective, had the subgradients of the losses been those of the dual point.
    fenchel: at most how much the losses and their conjugates then differ from Fenchel's equality.
    parameters: (P,) where the dual point is the subgradients themselves; where those are moved, the point they are of.
    reason: why there is none; otherwise an empty string.
    """

    gradient: Vector
    fenchel: float
    parameters: Vector
    reason: str = ""


def balance(objective: LinearObjective, parameters: Vector, point: Point) -> Balanced:
    """Move the subgradients at a point along their curvature until they sum to zero; see the module."""
    if not objective.fit_intercept:
        return Balanced(point.gradient, 0.0, parameters)
    _, pull = objective.split(point.gradient)
    loss = objective.loss
    if not has_dual(loss):
        return _at_best_intercept(objective, parameters, point)
    rows = RowCurvatures(objective)
    curvature = objective.over_logits(parameters, rows.curvature) / objective.total_weight
    shift = balancing_shift(loss, pull, curvature)
    if shift.reason:
        return Balanced(point.gradient, math.inf, parameters, shift.reason)
    return Balanced(point.gradient + rows.moved(parameters, shift.intercept), shift.fenchel, parameters)


class Shift(NamedTuple):
    """What moves the subgradients of a loss with known dual points until they sum to zero.

    intercept: (C,) along whose curvature they are moved.
    fenchel: at most how much the losses and their conjugates then differ from Fenchel's equality.
    reason: why there is none; otherwise an empty string.
    """

    intercept: Vector
    fenchel: float
    reason: str = ""


def balancing_shift(loss: Loss, pull: Vector, curvature: Vector) -> Shift:
    """Find the δ of the module from the mean subgradient (C,) and the mean curvature (C, C) along the intercepts."""
    shift = _solve(curvature, -pull)
    left = pull + curvature @ shift
    if not np.abs(left).max() <= _unbalanced(pull):
        why = "some class has no probability left in any row, so its intercept cannot be balanced"
        return Shift(shift, math.inf, why)
    reach = float(np.ptp(shift)) if loss.link == "softmax" else float(np.abs(shift).max())
    if not reach <= loss.temperature:  # type: ignore[attr-defined]
        return Shift(shift, math.inf, "the intercepts are still far from their optimum")
    return Shift(shift, max(0.0, float(shift @ curvature @ shift)))


def _at_best_intercept(objective: LinearObjective, parameters: Vector, point: Point) -> Balanced:
    """The subgradients where the intercept, with these weights, is at its optimum; see the module."""
    loss, total_weight = objective.loss, objective.total_weight
    n_outputs = objective.n_outputs

    def sums(shift: Vector) -> tuple[float, Vector, Vector]:
        """Mean loss, its gradient (C,) and its Hessian (C, C) in the intercepts, moved by `shift`."""

        def of_block(logits: Vector, block: Block) -> Vector:
            moved, weight = logits + shift, block.sample_weight
            out = np.zeros((n_outputs + 2, n_outputs))
            out[0, 0], gradient = loss.value_and_gradient(moved, block.targets, sample_weight=weight, reduction="sum")
            out[1] = gradient.sum(axis=0)
            out[2:] = intercept_curvature(loss, moved, block.targets, weight)
            return out

        found = objective.over_logits(parameters, of_block) / total_weight
        return float(found[0, 0]), found[1], found[2:]

    shift = np.zeros(n_outputs)
    value, pull, curvature = sums(shift)
    allowed = _unbalanced(pull)
    step = _solve(curvature, -pull)
    for _ in range(MOST_STEPS):
        # At the rounding of the sum there is nothing left to gain, whatever the last digits say.
        if np.abs(pull).max() <= NEGLIGIBLE or not step.any():
            break
        tried = sums(shift + step)
        steepest = np.abs(pull).max()
        # Between values that differ by no more than the rounding of their sums the slope decides.
        rounding = (BLURRED if np.abs(tried[1]).max() < steepest else 4.0) * np.finfo(np.float64).eps * abs(value)
        if tried[0] <= value + rounding and np.isfinite(tried[1]).all():
            if np.abs(tried[1]).max() >= steepest and steepest <= allowed:
                break
            shift, (value, pull, curvature) = shift + step, tried
            step = _solve(curvature, -pull)
        else:
            step = step / 4
    if not np.abs(pull).max() <= allowed:
        why = (
            f"with these weights no intercept balances the slopes of {loss.name}: they are far from their optimum, or "
            "the loss has kinks where they are"
        )
        return Balanced(point.gradient, math.inf, parameters, why)
    weights, intercept = objective.split(parameters)
    moved = objective.join(weights, intercept + shift)
    there = objective.evaluate(moved)
    return Balanced(there.gradient, max(0.0, point.objective - there.objective), moved)


def _unbalanced(pull: Vector) -> float:
    """By how much a sum of subgradients may differ from zero: what rounding leaves of it."""
    return float(1e-11 + 1e-9 * np.abs(pull).max())


class RowCurvatures:
    """The curvature of every row's loss: summed over the rows, and times a shift of the intercept.

    The probabilities of the first serve the second too, where they do not take too much memory.
    """

    def __init__(self, objective: LinearObjective) -> None:
        self._objective = objective
        self._coupled = structure_of(objective.loss) == "coupled" and objective.n_outputs > 1
        keeps = self._coupled and 16 * objective.design.shape[0] * objective.n_outputs <= KEPT_BYTES
        self._kept: dict[int, tuple[Vector, Vector]] | None = {} if keeps else None

    def curvature(self, logits: Vector, block: Block) -> Vector:
        """Σ over the rows of a block (C, C)."""
        loss = self._objective.loss
        if not self._coupled:
            return intercept_curvature(loss, logits, block.targets, block.sample_weight)
        p = coupled_probabilities(loss, logits)
        weighted = p * row_scale(loss, block.targets, logits.shape[1], block.sample_weight)[:, None]
        if self._kept is not None:
            self._kept[block.rows.start] = p, weighted
        return np.asarray(np.diag(weighted.sum(axis=0)) - weighted.T @ p)

    def moved(self, parameters: Vector, shift: Vector) -> Vector:
        """The Hessian of the objective times a shift (C,) of the intercepts, (P,)."""
        objective = self._objective
        if self._kept is None:
            still = np.zeros((objective.design.shape[1], objective.n_outputs))
            return objective.hessian_product(parameters, objective.join(still, shift))
        kept = self._kept

        def pull(block: Block) -> Vector:
            p, weighted = kept[block.rows.start]
            return np.asarray(weighted * (shift - (p @ shift)[:, None]))

        return objective.pulled(pull)


def _solve(curvature: Vector, target: Vector) -> Vector:
    """The least shift with curvature @ shift = target; the curvature may be singular along equal shifts."""
    # Classes may differ in frequency by many orders of magnitude: scaled to a unit diagonal first. Those without any
    # examples have next to none (see `absent`), and are not moved.
    diagonal = np.sqrt(np.maximum(np.diag(curvature), 0))
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > IMMOVABLE * diagonal.max())
    scaled = curvature * inverse[:, None] * inverse
    solution, *_ = np.linalg.lstsq(scaled, target * inverse, rcond=1e-13)
    return np.asarray(solution * inverse)
