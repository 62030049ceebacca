"""The losses in 50-digit arithmetic, written from their definitions and sharing nothing with the package."""

from __future__ import annotations

import mpmath as mp
import numpy as np

mp.mp.dps = 50


def _number(value):
    value = float(value)
    return mp.mpf(value)


def softmax(z):
    """Probabilities and log-probabilities of one row; −inf logits get 0 and −inf."""
    finite = [v for v in z if v != -mp.inf]
    if not finite:
        return [mp.mpf(0)] * len(z), [-mp.inf] * len(z)
    top = max(finite)
    total = mp.fsum(mp.exp(v - top) for v in finite)
    log_p = [v - top - mp.log(total) if v != -mp.inf else -mp.inf for v in z]
    return [mp.exp(v) if v != -mp.inf else mp.mpf(0) for v in log_p], log_p


def cross_entropy(logits, mass, *, class_weight=None, smoothing=0.0, temperature=1.0, direction=None):
    """One row: loss, gradient, Hessian·direction, Hessian diagonal, as lists of mpf."""
    c = len(logits)
    t = [_number(m) for m in mass]
    w = [mp.mpf(1)] * c if class_weight is None else [_number(x) for x in class_weight]
    eps, temp = _number(smoothing), _number(temperature)
    total = mp.fsum(t)
    s = [w[k] * ((1 - eps) * t[k] + total * eps / c) for k in range(c)]
    p, log_p = softmax([_number(z) / temp for z in logits])
    loss = mp.fsum(-s[k] * log_p[k] for k in range(c) if s[k] != 0)
    weight = mp.fsum(s)
    gradient = [(weight * p[k] - s[k]) / temp for k in range(c)]
    diagonal = [weight * p[k] * (1 - p[k]) / temp**2 for k in range(c)]
    product = None
    if direction is not None:
        v = [_number(x) for x in direction]
        mean = mp.fsum(p[k] * v[k] for k in range(c))
        product = [weight * p[k] * (v[k] - mean) / temp**2 for k in range(c)]
    return loss, gradient, product, diagonal


def binary_cross_entropy(
    logits, labels, *, positive_weight=None, class_weight=None, smoothing=0.0, temperature=1.0, direction=None
):
    """One row, summed over its labels."""
    c = len(logits)
    pos = [mp.mpf(1)] * c if positive_weight is None else [_number(x) for x in positive_weight]
    w = [mp.mpf(1)] * c if class_weight is None else [_number(x) for x in class_weight]
    eps, temp = _number(smoothing), _number(temperature)
    loss, gradient, diagonal = mp.mpf(0), [], []
    for k in range(c):
        z = _number(logits[k]) / temp
        t = (1 - eps) * _number(labels[k]) + eps / 2
        on, off = w[k] * pos[k] * t, w[k] * (1 - t)
        sigma, rest = 1 / (1 + mp.exp(-z)), 1 / (1 + mp.exp(z))
        loss += on * mp.log1p(mp.exp(-z)) + off * mp.log1p(mp.exp(z))
        gradient.append((off * sigma - on * rest) / temp)
        diagonal.append((on + off) * sigma * rest / temp**2)
    product = None if direction is None else [d * _number(v) for d, v in zip(diagonal, direction, strict=True)]
    return loss, gradient, product, diagonal


def floats(values) -> np.ndarray:
    """Round to float64 once, at the very end."""
    return np.array([float(v) for v in values])
