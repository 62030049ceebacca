"""One softmax over the classes, and losses that are functions of its probabilities.

A loss is the functions on(o) and off(o) of `kullback.kernels.elements`, o_k = log(p_k / (1 − p_k)) the log-odds of
class k. Let a_k and h_k be the first and second derivative of the row's loss in o_k. For the softmax of u

    ∂o_k/∂u_k = 1,   ∂o_k/∂u_j = −r_j,   r_j = p_j / (1 − p_k): the distribution among the classes other than k.

One class, the largest, may have 1 − p_k so small that r needs care (a sum over the others, in logarithms). All others
have p_k ≤ ½, and for them derivatives in ℓ_k = log p_k are the simpler ones: b_k = a_k / (1 − p_k) and
c_k = (h_k + a_k·p_k) / (1 − p_k)². With τ the largest class, b_τ = c_τ = 0, B = Σb, and r, a, h of τ:

    gradient:         g_j = b_j − p_j·B − a·r_j for j ≠ τ,   g_τ = a − p_τ·B
    Hessian product:  with δ = v − p·v, ε = v − r·v:
                      Hv = c∘δ − p·Σ(c∘δ) − B·p∘δ + h·ε_τ·(e_τ − r) − a·r∘ε
    its diagonal:     c_j·(1 − p_j)² + p_j²·Σ_{k≠j}c_k − B·p_j·(1 − p_j) + [h if j = τ, else h·r_j² − a·r_j·(1 − r_j)]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kullback.errors import InputError
from kullback.kernels.elements import SOFTMAX_FAMILIES, Float, Odds, product
from kullback.kernels.recipe import Array, SoftmaxRecipe
from kullback.kernels.reference.rows import Bool, CountedRows, counted_weights
from kullback.kernels.reference.targets import check_range
from kullback.targets import ClassTargets, counted_rows


def softmax_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write softmax(logits / temperature), or its logarithm, into `out` (N, C)."""
    softmax = softmax_odds(np.asarray(logits, dtype=np.float64) / temperature)
    out[...] = softmax.odds.log_p if log else softmax.odds.p


class Softmax(NamedTuple):
    """Softmax of rows (n, C), with what the derivatives need of each row's largest class.

    Attributes:
        odds: p, 1 − p and their logarithms.
        lse: (n,) log Σ exp u.
        is_top: (n, C) True at each row's largest class (the first of equals).
        others: (n, C) r, the distribution among the classes other than the largest; 0 at the largest.
    """

    odds: Odds
    lse: Float
    is_top: Bool
    others: Float


def softmax_odds(u: Float) -> Softmax:
    """The softmax of rows.

    The largest logit is left out of the sum and log1p puts it back: for a confident row log Σexp would round
    1 + tiny to 1 and lose the loss altogether. Where that sum underflows, logarithms still tell the rest apart.
    A row that is masked throughout has no probability to hand out: p = 0.
    """
    n, n_classes = u.shape
    if n == 0 or n_classes == 0:
        return Softmax(Odds(u, u, u, u), np.zeros(n), np.zeros(u.shape, dtype=bool), u)
    row = np.arange(n)
    top = np.argmax(np.where(np.isnan(u), np.inf, u), axis=1)
    largest = u[row, top]
    masked = np.isneginf(largest)
    is_top = np.zeros(u.shape, dtype=bool)
    is_top[row, top] = True
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = u - np.where(masked, 0.0, largest)[:, None]
        e = np.exp(shifted)
        rest = np.where(is_top, 0.0, e).sum(axis=1)
        log_total = np.log1p(rest)
        others = np.where(is_top, -np.inf, shifted)
        second = others.max(axis=1, initial=-np.inf)
        others -= np.where(np.isneginf(second), 0.0, second)[:, None]
        e_others = np.exp(others)
        sum_others = e_others.sum(axis=1)
        log_rest = np.where(rest > 1e-290, np.log(rest), second + np.log(sum_others))
        e_others /= np.where(sum_others == 0, 1.0, sum_others)[:, None]
        log_p = shifted - log_total[:, None]
        p = e / (1.0 + rest)[:, None]
        miss, log_miss = 1 - p, np.log1p(-p)
    miss[row, top] = np.where(masked, 1.0, rest / (1.0 + rest))
    log_miss[row, top] = np.where(masked, 0.0, log_rest - log_total)
    return Softmax(Odds(p, miss, log_p, log_miss), largest + log_total, is_top, e_others)


