"""One fit of wide data runs in the rows' own coordinates where that pays, and is proved on the columns."""

import math
import os
import signal
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_wine

from kullback import SigmoidClassifier, SoftmaxClassifier, SoftmaxPath
from kullback.errors import NotConvergedWarning
from kullback.linear import checkpoint as checkpoint_module
from kullback.linear import interruption
from kullback.linear import rotation as rotation_module
from kullback.linear.rotation import rotate, rotation_pays


@pytest.fixture
def uneven(rng):
    """Columns over six orders of magnitude: on them a fit takes hundreds of iterations."""
    X = rng.normal(size=(60, 400)) * 10.0 ** rng.permutation(np.linspace(-3, 3, 400)) + 5
    return X, rng.integers(0, 4, 60)


def on_columns(monkeypatch, make):
    """The same without a rotation."""
    with monkeypatch.context() as patch:
        patch.setattr(rotation_module, "WIDE", math.inf)
        return make()


FORMS = {
    "dense": np.asarray,
    "float32": lambda X: X.astype(np.float32),
    "by columns": np.asfortranarray,
    "csr": sparse.csr_array,
    "csc": sparse.csc_array,
    "empty columns": lambda X: sparse.hstack([sparse.csr_array((60, 100)), sparse.csr_array(X)], "csr"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_answer_is_that_of_the_columns(uneven, form, fit_intercept, monkeypatch):
    X, y = FORMS[form](uneven[0]), uneven[1]
    weight = np.linspace(0.5, 2, len(y))
    settings = {"C": 1e-2, "fit_intercept": fit_intercept, "tol": 1e-8}
    turned = SoftmaxClassifier(**settings).fit(X, y, weight)
    plain = on_columns(monkeypatch, lambda: SoftmaxClassifier(**settings, max_iter=4000).fit(X, y, weight))
    assert turned.solver_ == "rotated"
    assert plain.solver_ != "rotated"
    assert turned.converged_
    assert turned.certificate_.relative_gap <= 1e-8
    assert turned.certificate_.primal <= plain.certificate_.primal * (1 + 2e-8)
    assert turned.certificate_.dual <= plain.certificate_.primal * (1 + 1e-12)
    np.testing.assert_allclose(turned.predict_proba(X), plain.predict_proba(X), atol=1e-3)
    assert [record.iteration for record in turned.history_] == list(range(int(turned.n_iter_[0]) + 1))


def test_twelve_orders_of_magnitude_are_proved(rng, capsys):
    X = rng.normal(size=(60, 400)) * 10.0 ** rng.permutation(np.linspace(-6, 6, 400))
    model = SoftmaxClassifier(verbose=1).fit(X, rng.integers(0, 4, 60))
    assert model.converged_
    assert model.certificate_.relative_gap <= 1e-6
    assert model.n_iter_[0] < 1000
    assert "60 rows" in model.solver_reason_
    assert f"solver rotated: {model.solver_reason_}" in capsys.readouterr().out


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_a_sharp_softmax_on_twelve_orders_of_magnitude_is_solved_to_rounding(seed):
    # Its scale of 30 and logits of many millions make the objective a polygon along a step.
    X, _ = load_wine(return_X_y=True)
    rng = np.random.default_rng(seed)
    X = X[rng.permutation(len(X))[:5]] * 10.0 ** rng.uniform(-6, 6, X.shape[1])
    # How the products round, which another processor does otherwise, decides whether the last digits are proved.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NotConvergedWarning)
        model = SoftmaxClassifier(loss="ldam", C=1e4).fit(X, np.arange(5))
    assert model.solver_ == "rotated"
    assert model.certificate_.primal < 1e-8
    if not model.converged_:
        assert "the penalty on their weights is lost in float64's rounding" in model.certificate_.reason
        assert any("rounding" in str(warning.message) for warning in caught)


def test_labels_are_fitted_so_too(uneven, rng):
    X = uneven[0]
    Y = rng.integers(0, 2, (60, 3))
    model = SigmoidClassifier(C=1e-3).fit(X, Y)
    assert model.solver_ == "rotated"
    assert model.converged_


def test_a_named_solver_and_an_absent_penalty_stay_on_the_columns(uneven):
    X, y = uneven
    for settings in ({"solver": "lbfgs"}, {"C": math.inf}, {"penalty": "l1"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert SoftmaxClassifier(**settings, max_iter=20).fit(X, y).solver_ != "rotated"


def test_what_pays(rng):
    even, wide = np.ones(10_000), rng.normal(size=(200, 10_000))
    assert rotation_pays(wide, 5, even, 100.0)
    assert not rotation_pays(wide[:, :300], 5, even[:300], 100.0)  # not wide
    broad = np.broadcast_to(np.float64(0), (1000, 3000))
    assert not rotation_pays(broad, 10, even[:3000], 0.3)  # few iterations on the columns
    assert rotation_pays(broad, 10, even[:3000], 0.3, n_fits=20)
    assert not rotation_pays(wide[:20, :100], 3, even[:100], 100.0)  # a matter of milliseconds
    assert rotation_pays(wide[:20, :100], 3, np.logspace(0, 4, 100), 100.0)  # unless columns differ
    entries = np.ones(20_000), rng.integers(0, 10_000, 20_000), np.arange(0, 20_001, 10)
    thin = sparse.csr_array(entries, shape=(2000, 10_000))
    assert not rotation_pays(thin, 5, even, 100.0)  # sparse passes cost less than a decomposition


def test_parameters_go_both_ways(rng):
    X = rng.normal(size=(20, 50)) + 3
    rotation = rotate(X)
    turned, intercept = rng.normal(size=(19, 3)), rng.normal(size=3)
    back = rotation.from_columns(*rotation.to_columns(turned, intercept))
    np.testing.assert_allclose(back[0], turned, atol=1e-9)
    np.testing.assert_allclose(back[1], intercept, atol=1e-9)


def test_a_warm_start_at_the_optimum_takes_no_rotation(uneven, monkeypatch):
    X, y = uneven
    model = SoftmaxClassifier(warm_start=True).fit(X, y)
    first = model.coef_
    assert model.n_iter_[0] > 5
    monkeypatch.setattr("kullback.linear.task.rotate", lambda *_, **__: pytest.fail("rotated"))
    model.fit(X, y)
    assert len(model.history_) == 1
    np.testing.assert_allclose(model.coef_, first)


def test_a_warm_start_near_it_takes_few_steps(uneven):
    X, y = uneven
    model = SoftmaxClassifier(warm_start=True, C=0.01).fit(X, y)
    cold = SoftmaxClassifier(C=0.011).fit(X, y)
    warm = model.set_params(C=0.011).fit(X, y)
    assert warm.solver_ == cold.solver_ == "rotated"
    assert warm.n_iter_[0] < 0.7 * cold.n_iter_[0]


def test_ctrl_c_a_callback_and_max_iter_leave_the_model_of_that_step(uneven, monkeypatch):
    X, y = uneven
    monkeypatch.setattr(interruption, "_last", -math.inf)

    def press(record):
        if record.iteration == 4:
            os.kill(os.getpid(), signal.SIGINT)

    def stop(record):
        if record.iteration == 4:
            raise StopIteration

    with pytest.warns(NotConvergedWarning, match="Ctrl-C stopped it; the "):
        pressed = SoftmaxClassifier(callback=press, C=0.01).fit(X, y)
    with pytest.warns(NotConvergedWarning, match="its callback stopped it"):
        stopped = SoftmaxClassifier(callback=stop, C=0.01).fit(X, y)
    with pytest.warns(NotConvergedWarning, match="it used all 4 iterations"):
        capped = SoftmaxClassifier(max_iter=4, C=0.01).fit(X, y)
    assert pressed.interrupted_
    assert stopped.interrupted_
    assert not capped.interrupted_
    for model in (pressed, stopped, capped):
        assert model.solver_ == "rotated"
        assert model.n_iter_[0] == 4
        assert model.certificate_.primal == pytest.approx(model.history_[-1].objective, rel=1e-9)
        np.testing.assert_array_equal(model.coef_, capped.coef_)


def test_a_fit_goes_on_from_its_checkpoint(uneven, tmp_path, monkeypatch):
    X, y = uneven
    monkeypatch.setattr(checkpoint_module, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "WRITING_SHARE", 1e9)
    path = tmp_path / "state"

    def die(record):
        if record.iteration == 6:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        SoftmaxClassifier(checkpoint=path, callback=die, C=0.01).fit(X, y)
    assert path.exists()
    seen = []
    model = SoftmaxClassifier(checkpoint=path, callback=lambda r: seen.append(r.iteration), C=0.01).fit(X, y)
    assert not path.exists()
    assert seen[0] == 6
    assert model.converged_
    straight = SoftmaxClassifier(C=0.01).fit(X, y)
    assert model.certificate_.primal == pytest.approx(straight.certificate_.primal, rel=2e-6)


def test_a_path_rotates_once(uneven, monkeypatch):
    X, y = uneven
    count = []

    def counted(*arguments, **settings):
        count.append(1)
        return rotate(*arguments, **settings)

    monkeypatch.setattr("kullback.linear.task.rotate", counted)
    path = SoftmaxPath([1e-4, 1e-2, 1.0]).fit(X, y)
    assert len(count) == 1
    assert all(certificate.relative_gap <= 1e-6 for certificate in path.certificates_)


def test_what_rounding_loses_is_finished_on_the_columns(uneven, monkeypatch):
    X, y = uneven
    exact = SoftmaxClassifier(C=1e-4, tol=1e-9).fit(X, y)

    def rough(*arguments, **settings):
        rotation = rotate(*arguments, **settings)
        rotation.rows[:] *= 1.001
        return rotation

    monkeypatch.setattr("kullback.linear.task.rotate", rough)
    model = SoftmaxClassifier(C=1e-4, max_iter=4000).fit(X, y)
    assert model.converged_
    assert model.certificate_.primal == pytest.approx(exact.certificate_.primal, rel=2e-6)
    assert [record.iteration for record in model.history_] == list(range(int(model.n_iter_[0]) + 1))
