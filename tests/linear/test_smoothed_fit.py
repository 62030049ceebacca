"""Hinges with kinks and many weights are fitted by rounded-off ones, and proved on the hinge itself."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

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


def uneven(seed, n, d, n_classes):
    """Data of which every example weighs anything between 1e-4 and 1e4."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = (X @ rng.normal(size=(d, n_classes)) + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    return X, y, 10.0 ** rng.uniform(-4, 4, n)


SUM = "0.5 * cross_entropy + 0.5 * weston_watkins"


@pytest.mark.parametrize("seed", [2, 11])
def test_a_stage_starts_where_the_ones_before_point_to(seed):
    """Where the stage before ended, the examples on a kink lie beyond the next one's curve: steps came to nothing."""
    X, y, weight = uneven(seed, 60, 3, 3)
    model = SoftmaxClassifier(loss=SUM, penalty="l1", C=100.0).fit(X, y, weight)
    assert model.solver_ == "smoothed"
    assert model.certificate_.relative_gap <= model.tol
    assert model.n_iter_[0] <= 60


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_copied_columns_under_uneven_weights(penalty):
    X, y, weight = uneven(5, 150, 6, 4)
    X = np.hstack([X, X[:, :2], np.full((150, 1), 7.0)])
    model = SoftmaxClassifier(loss=SUM, penalty=penalty, C=100.0).fit(X, y, weight)
    assert model.certificate_.relative_gap <= model.tol
    assert model.n_iter_[0] <= 80


@pytest.mark.parametrize("penalty", ["l2", "group"])
def test_sums_on_columns_of_twelve_orders_of_magnitude(penalty):
    X, y, _ = uneven(0, 200, 40, 6)
    X = X * 10.0 ** np.random.default_rng(0).uniform(-6, 6, 40)
    model = SoftmaxClassifier(loss=SUM, penalty=penalty).fit(X, y)
    assert model.certificate_.relative_gap <= model.tol
    assert model.n_iter_[0] <= 120


def test_a_stage_that_conjugate_gradients_do_not_end_takes_the_hessian():
    """Raw digits on columns of twelve orders of magnitude: 1000 Newton steps proved nothing."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    some = rng.permutation(len(y))[:400]
    model = SoftmaxClassifier(loss=SUM).fit(X[some] * 10.0 ** rng.uniform(-6, 6, 64), y[some])
    assert model.certificate_.relative_gap <= model.tol
    assert model.n_iter_[0] <= 60


def test_what_rounding_hides_on_a_kink_is_said():
    X, y, weight = uneven(10, 60, 3, 3)
    with pytest.warns(NotConvergedWarning, match="of the examples on a kink of the loss float64 rounds the slopes by"):
        model = SoftmaxClassifier(loss=SUM, penalty="l1", C=100.0, tol=2e-8).fit(X, y, weight)
    assert 2e-8 < model.certificate_.relative_gap < 1e-6
    X, y, weight = uneven(8, 60, 3, 3)
    with pytest.warns(NotConvergedWarning, match="the penalty, .* per example, is lost in float64's rounding; lower C"):
        SoftmaxClassifier(loss=SUM, penalty="l1", C=100.0, tol=8e-9).fit(X, y, weight)
