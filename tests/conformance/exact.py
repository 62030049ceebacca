"""The losses in 50-digit arithmetic, written from their definitions and sharing nothing with the package."""

from __future__ import annotations

import functools

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


# ---------------------------------------------------------------- any loss: derivatives from values


@functools.lru_cache(maxsize=1 << 14)
def _exp_at(x, precision):
    return mp.exp(x)


def _exp(x):
    """e^x; differences move one score at a time, so that most exponentials are asked for again."""
    return _exp_at(x, mp.mp.prec)


def _log(x):
    return mp.log(x) if x != 0 else -mp.inf


class Odds:
    """p and m = 1 − p of one class, and their logarithms, each worked out when it is first asked for."""

    def __init__(self, **how):
        self._how = how

    def __getattr__(self, name):
        value = self._how[name]()
        setattr(self, name, value)
        return value

    def mirrored(self):
        """The odds against the class."""
        return Odds(p=lambda: self.m, m=lambda: self.p, log_p=lambda: self.log_m, log_m=lambda: self.log_p)


def odds(u, copies=None):
    """The odds of the classes of one row of scores, each to full precision however close to 0.

    With `copies`, entry k stands for that many classes with the same score.
    """
    finite = [v for v in u if v != -mp.inf]
    if not finite:
        return [Odds(p=mp.mpf, m=lambda: mp.mpf(1), log_p=lambda: -mp.inf, log_m=mp.mpf)] * len(u)
    top = mp.mpf(float(max(finite)))  # rounded, so that a small step does not move it
    copies = [1] * len(u) if copies is None else copies
    e = [_exp(v - top) if v != -mp.inf else mp.mpf(0) for v in u]
    many = [a * n for a, n in zip(e, copies, strict=True)]
    total = mp.fsum(many)
    log_total = mp.log(total)

    def of(k):
        def m():
            # what is subtracted from loses nothing: it is added up again without the k-th
            return (mp.fsum(many[:k] + many[k + 1 :]) + (copies[k] - 1) * e[k]) / total

        one = Odds(
            p=lambda: e[k] / total,
            m=m,
            log_p=lambda: u[k] - top - log_total if e[k] != 0 else -mp.inf,
            log_m=lambda: _log(one.m),
        )
        return one

    return [of(k) for k in range(len(u))]


def sigmoid_odds(x):
    """The odds of one label."""
    return Odds(
        p=lambda: 1 / (1 + _exp(-x)),
        m=lambda: 1 / (1 + _exp(x)),
        log_p=lambda: -mp.log1p(_exp(-x)),
        log_m=lambda: -mp.log1p(_exp(x)),
    )


# what a class adds to the loss of a row, from its odds


def focal(gamma):
    return lambda odds: -(odds.m**gamma) * odds.log_p if odds.m != 0 else mp.mpf(0)


def zero(odds):
    return mp.mpf(0)


def mirrored(on):
    return lambda odds: on(odds.mirrored())


def log_loss(odds):
    return -odds.log_p


def brier(odds):
    return odds.m**2


def generalised(q):
    return lambda odds: (1 - odds.p**q) / q if odds.p != 0 else 1 / q


def poly(epsilon):
    return lambda odds: -odds.log_p + epsilon * odds.m


def jensen_shannon(share):
    """H of the mixture less the mixture of the entropies, of the distributions (p, 1 − p) and (1, 0)."""
    share = _number(share)

    def part(x):
        return x * mp.log(x) if x != 0 else mp.mpf(0)

    def value(odds):
        mixed = share + (1 - share) * odds.p, (1 - share) * odds.m
        gap = -part(mixed[0]) - part(mixed[1]) + (1 - share) * (part(odds.p) + part(odds.m))
        return gap / (-(1 - share) * mp.log(1 - share))

    return value


def linear(odds):
    return odds.m


