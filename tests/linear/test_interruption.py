import importlib
import os
import signal
import threading

import numpy as np
import pytest

from kullback import SigmoidClassifier, SoftmaxClassifier
from kullback.errors import NotConvergedWarning


def press(times):
    """A callback that presses Ctrl-C at some iterations."""

    def callback(record):
        for _ in range(times.count(record.iteration)):
            os.kill(os.getpid(), signal.SIGINT)

    return callback


@pytest.mark.parametrize("kind", [SoftmaxClassifier, SigmoidClassifier])
def test_ctrl_c_returns_the_best_model_so_far(data, kind):
    X, y = data
    target = y if kind is SoftmaxClassifier else np.eye(3, dtype=int)[y]
    model = kind(callback=press([3]), tol=1e-12)
    with pytest.warns(NotConvergedWarning, match=r"Ctrl-C stopped it; the .*warm_start=True"):
        model.fit(X, target)
    assert model.interrupted_
    assert not model.converged_
    assert model.n_iter_ == 3 == model.history_[-1].iteration
    assert model.certificate_.primal == pytest.approx(model.history_[-1].objective, rel=1e-5)
    assert 1e-12 < model.certificate_.relative_gap < 1
    # The stored model is the one of the last iteration, not an earlier one.
    with pytest.warns(NotConvergedWarning, match="used all 3"):
        capped = kind(max_iter=3, tol=1e-12).fit(X, target)
    np.testing.assert_array_equal(model.coef_, capped.coef_)
    model.set_params(warm_start=True, callback=None).fit(X, target)
    assert model.converged_
    assert not model.interrupted_


def test_the_second_ctrl_c_aborts_and_changes_nothing(data):
    model = SoftmaxClassifier(callback=press([2, 2]))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert not hasattr(model, "coef_")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_quick_second_ctrl_c_ends_the_program_that_runs_several_fits(data):
    with pytest.warns(NotConvergedWarning, match="Ctrl-C"):
        SoftmaxClassifier(callback=press([1])).fit(*data)
    with pytest.raises(KeyboardInterrupt):
        SoftmaxClassifier(callback=press([1])).fit(*data)


def test_a_handler_of_the_program_stays_in_charge(data):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        model = SoftmaxClassifier(callback=press([2])).fit(*data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]
    assert model.converged_


def test_a_fit_in_another_thread_runs_as_before(data):
    models = []
    thread = threading.Thread(target=lambda: models.append(SoftmaxClassifier().fit(*data)))
    thread.start()
    thread.join()
    assert models[0].converged_


def test_a_callback_ends_the_fit_by_stop_iteration(data):
    def enough(record):
        if record.distance < 1e-2:
            raise StopIteration

    with pytest.warns(NotConvergedWarning, match="its callback stopped it"):
        model = SoftmaxClassifier(callback=enough).fit(*data)
    assert model.interrupted_
    assert model.history_[-1].distance < 1e-2 <= model.history_[-2].distance


def test_ctrl_c_is_heard_between_the_passes_of_a_newton_step(data, monkeypatch):
    calls = []

    def product(problem, parameters, direction):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return direction / 2

    monkeypatch.setattr("kullback.linear.problem.LinearProblem.hessian_product", product)
    # Where L-BFGS comes to the end of rounding, Newton steps go on.
    monkeypatch.setattr(importlib.import_module("kullback.linear.solvers.lbfgs"), "PATIENCE", -1)
    with pytest.warns(NotConvergedWarning, match="Ctrl-C stopped it"):
        model = SoftmaxClassifier(tol=1e-9).fit(*data)
    assert model.interrupted_
    assert len(calls) == 1
    assert np.isfinite(model.coef_).all()
