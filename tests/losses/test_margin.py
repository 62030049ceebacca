"""The hinges: what they claim, their best constants against a linear programme, and their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from kullback import ClassRows
from kullback.errors import InfiniteLossWarning, InputError, NoProbabilitiesError
from kullback.losses import CrammerSinger, WestonWatkins, parse_loss

ALL = [
    WestonWatkins(),
    WestonWatkins(margin=0.5, class_weight=[1, 2, 5, 0.5]),
    WestonWatkins(squared=True, margin=2),
    CrammerSinger(),
    CrammerSinger(margin=0.5, class_weight=[1, 2, 5, 0.5]),
    CrammerSinger(squared=True, margin=2),
]


def lowest_by_programme(loss, s):
    """min Σ_y s_y·ξ_y over logits, ξ_y the sum or the maximum of hinges, as a linear programme."""
    c = len(s)
    ww = loss.name == "weston_watkins"
    slack = {(y, k): c + (y * c + k if ww else y) for y in range(c) for k in range(c) if k != y}
    n = c + (c * c if ww else c)
    cost = np.zeros(n)
    rows, right = [], []
    for (y, k), place in slack.items():
        cost[place] = s[y]
        row = np.zeros(n)
        row[k], row[y], row[place] = 1, -1, -1
        rows.append(row)
        right.append(-loss.margin)
    bounds = [(None, None)] * c + [(0, None)] * (n - c)
    return linprog(cost, A_ub=np.array(rows), b_ub=right, bounds=bounds).fun


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_best_constant_and_floor(loss, seed):
    p = np.random.default_rng(seed).dirichlet(np.full(4, 1.0 if seed < 2 else 0.3))
    s = p * np.array(loss.class_weight or np.ones(4))
    if loss.squared:
        runs = [
            minimize(lambda z: loss(z[None, :], ClassRows(p[None, :]), reduction="sum"), start, method="Powell")
            for start in (np.zeros(4), p)
        ]
        truth, tol = min(run.fun for run in runs), 1e-5
    else:
        truth, tol = lowest_by_programme(loss, s), 1e-9
    assert loss.floor(p[None, :], reduction="sum") == pytest.approx(truth, abs=tol)
    best = loss.best_constant(p[None, :])
    assert loss(best[None, :], p[None, :], reduction="sum") <= truth + tol


def test_best_constant_of_many_classes(rng):
    p = rng.dirichlet(np.full(9, 0.7))
    assert WestonWatkins().floor(p[None, :]) == pytest.approx(lowest_by_programme(WestonWatkins(), p), abs=1e-9)
    assert WestonWatkins().floor(np.full((1, 9), 1 / 9)) == pytest.approx(8)
    assert WestonWatkins().floor([0, 2], n_classes=3) == 0
    assert WestonWatkins().best_constant([1, 1], n_classes=3).argmax() == 1
    with pytest.raises(InputError, match="no row counts"):
        CrammerSinger().best_constant([-100], n_classes=3)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_claims(loss, rng):
    targets = np.arange(12) % 4
    assert loss.initial_value(4) == pytest.approx(loss(np.full((12, 4), 3.0), targets))
    a, b = rng.normal(size=(2, 12, 4)) * 5
    assert loss(0.5 * (a + b), targets) <= 0.5 * (loss(a, targets) + loss(b, targets)) + 1e-12
    _, gradient = loss.value_and_gradient(a * 1e5, targets, reduction="none")
    assert loss.bounded_gradient == (np.abs(gradient).max() < 100)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-6)
    assert parse_loss(str(loss)) == loss
    assert loss.decide([[1.0, 3.0, 3.0]]).tolist() == [1]
    assert (loss.convex, loss.proper, loss.ceiling, loss.link) == (True, False, math.inf, "none")


def test_no_probabilities():
    for loss in ALL:
        for call in (loss.probabilities, loss.log_probabilities, loss.elicited, loss.recover, loss.recover_log):
            with pytest.raises(NoProbabilitiesError, match=r"Train with CrossEntropy\(\) for probabilities"):
                call(np.array([[0.25, 0.25, 0.25, 0.25]]))


def test_by_hand():
    z = [[3.0, 2.5, 0.0, 4.0]]
    assert WestonWatkins()(z, [0]) == 2.5
    assert CrammerSinger()(z, [0]) == 2.0
    assert WestonWatkins(squared=True)(z, [0]) == 0.25 + 4
    _, gradient = WestonWatkins().value_and_gradient(z, [0])
    assert gradient.tolist() == [[-2, 1, 0, 1]]
    _, gradient = CrammerSinger(squared=True).value_and_gradient(z, [0])
    assert gradient.tolist() == [[-4, 0, 0, 4]]
    # beyond the margin nothing pulls, at the margin neither
    assert WestonWatkins().value_and_gradient([[5.0, 4.0, 0.0]], [0])[1].tolist() == [[0, 0, 0]]
    # a jiggle of the scores of a row that is right by the margin changes nothing
    assert WestonWatkins()([[9.0, 2.0]], [0]) == WestonWatkins()([[9.1, 1.9]], [0]) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(dtype):
    z = np.array([[1, 0, -np.inf], [np.nan, 0, 1], [0, 0.5, -np.inf], [-np.inf] * 3], dtype=dtype)
    for loss in (WestonWatkins(), CrammerSinger()):
        value, gradient = loss.value_and_gradient(z[[0, 2]], [1, 0], reduction="none")
        np.testing.assert_allclose(value, [2, 1.5])  # a masked class is no rival
        assert gradient[:, 2].tolist() == [0, 0]
        values, gradient = loss.value_and_gradient(z[:2], [0, 0], reduction="none")
        assert np.isnan(values[1])
        assert np.isnan(gradient[1]).all()
        assert np.isfinite(gradient[0]).all()
        with pytest.warns(InfiniteLossWarning, match="row 0"):
            value, gradient = loss.value_and_gradient(z[:1], [2], reduction="none")
        assert value == np.inf
        assert np.isfinite(gradient).all()
        ignored, gradient = loss.value_and_gradient(z, [0, -100, 0, 0], sample_weight=[1, 1, 1, 0], reduction="none")
        assert ignored[1] == ignored[3] == 0
        assert (gradient[[1, 3]] == 0).all()
    with pytest.raises(InputError, match="squared=1 is not True or False"):
        WestonWatkins(squared=1)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("kind", [WestonWatkins, CrammerSinger])
def test_a_class_of_weight_zero_pulls_nothing_even_where_it_is_masked(backend, kind, squared):
    loss = kind(squared=squared, class_weight=[0, 1, 1])
    value, gradient = loss.value_and_gradient([[-np.inf, 1.0, 2.0]], [0], reduction="sum")
    assert value == 0
    assert (gradient == 0).all()