def shifted(delta):
    """Cross-entropy with `delta` taken off the logit: log(1 + e^Δ·(1 − p)/p)."""
    return lambda odds: mp.log(odds.p + _exp(delta) * odds.m) - odds.log_p


def asymmetric_off(gamma, clip):
    def off(odds):
        x = odds.p - clip
        if x <= 0:
            return mp.mpf(0)
        return -(x**gamma) * (odds.log_m if clip == 0 else mp.log(1 - x))

    return off


def softmax_row(on, off=zero, *, s, temperature=1.0, offset=None, softcap=None, z_loss=0.0, copies=None):
    """The loss of one row as a function of its logits; `on` may be a list, one function a class.

    With `copies`, entry k stands for that many classes that are alike.
    """
    s = [_number(x) for x in s]
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]
    total = mp.fsum(x * n for x, n in zip(s, copies, strict=True))
    ons = on if isinstance(on, list) else [on] * len(s)

    def value(z):
        if softcap is not None:
            z = [softcap * mp.tanh(v / softcap) if v != -mp.inf else v for v in z]
        shift = [mp.mpf(0)] * len(z) if offset is None else [mp.mpf(float(x)) for x in offset]
        u = [v / _number(temperature) + b if v != -mp.inf else v for v, b in zip(z, shift, strict=True)]
        terms = []
        for k, row in enumerate(odds(u, copies)):
            if s[k] != 0:
                terms.append(copies[k] * s[k] * ons[k](row))
            if off is not zero and total - s[k] != 0:
                terms.append(copies[k] * (total - s[k]) * off(row))
        if z_loss and total != 0:
            top = mp.mpf(float(max(u)))
            weight = mp.fsum(n * _exp(v - top) for v, n in zip(u, copies, strict=True))
            terms.append(total * _number(z_loss) * (top + mp.log(weight)) ** 2)
        return mp.fsum(terms)

    return value


def sigmoid_row(on, off, *, on_mass, off_mass, temperature=1.0, copies=None):
    """The loss of one row of labels, summed, as a function of its logits; entry k counts `copies[k]` times."""
    copies = [1] * len(on_mass) if copies is None else [int(n) for n in copies]
    on_mass = [n * _number(x) for x, n in zip(on_mass, copies, strict=True)]
    off_mass = [n * _number(x) for x, n in zip(off_mass, copies, strict=True)]

    def value(z):
        total = mp.mpf(0)
        for k, v in enumerate(z):
            row = sigmoid_odds(v / _number(temperature))
            total += (on_mass[k] * on(row) if on_mass[k] else 0) + (off_mass[k] * off(row) if off_mass[k] else 0)
        return total

    return value


def derivatives(value, z, direction, *, along=None, second=True):
    """Value, gradient, Hessian·direction and Hessian diagonal at the logits z, by differences in 150 digits.

    The last three for the entries `along`, or for all; the last two are None without `second`. The mixed difference is
    taken on one side, and so off by the step, 1e-40, times a third derivative.
    """
    z = [_number(v) for v in z]
    v = [_number(x) for x in direction]
    n = len(z)
    along = range(n) if along is None else along
    with mp.workdps(150 if second else 100):
        h = mp.mpf(10) ** (-40 if second else -30)

        def at(steps):
            return value([a + b * h if a != -mp.inf else a for a, b in zip(z, steps, strict=True)])

        middle = at([0] * n)
        up = [at([int(i == j) for i in range(n)]) for j in along]
        down = [at([-int(i == j) for i in range(n)]) for j in along]
        gradient = [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]
        if not second:
            return middle, gradient, None, None
        diagonal = [(a - 2 * middle + b) / h**2 for a, b in zip(up, down, strict=True)]
        moved = at(v)
        both = [at([x + int(i == j) for i, x in enumerate(v)]) for j in along]
        product = [(a - b - moved + middle) / h**2 for a, b in zip(both, up, strict=True)]
        return middle, gradient, product, diagonal
