"""The mathematics of every loss of the softmax and sigmoid families: functions of one log-odds.

For one class or label let o = log(p / (1 − p)). A loss is what it costs when that class is the true one, ``on(o)``,
and, where the loss looks at the other classes too, what it costs when it is not, ``off(o)``; both with two
derivatives in o. In log-odds every derivative is bounded where the loss is, so nothing overflows or cancels when p
comes close to 0 or 1; and the same functions serve both links, because a sigmoid's logit *is* its log-odds.

Masses, weights, smoothing and temperature are the recipes' business: see `kullback.kernels.recipe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float64]


class Odds(NamedTuple):
    """A probability and its complement, both to full relative precision, with their logarithms; any shape.

    Near 0 a difference of logarithms has lost digits of the log-odds, which `logit` has where it is given.
    """

    p: Float
    miss: Float
    log_p: Float
    log_miss: Float
    logit: Float | None = None

    @property
    def log_odds(self) -> Float:
        """o = log p − log(1 − p)."""
        return self.log_p - self.log_miss if self.logit is None else self.logit

    def mirrored(self) -> Odds:
        """The same for the event that it does not hold: p and 1 − p change places."""
        return Odds(self.miss, self.p, self.log_miss, self.log_p, None if self.logit is None else -self.logit)


class Term(NamedTuple):
    """A value and its first two derivatives in the log-odds."""

    value: Float
    first: Float
    second: Float


Element: TypeAlias = Callable[[Odds, Sequence[float], "Float | None"], Term]


class Family(NamedTuple):
    """A loss: the cost of a class that holds and, or None, the cost of one that does not."""

    on: Element
    off: Element | None = None


def mirror(element: Element) -> Element:
    """The cost of "absent" as the cost of "present" with p and 1 − p exchanged."""

    def mirrored(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
        term = element(odds.mirrored(), parameters, shift)
        return Term(term.value, -term.first, term.second)

    return mirrored


def sigmoid_odds(z: Float) -> Odds:
    """Odds of a log-odds."""
    e = np.exp(-np.abs(z))
    high, low, log_high = 1 / (1 + e), e / (1 + e), -np.log1p(e)
    low_log = log_high - np.abs(z)
    up = z >= 0
    return Odds(np.where(up, high, low), np.where(up, low, high), np.where(up, log_high, low_log),
                np.where(up, low_log, log_high), z)  # fmt: skip


def product(a: Float, b: Float) -> Float:
    """a·b with 0·(±inf) = 0: the limit of x·log x and its like."""
    with np.errstate(invalid="ignore"):
        return np.where(a == 0, 0.0, a * b)


def log_loss(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """−log p: cross-entropy."""
    return Term(-odds.log_p, -odds.miss, odds.p * odds.miss)


def brier(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """(1 − p)²; mirrored, p²."""
    p, m = odds.p, odds.miss
    return Term(m**2, -2 * p * m**2, -2 * p * m**2 * (m - 2 * p))


def focal(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """−(1 − p)^γ·log p, with parameters (γ,)."""
    (gamma,) = parameters[:1]
    p, m = odds.p, odds.miss
    weight, p_log_p = m**gamma, product(p, odds.log_p)
    bend = gamma * p_log_p * (m - gamma * p) + (2 * gamma + 1) * p * m
    return Term(product(weight, -odds.log_p), weight * (gamma * p_log_p - m), weight * bend)


def generalised(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """(1 − p^q)/q, with parameters (q,)."""
    (q,) = parameters[:1]
    p, m = odds.p, odds.miss
    power = np.exp(q * odds.log_p)
    return Term(-np.expm1(q * odds.log_p) / q, -power * m, power * m * (p - q * m))


def poly(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """−log p + ε·(1 − p), with parameters (ε,)."""
    (epsilon,) = parameters[:1]
    p, m = odds.p, odds.miss
    return Term(-odds.log_p + epsilon * m, -m * (1 + epsilon * p), p * m * (1 + epsilon * (p - m)))


def jensen_shannon(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """H(r·y + (1 − r)·p) − (1 − r)·H(p), over its scale −(1 − r)·log(1 − r), with parameters (r,)."""
    r, (p, m), level = parameters[0], odds[:2], np.log1p(-parameters[0])
    mixed, log_mixed, p_log_p = r + (1 - r) * p, np.log1p((r - 1) * m), product(p, odds.log_p)
    pull = (p_log_p + p * (level - log_mixed)) / level
    value = (mixed * log_mixed / (1 - r) - p_log_p + m * level) / level
    return Term(value, -pull * m, m * ((p - m) * pull - p * m * r / (level * mixed)))


def linear(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """1 − p: the expected 0–1 loss of a prediction drawn from p."""
    p, m = odds.p, odds.miss
    return Term(m, -p * m, p * m * (p - m))


def shifted_log(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """log(1 + exp(Δ − o)), cross-entropy as if the class' logit were Δ lower, with Δ the class' own shift."""
    return log_loss(sigmoid_odds(odds.log_odds - (0.0 if shift is None else shift)), parameters, None)


def clipped_focal(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """−x^γ·log(1 − x) with x = max(p − c, 0), the asymmetric loss of an absent label; parameters (…, γ, c)."""
    gamma, clip = parameters[-2:]
    p, m = odds.p, odds.miss
    x = np.maximum(p - clip, 0.0)
    inside = x > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        # 1 − x is m + c: near 1 the one tells more, near 0 the other
        log_y = odds.log_miss if clip == 0 else np.where(x < 0.5, np.log1p(-np.minimum(x, 0.5)), np.log(m + clip))
        share = np.where(m + clip > 0, m / (m + clip), 1.0)  # m / (1 − x)
        ratio = np.where(inside, log_y / x, -1.0)
        weight, steep = np.where(inside, x**gamma, 0.0), np.where(inside, p / x, 0.0)
    m_ratio = product(m, ratio)
    # with F(x) = −x^γ·log(1 − x): p·m·F′ and (p·m)²·F″, where x^(γ−1)·log(1 − x) is x^γ·ratio
    first = p * weight * (share - gamma * m_ratio)
    bent = 2 * gamma * steep * m * share - gamma * (gamma - 1) * steep * m * m_ratio + p * share**2
    return Term(product(weight, -log_y), first, weight * p * bent + first * (m - p))


def negative_entropy(odds: Odds, parameters: Sequence[float], shift: Float | None) -> Term:
    """p·log p + (1 − p)·log(1 − p), whatever holds."""
    p, m = odds.p, odds.miss
    pull = product(p * m, odds.log_odds)
    return Term(product(p, odds.log_p) + product(m, odds.log_miss), pull, p * m + (m - p) * pull)


SOFTMAX_FAMILIES = {
    "cross_entropy": Family(log_loss),
    "one_vs_rest": Family(log_loss, mirror(log_loss)),
    "brier": Family(brier, mirror(brier)),
    "focal": Family(focal),
    "generalised_cross_entropy": Family(generalised),
    "poly": Family(poly),
    "jensen_shannon": Family(jensen_shannon),
    "smoothed_zero_one": Family(linear),
    "ldam": Family(shifted_log),
}
SIGMOID_FAMILIES = {
    "binary_cross_entropy": Family(log_loss, mirror(log_loss)),
    "sigmoid_brier": Family(brier, mirror(brier)),
    "sigmoid_focal": Family(focal, mirror(focal)),
    "asymmetric": Family(focal, clipped_focal),
    "label_entropy": Family(negative_entropy, negative_entropy),
}
