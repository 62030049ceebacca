"""Losses of probabilities and log-probabilities that somebody else computed, and the divergence."""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np
import pytest

from kullback import ClassMixture, ClassRows, CrossEntropy
from kullback.errors import InputError, TargetError
from kullback.losses import (
    ClippedWarning,
    CrossEntropyFromProbabilities,
    KullbackLeibler,
    NegativeLogLikelihood,
    parse_loss,
)

_path = pathlib.Path(__file__).parents[1] / "conformance" / "exact.py"
_spec = importlib.util.spec_from_file_location("exact", _path)
exact = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact)
mp = exact.mp

W = (1.0, 2.0, 5.0, 0.5)


def effective(loss, t):
    weight = np.array(loss.class_weight or np.ones(4))
    return weight * ((1 - loss.label_smoothing) * t + loss.label_smoothing / 4 * t.sum(axis=-1, keepdims=True))


def close(loss, x, targets, value_of, tol):
    """Value, gradient, product and diagonal against 50 digits."""
    rng = np.random.default_rng(3)
    v = rng.normal(size=x.shape).astype(x.dtype)
    values, gradient = loss.value_and_gradient(x, targets, reduction="none")
    product = loss.hessian_product(x, targets, v, reduction="none")
    diagonal = loss.hessian_diagonal(x, targets, reduction="none")
    for i, row in enumerate(x):
        value_, gradient_, product_, diagonal_ = exact.derivatives(value_of(i), row, v[i])
        np.testing.assert_allclose(values[i], float(value_), rtol=tol, atol=tol)
        for ours, theirs in ((gradient[i], gradient_), (product[i], product_), (diagonal[i], diagonal_)):
            truth = exact.floats(theirs)
            np.testing.assert_allclose(ours, truth, rtol=tol, atol=tol * (1 + np.abs(truth).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("setting", [{}, {"class_weight": W, "label_smoothing": 0.1}], ids=str)
def test_from_probabilities_is_exact(rng, dtype, setting):
    loss = CrossEntropyFromProbabilities(clip=0.05, **setting)
    x = (rng.dirichlet(np.ones(4), 8) * rng.uniform(0.5, 3, (8, 1))).astype(dtype)
    targets = rng.dirichlet(np.ones(4), 8)
    s = effective(loss, targets)

    def value_of(i):
        def value(z):
            total = mp.fsum(z)
            shares = [min(max(v / total, mp.mpf(loss.clip)), 1 - mp.mpf(loss.clip)) for v in z]
            return -mp.fsum(mp.mpf(float(a)) * mp.log(q) for a, q in zip(s[i], shares, strict=True))

        return value

    with pytest.warns(ClippedWarning):
        close(loss, x, targets, value_of, 64 * np.finfo(dtype).eps)


def test_clipping_is_counted_and_said():
    loss = CrossEntropyFromProbabilities()
    x = np.array([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert loss.clipping(x, [0, 0, 1, -100]) == (1, 1, 3, pytest.approx(2 / 3))
    with pytest.warns(ClippedWarning, match=r"1 of 3 rows \(33.3%\) give a true class less than 1e-07"):
        values, gradient = loss.value_and_gradient(x, [0, 0, 1, -100], reduction="none")
    np.testing.assert_allclose(values, [-math.log(1 - 1e-7), math.log(2), -math.log(1e-7), 0], rtol=1e-6)
    assert (gradient[[0, 2, 3]] == 0).all()
    assert values.max() <= loss.ceiling


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0.5, 0.5], [1.5, -0.5]], r"row 1, column 1: probability -0.5"),
        ([[0.5, 0.5], [0.0, 0.0]], r"row 1, the sum of probabilities 0.0"),
    ],
)
def test_what_is_no_probability_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        CrossEntropyFromProbabilities()(x, [0, 1])
    with pytest.raises(TargetError, match="row 1: target 2"):
        CrossEntropyFromProbabilities()([[0.5, 0.5], [0.5, 0.5]], [0, 2])
    # rows that do not count are not looked at
    assert CrossEntropyFromProbabilities()(x, [0, -100]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("setting", [{}, {"class_weight": W, "label_smoothing": 0.1}], ids=str)
def test_they_agree_with_cross_entropy_on_logits(rng, setting):
    z, y = rng.normal(size=(30, 4)) * 2, rng.integers(0, 4, 30)
    y[3] = -100
    weight = rng.uniform(size=30)
    truth = CrossEntropy(**setting)
    log_p = truth.log_probabilities(z)
    for loss, x in (
        (NegativeLogLikelihood(**setting), log_p),
        (CrossEntropyFromProbabilities(**setting), np.exp(log_p)),
    ):
        for targets in (y, ClassRows(rng.dirichlet(np.ones(4), 30)), ClassMixture(abs(y % 4), y[::-1] % 4, 0.3)):
            assert loss(x, targets, sample_weight=weight) == pytest.approx(truth(z, targets, sample_weight=weight))
        p = rng.dirichlet(np.ones(4), 5)
        np.testing.assert_allclose(loss.recover(loss.elicited(p)), p, rtol=1e-10)
        np.testing.assert_allclose(loss.recover_log(np.log(loss.elicited(p))), np.log(p), rtol=1e-9)
        assert loss.initial_value(4) == pytest.approx(math.log(4))
        assert loss.floor(p) == pytest.approx(truth.floor(p))
        best = loss.best_constant(y, n_classes=4)
        np.testing.assert_allclose(loss.probabilities(best[None, :]), truth.elicited([truth_of(y)]), rtol=1e-10)
        np.testing.assert_array_equal(loss.decide(x), truth.decide(z))
        np.testing.assert_allclose(loss.log_probabilities(x), log_p, atol=1e-12)
        assert loss.proper == truth.proper
        assert parse_loss(str(loss)) == loss
    assert CrossEntropyFromProbabilities().floor([0, 1], n_classes=4) == pytest.approx(-math.log(1 - 1e-7))


def truth_of(y):
    return np.bincount(y[y >= 0], minlength=4) / (y >= 0).sum()


def test_negative_log_likelihood_is_linear_and_keeps_masks():
    x = np.array([[-0.1, -3.0, -np.inf]])
    loss = NegativeLogLikelihood(class_weight=[2, 1, 1])
    value, gradient = loss.value_and_gradient(x, [0], reduction="sum")
    assert value == pytest.approx(0.2)
    assert gradient.tolist() == [[-2, 0, 0]]
    assert not loss.hessian_diagonal(x, [0]).any()
    assert loss.per_example([[np.nan, 0, 0], [0, 0, 0]], [-100, 0]).tolist() == [0, 0]
    assert np.isnan(loss.per_example([[np.nan, 0, 0]], [1])[0])
    assert (loss.convex, loss.bounded_gradient, loss.ceiling) == (True, True, math.inf)


@pytest.mark.parametrize("setting", [{}, {"class_weight": W, "label_smoothing": 0.2, "temperature": 2}], ids=str)
def test_divergence_is_cross_entropy_less_entropy(rng, setting):
    loss, ce = KullbackLeibler(**setting), CrossEntropy(**setting)
    z = rng.normal(size=(9, 4))
    t = rng.dirichlet(np.ones(4), 9)
    t[0], t[1], t[2] = 0, [0, 1, 0, 0], 3 * t[2]
    for targets in (t, rng.integers(0, 4, 9), ClassMixture(rng.integers(0, 4, 9), rng.integers(0, 4, 9), 0.3)):
        value, gradient = loss.value_and_gradient(z, targets, reduction="none")
        truth, gradient_ = ce.value_and_gradient(z, targets, reduction="none")
        np.testing.assert_allclose(value, truth - ce.floor(targets, n_classes=4, reduction="none"), atol=1e-14)
        np.testing.assert_allclose(gradient, gradient_, rtol=1e-14, atol=1e-15)
        assert (value >= 0).all()
        assert loss.floor(targets, n_classes=4) == 0
    best = loss.best_constant(t[3:4])
    assert loss(best[None, :], t[3:4]) == pytest.approx(0, abs=1e-15)
    balanced = np.arange(12) % 4
    assert loss.initial_value(4) == pytest.approx(loss(np.zeros((12, 4)), balanced))
    np.testing.assert_allclose(loss.elicited(t[3]), ce.elicited(t[3]))
    weight = rng.uniform(size=9)
    whole = loss(z, t, sample_weight=weight, reduction="sum")
    assert whole == pytest.approx(loss.per_example(z, t, sample_weight=weight).sum())
