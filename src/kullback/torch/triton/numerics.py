"""Elementary functions in float32 that Triton's language lacks, or computes only to absolute precision.

``tl.log`` and ``tl.exp`` become the GPU's approximate instructions. Near 1 their logarithm is right to about 2⁻²²
*absolutely*, which leaves nothing of log(1 + x) for a small x; so small arguments take a series here.
"""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """log(1 + x) for x > −1/2 to about two units in the last place."""
    # log(1 + x) = 2·artanh(s) with s = x/(2 + x); |s| ≤ 1/3 where the series is used
    s = x / (2.0 + x)
    r = s * s
    series = 1.0 / 11.0 + r * (1.0 / 13.0 + r * (1.0 / 15.0))
    series = 1.0 / 5.0 + r * (1.0 / 7.0 + r * (1.0 / 9.0 + r * series))
    series = 2.0 * s * (1.0 + r * (1.0 / 3.0 + r * series))
    return tl.where(x < 0.5, series, tl.log(1.0 + x))


@triton.jit
def log1p_any(x):
    """log(1 + x) for any x > −1."""
    return tl.where(x < -0.5, tl.log(1.0 + x), log1p(tl.maximum(x, -0.5)))


@triton.jit
def power(log_base, exponent):
    """base^exponent from the base's logarithm, with 0⁰ = 1."""
    return tl.where(exponent == 0, 1.0, tl.exp(exponent * log_base))


@triton.jit
def ratio(a, b):
    """a/b, and 0 where b is 0: b underflowed, and with it everything the ratio multiplies."""
    return tl.where(b == 0, 0.0, a / tl.where(b == 0, 1.0, b))


@triton.jit
def expm1(x):
    """exp(x) − 1."""
    series = 1.0 + x * (1.0 / 7.0) * (1.0 + x * (1.0 / 8.0) * (1.0 + x * (1.0 / 9.0)))
    series = 1.0 + x * 0.25 * (1.0 + x * 0.2 * (1.0 + x * (1.0 / 6.0) * series))
    series = x * (1.0 + x * 0.5 * (1.0 + x * (1.0 / 3.0) * series))
    return tl.where(tl.abs(x) < 0.5, series, tl.exp(x) - 1.0)


@triton.jit
def tanh(x):
    """The hyperbolic tangent and its derivative, both to full relative precision."""
    r = x * x
    series = 2.0 / 15.0 + r * (-17.0 / 315.0 + r * (62.0 / 2835.0))
    series = x * (1.0 + r * (-1.0 / 3.0 + r * series))
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    far = tl.where(x < 0, -far, far)
    return tl.where(tl.abs(x) < 0.25, series, far), 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def times(mass, value):
    """mass·value with 0·(±inf) = 0: a masked class without mass costs nothing."""
    return tl.where(mass == 0, 0.0, mass * value)
