"""What a loss of the true class' probability alone makes a model report, and the way back.

Let the expected loss be Σ_k s_k·φ(q_k) over distributions q, with s the effective truth. At its minimum all
s_k·φ′(q_k) are equal, so the way back needs no solver: s_k ∝ 1/h(q_k) with the steepness h = −φ′ (for the focal loss
this is the closed form of Charoenphakdee et al., CVPR 2021, theorem 11).

All of it is done on logarithms, log q and log h: a loss that exaggerates (Jensen–Shannon, generalised cross-entropy)
reports e^(−10⁸) of an ordinary truth, and the smallest float is e^(−745).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from kullback.kernels.elements import Element, Float, Odds
from kullback.kernels.reference.softmax import softmax_odds

Steepness: TypeAlias = Callable[[Float, Float], Float]  # log h of log q and log(1 − q), (N, C) or (N, 1)

_HALF = -math.log(2.0)
_TINY = float(np.finfo(np.float64).tiny)
_LEAST_MISS = math.log(1e-300)


def element_steepness(
    element: Element, parameters: Sequence[float], log_q: Float, log_miss: Float, shift: Float | None = None
) -> Float:
    """log h from φ as a function of the log-odds o, h = −(dφ/do) / (q·(1 − q)): for q within the range of floats."""
    odds = Odds(np.exp(log_q), np.exp(log_miss), log_q, log_miss)
    pull = np.maximum(-element(odds, parameters, shift).first, _TINY)
    return np.asarray(np.log(pull) - log_q - log_miss)


def truth_log(steepness: Steepness, log_q: Float) -> Float:
    """log s up to a constant a row, from reported log-probabilities (N, C)."""
    odds = softmax_odds(log_q).odds
    # held off 0: what a certainty of 1 leaves to the others cannot be told apart
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = -steepness(odds.log_p, np.maximum(odds.log_miss, _LEAST_MISS))
    return np.where(np.isneginf(odds.log_p), -np.inf, found)


def log_minimiser(steepness: Steepness, share: Callable[[Float], Float], s: Float) -> Float:
    """log q (N, C) of the distributions that minimise Σ_k s_k·φ(q_k), for h falling in q and without end at 0.

    The class of the largest s, the top, alone may get more than ½. Its 1 − q is the unknown, x = log(1 − q_top): it
    sets the level s·h at which all classes meet, the level sets every other share, and the shares must add up to
    1 − q_top. Their sum falls as x rises, so the one root is bracketed and found to a rounding of x.

    Args:
        steepness: log h.
        share: the log q, at most log ½, of a given log h.
        s: (N, C) distributions; classes of no mass are reported with probability 0.
    """
    n, n_classes = s.shape
    with np.errstate(divide="ignore"):
        log_s = np.log(s)
    row = np.arange(n)
    top = np.argmax(s, axis=1) if n_classes else row
    log_q = np.full(s.shape, -np.inf)
    many = np.flatnonzero((s > 0).sum(axis=1) > 1)
    if len(many):
        log_top = log_s[many, top[many]][:, None]
        apart = log_top - log_s[many]  # ≥ 0, ∞ without mass
        apart[np.arange(len(many)), top[many]] = np.inf

        def others(x: Float) -> Float:
            return share(steepness(log_complement(x), x) + apart)

        def excess(x: Float) -> Float:
            return log_sum(others(x)) - x

        support = (s[many] > 0).sum(axis=1, keepdims=True)
        x = falling_root(excess, np.log1p(-1.0 / support))
        log_q[many] = others(x)
        log_q[many, top[many]] = log_complement(x)[:, 0]
    single = np.setdiff1d(row, many)
    log_q[single, top[single]] = 0.0
    return log_q


def share_of(steepness: Steepness, level: Float) -> Float:
    """The log q at which log h is `level`, at most log ½; −∞ for an infinite level."""
    finite = np.isfinite(level)
    wanted = np.where(finite, level, 0.0)

    def excess(log_q: Float) -> Float:
        return steepness(log_q, log_complement(log_q)) - wanted

    return np.where(finite, falling_root(excess, np.full(level.shape, _HALF)), -np.inf)


def log_complement(x: Float) -> Float:
    """log(1 − e^x) for x ≤ 0, to full relative precision."""
    with np.errstate(divide="ignore"):
        return np.where(x > _HALF, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def falling_root(f: Callable[[Float], Float], high: Float) -> Float:
    """The roots of a function that falls in each entry, at most `high`; `high` itself where f is above 0 even there.

    Steps that double lead below the root; then the secant, one end's value halved while the other end stays (the
    Illinois rule), and a bisection every third step, until f is 0 up to rounding or the bracket is closed.
    """
    at_high = f(high)
    low, at_low, step = high - 1.0, f(high - 1.0), 1.0
    for _ in range(1100):
        short = at_low < 0
        if not short.any():
            break
        high, at_high = np.where(short, low, high), np.where(short, at_low, at_high)
        step *= 2
        low = np.where(short, low - step, low)
        at_low = f(low)
    root, held = np.where(at_high >= 0, high, low), at_high >= 0
    side = np.zeros(high.shape)
    for i in range(400):
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            middle = (low * at_high - high * at_low) / (at_high - at_low)
        inside = np.isfinite(middle) & (middle > low) & (middle < high)
        middle = np.where(inside & (i % 3 != 2), middle, low + 0.5 * (high - low))
        value = f(middle)
        root = np.where(held, root, middle)
        small = 4 * np.finfo(np.float64).eps * np.maximum(np.abs(middle), 1e-300)
        held = held | (np.abs(value) <= small) | (high - low <= small)
        if held.all():
            break
        up = value > 0
        at_high = np.where(up, np.where(side > 0, 0.5 * at_high, at_high), value)
        at_low = np.where(up, value, np.where(side < 0, 0.5 * at_low, at_low))
        low, high = np.where(up, middle, low), np.where(up, high, middle)
        side = np.where(up, 1.0, -1.0)
    return np.asarray(root)


def log_sum(x: Float) -> Float:
    """log Σ_k e^(x_k), (N, 1)."""
    most = x.max(axis=1, keepdims=True)
    most = np.where(np.isneginf(most), 0.0, most)
    with np.errstate(divide="ignore"):
        return np.asarray(most + np.log(np.exp(x - most).sum(axis=1, keepdims=True)))
