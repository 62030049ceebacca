"""A linear problem whose penalty has a kink at zero: objective, duality gap, and what is proved to be zero.

With λ·Ω the penalty (see `penalties`), f(W, b) = Σ_i ω_i·ℓ_i(z_i) + λ·Ω(W). From a dual point α with Σ_i ω_i·α_i = 0
(see `certificate`) and G = Σ_i ω_i·x_i·α_iᵀ, Fenchel's inequality bounds the optimum from below,

    f* ≥ −Σ_i ω_i·ℓ*_i(α_i) − (λΩ)*(−G),

where (λΩ)* is finite only if no |G_jk| (no ‖G_j‖ for groups) exceeds the factor τ of the norm, unless there is a
ridge. So the point is shrunk to θ·α, θ ≤ 1. A conjugate is convex, and −ℓ*(0) = inf ℓ ≥ 0, hence
−ℓ*(θα) ≥ −θ·ℓ*(α), and

    f* ≥ θ·(−Σ_i ω_i·ℓ*_i(α_i)) − (λΩ)*(−θG)    for every θ in [0, 1].

Where the gap at θ·α is g and every ω_i·ℓ_i has curvature at most κ_i, the optimal dual point lies close: the norm of
Σ_i x_ij·(Δ of row i) is at most r_j = sqrt(2g·Σ_i κ_i·(x_ij − m_j)²), so that W_jk = 0 at the optimum wherever
θ·|G_jk| + r_j < τ.

Sources: Fercoq, Gramfort & Salmon (2015), "Mind the duality gap: safer rules for the lasso"; Ndiaye, Fercoq, Gramfort
& Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.certificate import balance
from kullback.linear.objective import LinearObjective
from kullback.linear.penalties import Penalty, weight_rows
from kullback.linear.row_curvature import has_dual, row_scale, structure_of
from kullback.linear.solvers.base import Point

Vector: TypeAlias = NDArray[np.float64]
Array: TypeAlias = NDArray[Any]

# Shares of the way from the feasible dual point to the unshrunk one that are tried where a ridge allows both.
_SHARES = np.linspace(0.0, 1.0, 9)


class Bound(NamedTuple):
    """What is proved at a point.

    value: what the optimum cannot lie below; −inf if nothing is known.
    slopes: (d, K) the θ·G it was proved with.
    reason: why nothing is known; otherwise an empty string.
    """

    value: float
    slopes: Vector
    reason: str = ""


class SparseObjective:
    """Loss plus penalty over (P,) = V (d, K) row by row, then b' (K,), in the scaled variables of `smooth`.

    With two classes K is 1 and the parameters are those of the difference of the two logits, unless the loss minds
    their level; otherwise K is C.

    Args:
        smooth: the mean loss, without a penalty.
        penalty: of the raw weights, per example.
    """

    def __init__(self, smooth: LinearObjective, penalty: Penalty) -> None:
        self.smooth = smooth.by_blocks()
        self.penalty = penalty
        self.n_outputs = weight_rows(smooth.loss, smooth.n_outputs)
        self.spread: Array | None = np.array([[-0.5, 0.5]]) if self.n_outputs < smooth.n_outputs else None
        self.n_columns = smooth.design.shape[1]
        scale = smooth.scaling.scale
        self.thresholds = penalty.lasso / scale
        self.ridges = penalty.ridge / np.square(scale)

    @property
    def size(self) -> int:
        """P."""
        return (self.n_columns + self.smooth.fit_intercept) * self.n_outputs

    def split(self, parameters: Vector) -> tuple[Vector, Vector]:
        """(P,) as V (d, K) and b' (K,), zeros without an intercept."""
        count = self.n_columns * self.n_outputs
        intercept = parameters[count:] if self.smooth.fit_intercept else np.zeros(self.n_outputs)
        return parameters[:count].reshape(-1, self.n_outputs), intercept

    def expand(self, parameters: Vector) -> Vector:
        """The parameters of `smooth`, with one column a logit."""
        if self.spread is None:
            return parameters
        return np.asarray((parameters[:, None] @ self.spread).ravel())

    def from_raw(self, weights: Vector, intercept: Vector) -> Vector:
        """The (P,) parameters of raw weights (d, C) and intercepts (C,)."""
        whole = self.smooth.join(*self.smooth.scaling.from_raw(weights, intercept))
        return whole if self.spread is None else np.diff(whole.reshape(-1, 2)).ravel()

    def contract(self, gradient: Vector) -> Vector:
        """The derivative in our parameters from that in those of `smooth`."""
        if self.spread is None:
            return gradient
        return np.asarray((gradient.reshape(-1, 2) @ self.spread.T).ravel())

    def penalty_at(self, parameters: Vector) -> float:
        """λ·Ω of the raw weights."""
        return self.penalty.value(self._raw(parameters))

    def evaluate(self, parameters: Vector) -> Point:
        """The objective, the loss, and the gradient of all but the norm, at (P,) parameters."""
        return self._with_penalty(parameters, self.smooth.evaluate(self.expand(parameters)))

    def _with_penalty(self, parameters: Vector, point: Point) -> Point:
        gradient = self.contract(point.gradient)
        if self.penalty.ridge:
            scaled, _ = self.split(parameters)
            gradient = gradient.copy()
            gradient[: scaled.size] += (self.ridges[:, None] * scaled).ravel()
        return Point(point.loss + self.penalty_at(parameters), point.loss, gradient)

    def centred(self, parameters: Vector, point: Point) -> tuple[Vector, Point]:
        """Of all parameters with the same probabilities, those with the least penalty, and the objective there.

        Adding one number to a feature's weights in all classes changes no probability of a coupled loss. No step in
        one weight at a time finds that number: the loss forbids each, and allows all together.
        """
        if self.spread is not None or self.n_outputs == 1 or structure_of(self.smooth.loss) != "coupled":
            return parameters, point
        scaled, _ = self.split(parameters)
        used = np.flatnonzero(scaled.any(axis=1))
        rows = scaled[used]
        if self.penalty.grouped:
            shifted = rows - rows.mean(axis=1, keepdims=True)
        else:
            shifted = rows + _best_shift(rows, self.thresholds[used], self.ridges[used])[:, None]
        before, moved = self.penalty_at(parameters), parameters.copy()
        moved[: scaled.size].reshape(scaled.shape)[used] = shifted
        lower = self.penalty_at(moved) - before
        if not lower < 0:
            return parameters, point
        gradient = point.gradient
        if self.penalty.ridge:
            gradient = gradient.copy()
            gradient[: scaled.size].reshape(scaled.shape)[used] += self.ridges[used, None] * (shifted - rows)
        return moved, Point(point.objective + lower, point.loss, gradient)

    def violations(self, parameters: Vector, gradient: Vector) -> Vector:
        """(P,) or (d + intercept, ) for groups: the least subgradient's size in scaled variables, entry by entry."""
        scaled, _ = self.split(parameters)
        slope, pull = self.split(gradient)
        tau = self.thresholds[:, None]
        if self.penalty.grouped:
            size = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
            used = size > 0
            along = slope + np.divide(tau * scaled, size, out=np.zeros_like(scaled), where=used)
            out = np.sqrt(np.square(slope).sum(axis=1, keepdims=True)) - tau
            least = np.where(used, np.sqrt(np.square(along).sum(axis=1, keepdims=True)), np.maximum(out, 0.0))
            found = np.broadcast_to(least, slope.shape)
        else:
            used = scaled != 0
            found = np.where(used, np.abs(slope + tau * np.sign(scaled)), np.maximum(np.abs(slope) - tau, 0.0))
        return np.concatenate([found.ravel(), np.abs(pull)]) if self.smooth.fit_intercept else found.ravel()

    def bound(
        self,
        parameters: Vector,
        point: Point,
        *,
        rough: bool = False,
        more: Callable[[Vector], float] = lambda parameters: 0.0,
    ) -> Bound:
        """A value below the optimum.

        Args:
            parameters: (P,).
            point: the objective there.
            rough: take the intercept for optimal, and spend no pass over the data on it; then the value is a guess.
            more: what the dual point at parameters of `smooth` is worth besides; nothing, by default.
        """
        scaled, _ = self.split(parameters)
        loss_gradient = point.gradient
        if self.penalty.ridge:
            loss_gradient = loss_gradient.copy()
            loss_gradient[: scaled.size] -= (self.ridges[:, None] * scaled).ravel()
        fenchel, expanded = 0.0, self.expand(parameters)
        if self.smooth.fit_intercept and not rough:
            known = Point(point.loss, point.loss, np.zeros(self.smooth.size))
            known = known._replace(gradient=self._uncontracted(loss_gradient, expanded))
            balanced = balance(self.smooth, expanded, known)
            if balanced.reason:
                return Bound(-math.inf, np.zeros_like(scaled), balanced.reason)
            loss_gradient, fenchel = self.contract(balanced.gradient), balanced.fenchel
            expanded = balanced.parameters
        slopes = self.split(loss_gradient)[0] * self.smooth.scaling.scale[:, None]
        raw = self._raw(parameters)
        whole = point.loss - float(np.vdot(raw, slopes)) - fenchel + more(expanded)
        largest = float(self.penalty.sizes(slopes).max(initial=0.0))
        feasible = min(1.0, self.penalty.lasso / largest) if largest > 0 else 1.0
        best, best_share = -math.inf, feasible
        shares = feasible + (1.0 - feasible) * _SHARES if self.penalty.ridge else np.array([feasible])
        for share in shares:
            # Rounding may leave the shrunk point a hair outside; without a ridge that must not count as infinite.
            cost = self.penalty.conjugate(share * slopes) if self.penalty.ridge else 0.0
            value = share * whole - cost
            if value > best:
                best, best_share = value, share
        return Bound(best, best_share * slopes)

    def reach(self) -> Vector | None:
        """(d,) r_j / √gap of the module's last inequality, or None where the loss's curvature has no known bound."""
        smooth = self.smooth
        loss = smooth.loss
        if not has_dual(loss):
            return None
        if structure_of(loss) == "coupled":
            scale = row_scale(loss, smooth.targets, smooth.n_outputs, smooth.sample_weight)
            # λ_max(diag p − p·pᵀ) ≤ ½; along the difference of two logits the direction (−½, ½) has length √½.
            most = 0.5 * scale * (0.5 if self.spread is not None else 1.0)
        elif loss.link == "sigmoid":
            zero = np.zeros((len(smooth.targets), smooth.n_outputs))
            diagonal = loss.hessian_diagonal(zero, smooth.targets, sample_weight=smooth.sample_weight, reduction="sum")
            most = diagonal.max(axis=1)
        else:
            return None
        weight = np.ones(len(most)) if smooth.sample_weight is None else smooth.sample_weight
        counted = weight > 0
        ratio = float(np.max(most[counted] / weight[counted]))
        # Σ_i ω_i·(x_ij − m_j)² = Σω·σ_j², and the scale lies above σ_j.
        share = ratio * float(weight.sum()) / smooth.total_weight
        return np.asarray(math.sqrt(2.0 * share) * smooth.scaling.scale)

    def zeros(self, bound: Bound, gap: float, reach: Vector) -> NDArray[np.bool_]:
        """(d,) which features have weights of exactly zero in all outputs at the optimum, proved by gap-safe rules."""
        sizes = self.penalty.sizes(bound.slopes)
        largest = sizes if sizes.ndim == 1 else sizes.max(axis=1, initial=0.0)
        return np.asarray(largest + reach * math.sqrt(max(gap, 0.0)) < self.penalty.lasso * (1 - 1e-9))

    def _raw(self, parameters: Vector) -> Vector:
        return self.split(parameters)[0] / self.smooth.scaling.scale[:, None]

    def _uncontracted(self, gradient: Vector, expanded: Vector) -> Vector:
        """The gradient in the parameters of `smooth` behind a contracted one.

        For two classes the two columns are opposite, because adding a number to both logits changes nothing.
        """
        if self.spread is None:
            return gradient
        return np.asarray((gradient[:, None] @ np.array([[-1.0, 1.0]])).ravel())


