"""What a minimiser reports of truths near certainty, against the equations that hold there, in 50 digits."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from kullback.losses import (
    BalancedSoftmax,
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    Ldam,
    Poly,
)

mp.mp.dps = 50

# log h up to a constant, h = −dφ/dq the slope of the cost of a class, from log q and log(1 − q), both exact
STEEPNESS = {
    "focal": lambda loss, k, q, m: (loss.gamma - 1) * m + mp.log(mp.exp(m - q) - loss.gamma * q) if loss.gamma else -q,
    "poly": lambda loss, k, q, m: mp.log(mp.exp(m) + (1 + mp.mpf(loss.epsilon)) * mp.exp(q)) - q,
    "jensen_shannon": lambda loss, k, q, m: mp.log(
        mp.log1p(mp.exp(-q) * mp.mpf(loss.share) / (1 - mp.mpf(loss.share)))
    ),
    "generalised_cross_entropy": lambda loss, k, q, m: (mp.mpf(loss.q) - 1) * q,
    "ldam": lambda loss, k, q, m: -q - mp.log(mp.exp(m) + mp.exp(q - mp.mpf(float(loss._shift(3)[k])))),
}
LOSSES = [
    *(JensenShannon(share=share) for share in (0.01, 0.1, 0.5, 0.9, 0.99)),
    *(Focal(gamma=gamma) for gamma in (0, 0.5, 1, 2, 100)),
    *(Poly(epsilon=epsilon) for epsilon in (-1, -0.5, 1, 1e4)),
    *(GeneralisedCrossEntropy(q=q) for q in (0.3, 0.99)),
    *(Ldam(class_counts=[16, 1, 4], max_margin=margin) for margin in (0.1, 0.5, 2)),
    Ldam(class_counts=[16, 1, 4], max_margin=1, temperature=1),
]
TRUTHS = [
    (0.6, 0.3, 0.1),
    (0.99, 0.009, 0.001),
    (0.999, 0.0005, 0.0005),
    (1 - 1e-9, 0.5e-9, 0.5e-9),
    (1e-12, 3e-9, 1 - 3.001e-9),
    (0.25, 0.75, 0.0),
    (1e-9, 1 - 1e-9, 0.0),
    (1 - 1e-100, 1e-100, 1e-200),
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("truth", TRUTHS, ids=str)
def test_the_reported_distribution_solves_its_equations(loss, truth):
    p = np.array(truth) / np.sum(truth)
    log_q = loss.elicited_log(p)
    held = np.flatnonzero(p)
    assert np.isneginf(log_q[p == 0]).all()
    top = int(np.argmax(log_q))
    exact = [mp.mpf(float(x)) for x in log_q]
    rest = mp.log(mp.fsum(mp.exp(exact[k]) for k in held if k != top))  # log(1 − q) of the top, from the others
    exact[top] = mp.log1p(-mp.exp(rest))
    assert abs(exact[top] - mp.mpf(float(log_q[top]))) <= 4e-16 * (1 + abs(exact[top]))
    levels = []
    for k in held:
        miss = rest if k == top else mp.log1p(-mp.exp(exact[k]))
        levels.append(mp.log(mp.mpf(float(p[k]))) + STEEPNESS[loss.name](loss, k, exact[k], miss))
    sizes = [1 + abs(float(x)) * 1e-4 for x in log_q[held]]  # of log q, a rounding of which counts
    assert float(max(levels) - min(levels)) <= 1e-11 * max(sizes)
    np.testing.assert_allclose(np.exp(loss.recover_log(log_q[None, :])[0]), p, rtol=1e-9)


def test_jensen_shannon_of_ordinary_truths():
    """At π = ½ a class of odds 1:99 gets 2^(−99) to first order: log(1 + 1/q) = 99·log 2."""
    q = JensenShannon().elicited([0.99, 0.01])
    assert q[0] == 1
    assert q[1] == pytest.approx(float(1 / (mp.mpf(2) ** 99 - 1)), rel=1e-12)
    best = JensenShannon().best_constant([0] * 995 + [1] * 5, n_classes=2)
    assert best[1] - best[0] == pytest.approx(-199 * np.log(2), rel=1e-13)
    assert JensenShannon().floor([[0.99, 0.01]]) == pytest.approx(0.02, rel=1e-12)  # 2·0.01, what the rest costs


def test_reports_below_the_smallest_float_keep_their_logarithm():
    loss, p = GeneralisedCrossEntropy(q=0.99), np.array([0.999, 0.0005, 0.0005])
    assert loss.elicited(p)[1] == 0
    assert loss.elicited_log(p)[1] == pytest.approx(100 * np.log(0.0005 / 0.999), rel=1e-12)
    np.testing.assert_allclose(np.exp(loss.recover_log(loss.elicited_log([p]))), [p], rtol=1e-12)
    loss = JensenShannon(share=0.9)
    log_q = loss.elicited_log([1 - 1e-9, 1e-9])
    assert log_q[1] == pytest.approx(-1e9 * np.log(10), rel=1e-8)
    np.testing.assert_allclose(np.exp(loss.recover_log([log_q])), [[1 - 1e-9, 1e-9]], rtol=1e-9)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), CrossEntropy(softcap=2.0), BalancedSoftmax(class_counts=[9, 1]), Focal()], ids=str
)
def test_elicited_log_is_the_logarithm_of_elicited(loss):
    for p in ([0.25, 0.75], [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]):
        np.testing.assert_allclose(np.exp(loss.elicited_log(p)), loss.elicited(p), rtol=1e-13)
