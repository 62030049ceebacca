"""A hinge, a ridge and norms over some columns as one convex program, and the steps that solve it.

The unknowns are the weights and what `hinge_duals` and `norm_cones` hold. A step is Mehrotra's: first towards products
of zero, which tells how far those can be lowered at once, and then towards that, with the terms of second order that
the first try shows; both by one factorisation.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kullback.linear.hinge_duals import HingeDuals, Step
from kullback.linear.norm_cones import NormCones, NormStep
from kullback.linear.penalties import Penalty
from kullback.linear.raw_fit import Run

Vector: TypeAlias = NDArray[np.float64]

# Share of the way to the nearest boundary that a step goes.
INTERIOR = 0.99
# What holds weights that nothing else holds, as a share of their curvature: the first that rounding lets be factorised.
STEADY = (1e-13, 1e-11, 1e-9, 1e-7)
# The least curvature that it is a share of, as a share of the mean one.
LEAST_BENT = 1e-6
# How often a solution is corrected for what was raised, and for rounding.
CORRECTIONS = 2
# By how much the duals may be out of balance in a proof.
BALANCED = 1e-11
# Rows that are looked at together where their products take memory.
ROWS_AT_ONCE = 1024


class InteriorProgram:
    """Minimise Σ ω·hinge + ½·Σ ρ·w² + Σ τ·‖w‖ over the weights of some columns.

    Args:
        taken: (E, P) what the weights of each example are multiplied by: p standardised columns, perhaps a one.
        duals: of the hinges; they start afresh, with the dual points they were made with.
        spread: (K, C) how the logits follow from the K outputs.
        penalty: of the raw weights.
        scale: (p,) of the columns.
        at: (P, K) where to start, in scaled variables.
        run: runs several calls at once and keeps their order.
    """

    def __init__(
        self,
        taken: Vector,
        duals: HingeDuals,
        spread: Vector,
        penalty: Penalty,
        scale: Vector,
        at: Vector,
        run: Run,
    ) -> None:
        self.at, self._taken, self._duals, self._spread = at, taken, duals, spread
        self._penalty, self._scale, self._run = penalty, scale, run
        self._p, width = len(scale), len(spread)
        self._ridge = np.zeros((len(at), 1))
        self._ridge[: self._p, 0] = penalty.ridge / np.square(scale)
        duals.restart(self._leads(at))
        thresholds, held = penalty.lasso / scale, at[: self._p]
        if not penalty.lasso:
            thresholds, held = np.empty(0), np.empty((0, 1))
        elif not penalty.grouped:
            thresholds, held = np.repeat(thresholds, width), held.reshape(-1, 1)
        self._cones = NormCones(held, thresholds, duals.products() / duals.count)
        self._look()

    @property
    def products(self) -> float:
        """The sum of all slacks times their duals: the gap, once the duals are feasible."""
        return self._duals.products() + self._cones.products()

    @property
    def slopes(self) -> Vector:
        """(p, K) derivatives of the loss, by the examples' duals, in the scaled weights."""
        return self._pull[: self._p]

    @property
    def balanced(self) -> bool:
        """Whether the examples' duals sum to zero in every class, as far as an intercept asks for it."""
        return bool(np.abs(self._pull[self._p :]).max(initial=0.0) <= BALANCED)

    @property
    def residual(self) -> Vector:
        """(P, K) by how much the slopes of loss, ridge and norms do not sum to zero."""
        total = self._pull + self._ridge * self.at
        if self._cones.count:
            total[: self._p] += self._cones.slopes.reshape(self._p, -1)
        return total

    def value(self, at: Vector) -> float:
        """The objective at weights (P, K)."""
        return self._duals.loss(self._leads(at)) + self._penalty.value(at[: self._p] / self._scale[:, None])

    def with_zeros(self, share: float) -> Vector:
        """(P, K) the weights, those exactly zero that tend to it; see `NormCones.used`."""
        at = self.at.copy()
        if not self._cones.count:
            return at
        at[: self._p] = np.where(self._cones.used(share)[:, None], self._cones.weights, 0.0).reshape(self._p, -1)
        return at

    def advance(self) -> bool:
        """Take a step; False if rounding allows none."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a step that is not finite is none
            return self._advance()

    def _advance(self) -> bool:
        duals, cones = self._duals, self._cones
        cones.scale()
        solve = self._factorised()
        if solve is None:
            return False
        residual = self.residual

        def step(target: float, before: tuple[Step | None, NormStep | None]) -> tuple[Vector, Step, NormStep]:
            still = duals.step(np.zeros_like(duals.alpha), target, before[0])
            held = cones.step(np.zeros_like(cones.weights), target, before[1])
            wanted = residual + self._pulled(still.alpha)
            wanted[: self._p] += held.slopes.reshape(self._p, -1) if cones.count else 0.0
            moved = solve(-wanted)
            of_norms = moved[: self._p].reshape(cones.weights.shape) if cones.count else cones.weights
            of_leads = duals.moved(self._taken @ moved @ self._spread)
            return moved, duals.step(of_leads, target, before[0]), cones.step(of_norms, target, before[1])

        count, mean = duals.count + cones.count, self.products
        _, hinges, norms = step(0.0, (None, None))
        length = min(1.0, duals.longest(hinges), cones.longest(norms))
        ahead = duals.products(hinges, length) + cones.products(norms, length)
        moved, hinges, norms = step(mean / count * (ahead / mean) ** 3, (hinges, norms))
        length = min(1.0, INTERIOR * min(duals.longest(hinges), cones.longest(norms)))
        if not (np.isfinite(moved).all() and length > 0):
            return False
        self.at = self.at + length * moved
        duals.take(hinges, length, self._leads(self.at))
        cones.take(norms, length)
        self._look()
        return True

    def _look(self) -> None:
        self._pull = self._pulled(self._duals.alpha)

    def _leads(self, at: Vector) -> Vector:
        return self._duals.leads(self._taken @ at @ self._spread)

    def _pulled(self, alpha: Vector) -> Vector:
        """(P, K) derivatives of the loss in the weights, by duals (E, C)."""
        return np.asarray(self._taken.T @ (self._duals.pull(alpha) @ self._spread.T))

    # ------------------------------------------------------------ the system of a step

    def _factorised(self) -> Callable[[Vector], Vector] | None:
        """What solves for weights (P, K); None where rounding allows it no more."""
        matrix = self._of_hinges()
        width, size = len(self._spread), len(self.at)
        columns = np.arange(self._p)
        parts = matrix.reshape(width, size, width, size)
        if self._cones.count:
            bend = self._cones.curvature()
            if self._penalty.grouped:
                parts[:, columns, :, columns] += bend
            else:
                for k in range(width):
                    parts[k, columns, k, columns] += bend.reshape(self._p, width)[:, k]
        diagonal = np.diag_indices(len(matrix))
        matrix[diagonal] += np.tile(self._ridge[:, 0], width)
        bent = matrix[diagonal].copy()
        least, factor = np.maximum(bent, LEAST_BENT * bent.mean()), None
        for steady in STEADY:
            matrix[diagonal] = bent + steady * least
            with suppress(linalg.LinAlgError):
                factor = linalg.cho_factor(matrix, lower=True, check_finite=False)
                break
        if factor is None:
            return None
        matrix[diagonal] = bent
        root = np.sqrt(least)

        def solve(wanted: Vector) -> Vector:
            target = wanted.T.ravel()
            found = linalg.cho_solve(factor, target, check_finite=False)
            left = target - matrix @ found
            for _ in range(CORRECTIONS):
                tried = found + linalg.cho_solve(factor, left, check_finite=False)
                still = target - matrix @ tried
                if not np.abs(still / root).max() < np.abs(left / root).max():
                    break
                found, left = tried, still
            return np.asarray(found.reshape(width, size).T)

        return solve

    def _of_hinges(self) -> Vector:
        """(K·P, K·P) the sum over the examples of x·xᵀ ⊗ how their duals move with their logits, output by output."""
        duals, taken = self._duals, self._taken
        pace, coupling = duals.curvature()
        n_classes, size = pace.shape[1], taken.shape[1]
        matrix = np.zeros((n_classes, size, n_classes, size))

        def of_class(own: int) -> list[Vector]:
            of_it = duals.own == own
            rows, paces = taken[of_it], pace[of_it]
            return [(rows * paces[:, k, None]).T @ rows if k != own else np.zeros(0) for k in range(n_classes)]

        for own, products in enumerate(self._run(of_class, range(n_classes))):
            for k, product in enumerate(products):
                if k != own:
                    matrix[k, :, k] += product
                    matrix[own, :, own] += product
                    matrix[k, :, own] -= product
                    matrix[own, :, k] -= product
        flat = matrix.reshape(n_classes * size, -1)
        if coupling is not None:
            pull = duals.pull(pace * np.sqrt(coupling))
            for begin in range(0, len(taken), ROWS_AT_ONCE):
                piece = slice(begin, begin + ROWS_AT_ONCE)
                along = (pull[piece, :, None] * taken[piece, None, :]).reshape(-1, flat.shape[0])
                flat -= along.T @ along
        if len(self._spread) == n_classes:
            return flat
        narrow: Vector = np.einsum("ka,apbq,lb->kplq", self._spread, matrix, self._spread)
        return narrow.reshape(len(self._spread) * size, -1)
