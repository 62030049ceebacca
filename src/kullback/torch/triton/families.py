"""What a class costs, one function a loss: the only file that changes when a softmax-family loss is added.

The mathematics is that of `kullback.kernels.elements`: a row's loss is Σ_k s_k·on(o_k), plus Σ_k (S − s_k)·off(o_k)
for the losses that look at the classes without mass, where s is the effective target, S its sum, and
o = log(p / (1 − p)) a class' log-odds. Each function below returns the cost and its derivative in o, given

    log_p, p     the class' log-probability and probability
    miss         1 − p to full relative precision, also where p rounds to 1
    log_miss     log(1 − p)
    shift        the class' own number (LDAM's margin)
    parameter    the family's scalar

The same function runs on one class a row (sparse targets) and on whole blocks of classes (dense targets).
"""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from kullback.torch.triton.numerics import expm1, log1p, log1p_any, power, times


@triton.jit
def log_loss(log_p, p, miss, log_miss, shift, parameter):
    """Cross-entropy: −log p."""
    return -log_p, -miss


@triton.jit
def focal(log_p, p, miss, log_miss, shift, parameter):
    """−(1 − p)^γ·log p (Lin et al., 2017, eq. 4)."""
    weight = power(log_miss, parameter)
    return times(weight, -log_p), weight * (parameter * times(p, log_p) - miss)


@triton.jit
def generalised(log_p, p, miss, log_miss, shift, parameter):
    """(1 − p^q)/q (Zhang & Sabuncu, 2018, eq. 6)."""
    return -expm1(parameter * log_p) / parameter, -power(log_p, parameter) * miss


@triton.jit
def poly(log_p, p, miss, log_miss, shift, parameter):
    """−log p + ε·(1 − p) (Leng et al., 2022, eq. 6)."""
    return -log_p + parameter * miss, -miss * (1.0 + parameter * p)


@triton.jit
def jensen_shannon(log_p, p, miss, log_miss, shift, parameter):
    """H(r·y + (1 − r)·p) − (1 − r)·H(p), over its scale −(1 − r)·log(1 − r) (Englesson & Azizpour, 2021)."""
    rest = 1.0 - parameter
    level = log1p_any(-parameter)
    mixed = parameter + rest * p
    log_mixed = -log1p(rest * miss / mixed)
    p_log_p = times(p, log_p)
    pull = (p_log_p + p * (level - log_mixed)) / level
    return (mixed * log_mixed / rest - p_log_p + miss * level) / level, -pull * miss


@triton.jit
def expected_error(log_p, p, miss, log_miss, shift, parameter):
    """1 − p, the expected 0–1 loss of a prediction drawn from p."""
    return miss, -p * miss


@triton.jit
def shifted_log(log_p, p, miss, log_miss, shift, parameter):
    """log(1 + exp(Δ − o)): cross-entropy with the class' logit Δ lower (LDAM, Cao et al., 2019)."""
    grown = miss * tl.exp(shift)
    return log1p_any(miss * expm1(shift)) - log_p, -grown / (p + grown)


@triton.jit
def miss_squared(log_p, p, miss, log_miss, shift, parameter):
    """(1 − p)², what Brier charges a class that holds."""
    return miss * miss, -2.0 * p * miss * miss


@triton.jit
def squared(log_p, p, miss, log_miss, shift, parameter):
    """p², what Brier charges a class that does not hold."""
    return p * p, 2.0 * p * p * miss


@triton.jit
def log_miss_loss(log_p, p, miss, log_miss, shift, parameter):
    """−log(1 − p), what one-vs-rest charges a class that does not hold."""
    return -log_miss, p


class Family(NamedTuple):
    """A loss as the kernels run it.

    Attributes:
        on: the cost of a class that holds.
        off: the cost of a class that does not, or None.
    """

    on: Any
    off: Any = None


FAMILIES = {
    "cross_entropy": Family(log_loss),
    "one_vs_rest": Family(log_loss, off=log_miss_loss),
    "brier": Family(miss_squared, off=squared),
    "focal": Family(focal),
    "generalised_cross_entropy": Family(generalised),
    "poly": Family(poly),
    "jensen_shannon": Family(jensen_shannon),
    "smoothed_zero_one": Family(expected_error),
    "ldam": Family(shifted_log),
}
