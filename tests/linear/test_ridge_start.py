"""Fits with a lasso or group penalty that start near the optimum under a ridge."""

import os
import signal

import numpy as np
import pytest
from scipy import sparse

from kullback import SigmoidClassifier, SoftmaxClassifier
from kullback.errors import NotConvergedWarning
from kullback.linear import task
from kullback.linear.ridge_start import ridge_start

PENALTIES = [("l1", None), ("elasticnet", 0.5), ("group", None), ("group", 0.6)]


@pytest.fixture
def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, y


def counted(monkeypatch):
    calls = []

    def first(*args, **options):
        calls.append(1)
        return ridge_start(*args, **options)

    monkeypatch.setattr(task, "ridge_start", first)
    return calls


@pytest.mark.parametrize(("penalty", "ratio"), PENALTIES)
@pytest.mark.parametrize("kind", [SoftmaxClassifier, SigmoidClassifier])
def test_ends_where_a_fit_from_zeros_ends(digits, monkeypatch, kind, penalty, ratio):
    X, y = digits
    target = y if kind is SoftmaxClassifier else np.eye(10, dtype=int)[y]
    calls = counted(monkeypatch)
    model = kind(penalty=penalty, l1_ratio=ratio, tol=1e-8).fit(X, target)
    assert calls == [1]
    shape = model.coef_.shape
    zeros = kind(penalty=penalty, l1_ratio=ratio, tol=1e-8)
    zeros.fit(X, target, coef_init=np.zeros(shape), intercept_init=np.zeros(shape[0]))
    assert calls == [1]
    assert model.converged_
    assert zeros.converged_
    assert model.certificate_.primal == pytest.approx(zeros.certificate_.primal, rel=1e-8)
    np.testing.assert_allclose(model.predict_proba(X), zeros.predict_proba(X), atol=1e-4)
    # Fewer steps, of which the first two are zeros and the start.
    assert model.n_iter_[0] < zeros.n_iter_[0]
    assert model.history_[0].loss == pytest.approx(np.log(10) if kind is SoftmaxClassifier else 10 * np.log(2))
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))
    assert np.all(np.diff([record.seconds for record in model.history_]) >= 0)
    assert model.certificate_.passes > model.n_iter_[0]


def test_zeros_are_the_start_where_few_features_will_be_used(digits, rng, monkeypatch):
    X, y = digits
    calls = counted(monkeypatch)
    SoftmaxClassifier(0.005, penalty="l1").fit(X, y)  # strong: most features stay at zero
    SoftmaxClassifier(penalty="l1").fit(sparse.csr_matrix(X), y)
    SoftmaxClassifier(penalty="l1").fit(rng.normal(size=(40, 60)), np.arange(40) % 3)  # wide
    SoftmaxClassifier(penalty="l1", loss="focal", max_iter=3, tol=0.1).fit(X, y)  # its answer depends on the start
    assert calls == []


def test_ctrl_c_on_the_way_to_the_start_leaves_the_model_of_that_step(digits, monkeypatch):
    X, y = digits
    steps = []

    def pressing(*args, between, **options):
        def pressed():
            steps.append(1)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            between()

        return ridge_start(*args, between=pressed, **options)

    monkeypatch.setattr(task, "ridge_start", pressing)
    with pytest.warns(NotConvergedWarning, match="Ctrl-C stopped it"):
        model = SoftmaxClassifier(penalty="l1").fit(X, y)
    assert model.interrupted_
    assert len(steps) == 3
    assert model.n_iter_[0] == 1
    assert 0 < model.certificate_.primal < np.log(10)
    assert model.certificate_.primal == pytest.approx(model.history_[-1].objective, rel=1e-5)
    assert model.certificate_.relative_gap > 1e-4
    assert model.score(X, y) > 0.8


@pytest.mark.parametrize("iteration", [0, 1, 2])
def test_a_callback_and_max_iter_end_the_fit_at_its_first_steps(digits, iteration):
    X, y = digits

    def stop(record):
        if record.iteration == iteration:
            raise StopIteration

    with pytest.warns(NotConvergedWarning, match="its callback stopped it"):
        stopped = SoftmaxClassifier(penalty="l1", callback=stop).fit(X, y)
    assert stopped.history_[-1].iteration == iteration
    assert stopped.certificate_.primal == pytest.approx(stopped.history_[-1].objective, rel=1e-5)
    if iteration:
        with pytest.warns(NotConvergedWarning, match=f"it used all {iteration} iterations"):
            capped = SoftmaxClassifier(penalty="l1", max_iter=iteration).fit(X, y)
        assert capped.n_iter_[0] == iteration
        with pytest.warns(NotConvergedWarning, match="its callback stopped it"):
            both = SoftmaxClassifier(penalty="l1", callback=stop, max_iter=iteration).fit(X, y)
        assert both.interrupted_
