"""Hinges with kinks and many weights are fitted by rounded-off ones, and proved on the hinge itself."""

import warnings

import numpy as np
import pytest

from kullback import ClassRows, CrammerSinger, SoftmaxClassifier, WestonWatkins
from kullback.errors import NotConvergedWarning
from kullback.linear.smoothed_hinge import Rounding, rounded_off

LOSSES = [WestonWatkins(), CrammerSinger(margin=2.0), CrammerSinger(squared=True)]


@pytest.fixture(autouse=True)
def many(monkeypatch):
    """Every number of weights is too many for a step that solves for all of them."""
    monkeypatch.setattr("kullback.linear.interior_fit.MOST_AT_ONCE", 0)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(200, 4)) + 1
    return X, (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(200, 3))).argmax(axis=1)


def fit(X, y, sample_weight=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(**settings).fit(X, y, sample_weight)
    assert model.converged_
    assert model.solver_ == "smoothed"
    assert model.certificate_.relative_gap <= model.tol
    return model


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_hinges_with_kinks_are_certified(data, loss, fit_intercept):
    X, y = data
    weight = np.linspace(0.5, 2, len(y))
    rough = fit(X, y, weight, loss=loss, fit_intercept=fit_intercept, tol=1e-3).certificate_
    model = fit(X, y, weight, loss=loss, fit_intercept=fit_intercept)
    primal = loss(model.logits(X), y, sample_weight=weight) + np.square(model.coef_).sum() / (2 * weight.sum())
    assert model.certificate_.primal == pytest.approx(primal, rel=1e-9)
    assert rough.dual <= model.certificate_.primal
    assert model.certificate_.dual <= rough.primal
    # No point around is better than what is proved.
    for seed in range(20):
        noise = np.random.default_rng(seed)
        size = 10.0 ** noise.uniform(-5, -1)
        coef = model.coef_ + size * noise.normal(size=model.coef_.shape)
        shift = size * noise.normal(size=3) if fit_intercept else 0.0
        there = loss(X @ coef.T + model.intercept_ + shift, y, sample_weight=weight)
        assert there + np.square(coef).sum() / (2 * weight.sum()) >= model.certificate_.dual


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_derivatives_and_limits_of_a_rounded_off_hinge(rng, loss):
    z, rows = rng.normal(size=(40, 5)), rng.dirichlet(np.ones(5), 40)
    rows[:20] = np.eye(5)[rng.integers(0, 5, 20)]
    targets = ClassRows(rows)
    smooth = type(rounded_off(loss))(family=rounded_off(loss).family, margin=loss.margin, smoothness=0.3)
    direction, step = rng.normal(size=z.shape), 1e-6
    _, gradient = smooth.value_and_gradient(z, targets, reduction="sum")
    change = smooth(z + step * direction, targets, reduction="sum") - smooth(
        z - step * direction, targets, reduction="sum"
    )
    assert (gradient * direction).sum() == pytest.approx(change / (2 * step), rel=1e-6)
    after, before = (
        smooth.value_and_gradient(z + sign * step * direction, targets, reduction="sum")[1] for sign in (1, -1)
    )
    product = smooth.hessian_product(z, targets, direction, reduction="sum")
    np.testing.assert_allclose(product, (after - before) / (2 * step), atol=1e-6)
    diagonal = smooth.hessian_diagonal(z, targets, reduction="sum")
    for k in range(5):
        unit = np.tile(np.eye(5)[k], (40, 1))
        found = smooth.hessian_product(z, targets, unit, reduction="sum")[:, k]
        np.testing.assert_allclose(diagonal[:, k], found, atol=1e-12)
    values, whole = smooth(z, targets, reduction="none"), loss(z, targets, reduction="none")
    between = Rounding.of(smooth)(z, targets, reduction="none")
    assert (values <= whole + 1e-12).all()
    assert (whole - values >= between - 1e-9).all()


def test_no_hinge_with_kinks():
    assert rounded_off(WestonWatkins(squared=True)) is None


def test_too_few_steps_are_said_and_a_warm_start_goes_on(data):
    X, y = data
    with pytest.warns(NotConvergedWarning, match="it used all 5 iterations"):
        model = SoftmaxClassifier(loss="crammer_singer", max_iter=5, warm_start=True).fit(X, y)
    assert model.n_iter_[0] == 5
    assert model.certificate_.dual <= model.certificate_.primal
    model.set_params(max_iter=1000).fit(X, y)
    assert model.converged_


def test_a_curve_too_sharp_for_the_stage_before_is_approached_in_smaller_steps():
    """Newton's model of a sum's hinge, eight times as sharp, came to nothing under weights over orders of magnitude."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(150, 6))
    y = (X @ rng.normal(size=(6, 4)) + rng.gumbel(size=(150, 4))).argmax(axis=1)
    X = np.hstack([X, X[:, :2], np.full((150, 1), 7.0)])
    weight = 10.0 ** rng.uniform(-4, 4, 150)
    model = SoftmaxClassifier(loss="0.5*cross_entropy+0.5*weston_watkins", penalty="l1", C=100.0).fit(X, y, weight)
    assert model.solver_ == "smoothed"
    assert model.certificate_.relative_gap <= model.tol