def _best_shift(rows: Vector, threshold: Vector, ridge: Vector) -> Vector:
    """(m,) the c that minimise τ·Σ_k |v_k + c| + ½ρ·Σ_k (v_k + c)² for rows v (m, K); zero where nothing is better.

    The slope in c rises by 2τ as each weight passes zero, and by K·ρ in between.
    """
    n_outputs = rows.shape[1]
    ordered = np.sort(rows, axis=1)
    # With i weights below zero: slope τ·(K − 2i) + ρ·(Σv + K·c) = 0.
    signs = n_outputs - 2.0 * np.arange(n_outputs + 1)
    best, least = np.zeros(len(rows)), np.full(len(rows), np.inf)
    candidates = [-ordered[:, k] for k in range(n_outputs)]
    if ridge.any():
        free = -(threshold[:, None] * signs / (n_outputs * ridge[:, None])) - rows.mean(axis=1, keepdims=True)
        candidates += list(free.T)
    candidates.insert(0, best.copy())
    for shift in candidates:
        moved = rows + shift[:, None]
        cost = threshold * np.abs(moved).sum(axis=1) + 0.5 * ridge * np.square(moved).sum(axis=1)
        lower = cost < least * (1 - 1e-14)
        best[lower], least[lower] = shift[lower], cost[lower]
    return best
