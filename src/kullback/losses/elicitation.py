"""What a loss of the true class' probability alone makes a model report, and the way back.

Let the expected loss be Σ_k s_k·φ(q_k) over distributions q, with s the effective truth. At its minimum all
s_k·φ′(q_k) are equal, so the way back needs no solver: s_k ∝ −1/φ′(q_k) (for the focal loss this is the closed form
of Charoenphakdee et al., CVPR 2021, theorem 11). In log-odds o, φ′ = a / (q·(1 − q)) with a = dφ/do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kullback.kernels.elements import Element, Float, Odds
from kullback.kernels.reference import softmax_odds

_TINY = float(np.finfo(np.float64).tiny)


def truth_log(element: Element, parameters: Sequence[float], log_q: Float, shift: Float | None = None) -> Float:
    """log s up to a constant a row, from reported log-probabilities (N, C): log q + log(1 − q) − log(−a)."""
    odds = softmax_odds(log_q).odds
    # held off 0: what a certainty of 1 leaves to the others cannot be told apart
    odds = Odds(odds.p, np.maximum(odds.miss, 1e-300), odds.log_p, np.maximum(odds.log_miss, np.log(1e-300)))
    pull = np.maximum(-element(odds, parameters, shift).first, _TINY)
    with np.errstate(divide="ignore"):
        return np.asarray(odds.log_p + odds.log_miss - np.log(pull))


def simplex_minimiser(element: Element, parameters: Sequence[float], s: Float) -> Float:
    """The distributions (N, C) that minimise Σ_k s_k·φ(q_k), for φ convex in q; entries agree to 1e-10 relative.

    Newton's method on the simplex, where the Hessian is diagonal, with steps held inside and never uphill.

    Args:
        element: φ as a function of the odds.
        parameters: the element's own.
        s: (N, C) distributions; classes of no mass are reported with probability 0.
    """
    support = s > 0
    q = s.copy()
    single = support.sum(axis=1) <= 1
    value, slope, bend = _on_simplex(element, parameters, s, q)
    for _ in range(200):
        with np.errstate(invalid="ignore", divide="ignore"):
            inverse = np.where(support, 1 / bend, 0.0)
            level = (slope * inverse).sum(axis=1, keepdims=True) / inverse.sum(axis=1, keepdims=True)
            relative = np.where(support, -(slope - level) * inverse / q, 0.0)
        relative[single] = 0.0
        farthest = -relative.min(axis=1, keepdims=True)
        step = np.minimum(1.0, 0.9 / np.maximum(farthest, 1e-300))
        for _ in range(40):
            moved = q * (1 + step * relative)
            moved /= moved.sum(axis=1, keepdims=True)
            value_, slope_, bend_ = _on_simplex(element, parameters, s, moved)
            uphill = (value_ > value * (1 + 1e-14) + 1e-300)[:, None]
            if not uphill.any():
                break
            step = np.where(uphill, step / 2, step)
        q, value, slope, bend = moved, value_, slope_, bend_
        if not np.abs(relative).max(initial=0.0) > 1e-13:
            break
    return q


def _on_simplex(element: Element, parameters: Sequence[float], s: Float, q: Float) -> tuple[Float, Float, Float]:
    """The objective (N,), and s·φ′ and s·φ″ (N, C)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = softmax_odds(np.log(q)).odds
        term = element(odds, parameters, None)
        width = odds.p * odds.miss
        value = np.where(s > 0, s * term.value, 0.0).sum(axis=1)
        slope = np.where(s > 0, s * term.first / width, 0.0)
        bend = np.where(s > 0, s * (term.second - term.first * (odds.miss - odds.p)) / width**2, 1.0)
    return value, slope, bend