class SoftmaxRows(CountedRows):
    """Probabilities, masses, and the loss with its derivatives in the log-odds."""

    def __init__(
        self,
        recipe: SoftmaxRecipe,
        logits: Array,
        targets: ClassTargets,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        n_classes = logits.shape[1]
        self.counts = counted_rows(targets, row_weight, ignore_index)
        check_range(targets, n_classes, self.counts)
        self.weight = counted_weights(row_weight, self.counts)
        z = np.asarray(logits, dtype=np.float64)[self.counts]
        self.temperature = recipe.temperature
        self.slope: Float = np.ones((1, 1))
        self.bend: Float | None = None
        if recipe.softcap is not None:
            z, self.slope, self.bend = softcap(z, recipe.softcap)
        u = z / recipe.temperature
        if recipe.offset is not None:
            u = u + recipe.offset
        self.softmax = softmax_odds(u)
        self.p, self.miss, *_ = odds = self.softmax.odds
        self.spoilt: Bool = np.asarray(np.isnan(odds.log_p).any(axis=1, keepdims=True))
        mass = targets[self.counts].dense(n_classes)
        total = mass.sum(axis=1, keepdims=True)
        s = (1 - recipe.smoothing) * mass + recipe.smoothing / max(n_classes, 1) * total
        if recipe.class_weight is not None:
            s *= recipe.class_weight
        total = s.sum(axis=1, keepdims=True)
        family = SOFTMAX_FAMILIES.get(recipe.family)
        if family is None:
            raise InputError(f"unknown softmax family {recipe.family!r}")
        on = family.on(odds, recipe.parameters, recipe.shift)
        self.value = product(s, on.value).sum(axis=1)
        self.first, self.second = s * on.first, s * on.second
        if family.off is not None:
            off = family.off(odds, recipe.parameters, recipe.shift)
            self.value += product(total - s, off.value).sum(axis=1)
            self.first += (total - s) * off.first
            self.second += (total - s) * off.second
        self.z_loss = recipe.z_loss * total
        if recipe.z_loss:
            self.value += product(self.z_loss[:, 0], self.softmax.lse**2)
        if recipe.divergence:
            share = np.divide(s, total, out=np.ones_like(s), where=(s > 0) & (total > 0))
            # at the minimum the difference of two equal numbers may round to a hair below zero
            self.value = np.maximum(self.value + (s * np.log(share)).sum(axis=1), 0.0)

    def losses(self) -> Float:
        """(n,)."""
        return np.where(self.spoilt[:, 0], np.nan, self.value)

    def gradient(self) -> Float:
        """(n, C)."""
        return np.asarray(self.slope * self._pull() / self.temperature)

    def hessian_product(self, v: Float) -> Float:
        """(n, C)."""
        bent = self.slope * self._product(self.slope * v) / self.temperature
        if self.bend is not None:
            bent += self.bend * self._pull() * v
        return np.asarray(bent / self.temperature)

    def hessian_diagonal(self) -> Float:
        """(n, C)."""
        diagonal = self.slope**2 * self._diagonal() / self.temperature
        if self.bend is not None:
            diagonal += self.bend * self._pull()
        return np.asarray(diagonal / self.temperature)

    def _split(self) -> tuple[Float, Float, Float, Float]:
        """b and c (n, C) of all classes but the largest, and a and h (n, 1) of that one."""
        top, p, m = self.softmax.is_top, self.p, np.where(self.softmax.is_top, 1.0, self.miss)
        b = np.where(top, 0.0, self.first / m)
        c = np.where(top, 0.0, (self.second + self.first * p) / m**2)
        a = np.where(top, self.first, 0.0).sum(axis=1, keepdims=True)
        h = np.where(top, self.second, 0.0).sum(axis=1, keepdims=True)
        return b, c, a, h

    def _pull(self) -> Float:
        """The gradient in u."""
        b, _, a, _ = self._split()
        g = b - self.p * b.sum(axis=1, keepdims=True) - a * self.softmax.others + np.where(self.softmax.is_top, a, 0.0)
        return np.asarray(g + self._lse_pull() * self.p)

    def _lse_pull(self) -> Float:
        """2·λ·S·log Σexp, (n, 1): what the z-loss adds to each p; 0 for a row that is masked throughout."""
        lse = self.softmax.lse[:, None]
        return product(2 * self.z_loss, np.where(np.isneginf(lse), 0.0, lse))

    def _product(self, v: Float) -> Float:
        """The Hessian in u, times v."""
        b, c, a, h = self._split()
        p, r, top = self.p, self.softmax.others, self.softmax.is_top
        mean = (p * v).sum(axis=1, keepdims=True)
        delta, apart = v - mean, v - (r * v).sum(axis=1, keepdims=True)
        bent = c * delta
        product = bent - p * bent.sum(axis=1, keepdims=True) - b.sum(axis=1, keepdims=True) * p * delta
        product += h * np.where(top, apart, 0.0).sum(axis=1, keepdims=True) * (np.where(top, 1.0, 0.0) - r)
        product -= a * r * apart
        return np.asarray(product + 2 * self.z_loss * p * mean + self._lse_pull() * p * delta)

    def _diagonal(self) -> Float:
        """The diagonal of the Hessian in u."""
        b, c, a, h = self._split()
        p, m, r = self.p, self.miss, self.softmax.others
        diagonal = c * m**2 + p**2 * (c.sum(axis=1, keepdims=True) - c) - b.sum(axis=1, keepdims=True) * p * m
        diagonal += np.where(self.softmax.is_top, h, h * r**2 - a * r * (1 - r))
        return np.asarray(diagonal + 2 * self.z_loss * p**2 + self._lse_pull() * p * m)


def softcap(z: Float, cap: float) -> tuple[Float, Float, Float]:
    """cap·tanh(z / cap) and its two derivatives; −inf stays −inf, for a masked class must stay masked."""
    twice = -2 * np.abs(z) / cap
    e = np.exp(twice)
    tanh = np.copysign(-np.expm1(twice) / (1 + e), z)  # 1 − e would lose the small scores' digits
    slope = 4 * e / (1 + e) ** 2
    masked, broken = np.isneginf(z), np.isposinf(z)
    capped = np.where(masked, -np.inf, np.where(broken, np.nan, cap * tanh))
    return capped, slope, -2 / cap * tanh * slope
