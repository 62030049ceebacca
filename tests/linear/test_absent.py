"""Classes without examples that count: the optimum is that of the other classes alone, and is proved as fast."""

import warnings

import numpy as np
import pytest
from scipy import sparse

from kullback import SoftmaxClassifier, SoftmaxPath
from kullback.errors import SeparableWarning
from kullback.linear.absent import absent_classes, ruled_out
from kullback.losses import BinaryCrossEntropy, CrossEntropy, WestonWatkins
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

GONE = 2
NEXT_TO_NOTHING = 1e-20


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(300, 8)) * [1, 1, 1, 1, 1, 1, 20, 300]
    y = (X / X.std(axis=0) @ rng.normal(size=(8, 4)) + rng.normal(size=(300, 4))).argmax(axis=1)
    return X, y


def fit(X, y, how="rows", **settings):
    """With no example of one class that counts."""
    if how == "class":
        return SoftmaxClassifier(class_weight={GONE: 0}, **settings).fit(X, y)
    return SoftmaxClassifier(**settings).fit(
        X, y, sample_weight=np.where(y == GONE, 0.0 if how == "rows" else 1e-30, 1)
    )


def check(model, X, y, most=30, **settings):
    """Against a fit of the other classes, which has an ordinary optimum."""
    assert model.converged_
    assert model.n_iter_[0] <= most
    assert model.certificate_.relative_gap <= 1e-6
    kept = np.flatnonzero(y != GONE)
    others = SoftmaxClassifier(tol=1e-9, **settings).fit(X[kept], y[kept])
    assert model.certificate_.dual <= others.certificate_.primal * (1 + 1e-12)
    assert others.certificate_.dual <= model.certificate_.primal * (1 + 1e-12)
    present = np.delete(np.arange(len(model.classes_)), GONE)
    np.testing.assert_allclose(model.predict_proba(X)[:, present], others.predict_proba(X), atol=2e-3)
    assert model.predict_proba(X)[:, GONE].max() < NEXT_TO_NOTHING
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert model.intercept_[present].mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("how", ["rows", "class", "next to nothing"])
@pytest.mark.parametrize("kind", [np.asarray, np.asfortranarray, sparse.csr_array, sparse.csc_array])
def test_the_others_are_fitted_as_if_alone(data, how, kind):
    X, y = data
    model = fit(kind(X), y, how)
    assert model.solver_ == "preconditioned"
    check(model, X, y)
    assert np.isfinite(model.logits(1e6 * X)).all()
    assert (model.predict(1e6 * X) != GONE).all()


@pytest.mark.parametrize("settings", [{"solver": "lbfgs"}, {"solver": "preconditioned"}], ids=str)
def test_by_every_solver_of_smooth_penalties(data, settings):
    X, y = data
    check(fit(X, y, **settings), X, y, most=60, **settings)


@pytest.mark.parametrize(
    "settings", [{"penalty": "l1"}, {"penalty": "elasticnet", "l1_ratio": 0.5}, {"penalty": "group"}], ids=str
)
def test_under_penalties_with_a_kink(data, settings):
    X, y = data
    model = fit(X, y, **settings)
    check(model, X, y, **settings)
    assert np.abs(model.coef_[GONE]).max() < 1e-12


@pytest.mark.parametrize(
    "loss",
    ["cross_entropy(temperature=5)", "cross_entropy(temperature=0.1)", "deviance", "kullback_leibler"],
)
def test_for_losses_that_are_cross_entropies(data, loss):
    X, y = data
    check(fit(X, y, loss=loss), X, y, loss=loss)


def test_priors_that_favour_the_class_are_made_up_for(data):
    X, y = data
    model = fit(X, y, loss="cross_entropy(priors=[1, 1, 1e6, 1])")
    plain = fit(X, y)
    assert model.converged_
    assert model.n_iter_[0] <= plain.n_iter_[0] + 2
    assert model.certificate_.primal == pytest.approx(plain.certificate_.primal, rel=2e-6)
    assert model.predict_proba(X)[:, GONE].max() < NEXT_TO_NOTHING


def test_more_columns_than_rows(rng):
    X = rng.normal(size=(80, 3000))
    y = rng.integers(0, 4, 80)
    model = fit(X, y, C=0.01)
    assert model.solver_ == "rotated"
    check(model, X, y, C=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_text_in_the_space_of_rows(rng, dtype):
    X = sparse.random(400, 3000, 0.01, format="csr", random_state=1, dtype=dtype)
    y = rng.integers(0, 4, 400)
    model = fit(X, y)
    assert model.solver_ == "row_space"
    check(model, X, y)


@pytest.mark.parametrize("wide", [False, True])
def test_hundreds_of_them(rng, wide):
    X = sparse.random(300, 2000, 0.01, format="csr", random_state=1) if wide else rng.normal(size=(300, 20))
    names = np.arange(5) * 60
    rows = np.zeros((300, 300))
    rows[np.arange(300), rng.choice(names, 300)] = 1
    model = SoftmaxClassifier().fit(X, rows)
    assert model.converged_
    assert model.n_iter_[0] <= 30
    others = SoftmaxClassifier(tol=1e-9).fit(X, rows[:, names])
    assert model.certificate_.dual <= others.certificate_.primal * (1 + 1e-12)
    assert others.certificate_.dual <= model.certificate_.primal * (1 + 1e-12)
    assert model.predict_proba(X)[:, np.setdiff1d(np.arange(300), names)].max() < NEXT_TO_NOTHING


def test_a_class_whose_examples_stop_counting_and_count_again(data):
    X, y = data
    model = SoftmaxClassifier(warm_start=True).fit(X, y)
    before = model.certificate_.primal
    check(model.fit(X, y, sample_weight=(y != GONE).astype(float)), X, y)
    model.fit(X, y)
    assert model.converged_
    assert model.certificate_.primal == pytest.approx(before, rel=2e-6)


def test_along_a_path(data):
    X, y = data
    path = SoftmaxPath(Cs=[0.01, 1, 100], class_weight={GONE: 0}).fit(X, y)
    assert path.converged_
    assert max(certificate.relative_gap for certificate in path.certificates_) <= 1e-6
    assert path.n_iters_.max() <= 30


def test_without_an_intercept_the_class_keeps_the_probability_that_it_must(data):
    X, y = data
    model = fit(X, y, fit_intercept=False)
    assert model.converged_
    assert model.predict_proba(np.zeros((1, 8)))[0] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("loss", "targets", "weight", "expected"),
    [
        (CrossEntropy(), ClassIndices(np.array([0, 1, 2])), None, None),
        (CrossEntropy(), ClassIndices(np.array([0, 1, 1])), None, [2]),
        (CrossEntropy(), ClassIndices(np.array([0, 1, 2])), [1, 0, 1], [1]),
        (CrossEntropy(ignore_index=-1), ClassIndices(np.array([0, -1, 2])), None, [1]),
        (CrossEntropy(), ClassRows(np.array([[0.5, 0.5, 0.0]])), None, [2]),
        (CrossEntropy(), ClassMixture(np.array([0, 1]), np.array([1, 0]), np.array([0.5, 0.5])), None, [2]),
        (CrossEntropy(label_smoothing=0.1), ClassIndices(np.array([0, 1])), None, None),
        (CrossEntropy(label_smoothing=0.1, class_weight=[1, 1, 0]), ClassIndices(np.array([0, 1])), None, [2]),
        (CrossEntropy(), ClassIndices(np.array([0, 1, 2])), [1, 1e-18, 1], None),
        (CrossEntropy(softcap=5.0), ClassIndices(np.array([0, 1])), None, None),
        (WestonWatkins(), ClassIndices(np.array([0, 1])), None, None),
        (BinaryCrossEntropy(), LabelRows(np.zeros((2, 3))), None, None),
    ],
)
def test_which_classes_are_absent(loss, targets, weight, expected):
    found = absent_classes(loss, targets, 3, None if weight is None else np.array(weight, float))
    assert (found is None) if expected is None else np.array_equal(np.flatnonzero(found), expected)


@pytest.mark.parametrize("priors", [(1, 1, 1), (1e-40, 1, 1), (1, 1, 1e-40), (1e3, 1, 1e6)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 20.0])
def test_where_a_fit_starts(rng, priors, temperature):
    loss = CrossEntropy(priors=priors, temperature=temperature)
    weights, intercept = rng.normal(size=(4, 3)), rng.normal(size=3)
    gone = np.array([False, False, True])
    start, moved = ruled_out((weights, intercept), gone, loss, centred=True)
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(start.sum(axis=1), 0, atol=1e-15)
    np.testing.assert_allclose(start[:, 1] - start[:, 0], weights[:, 1] - weights[:, 0])
    np.testing.assert_array_equal(moved[:2], intercept[:2])
    logits = rng.normal(size=(50, 4)) @ start * 100 + moved
    pull = loss.value_and_gradient(logits, ClassIndices(np.zeros(50, int)), reduction="sum")[1]
    assert temperature * pull[:, 2].max() < NEXT_TO_NOTHING
    np.testing.assert_array_equal(ruled_out((weights, intercept), gone, loss, centred=False)[0][:, :2], weights[:, :2])


@pytest.mark.parametrize("loss", ["poly", "poly(epsilon=-1)", "poly(epsilon=0.5, temperature=3)", "focal(gamma=0)"])
def test_for_convex_losses_of_a_softmax(data, loss):
    X, y = data
    check(fit(X, y, loss=loss), X, y, loss=loss)


@pytest.mark.parametrize("settings", [{}, {"penalty": "l1"}], ids=str)
def test_for_margins(data, settings):
    X, y = data
    counts = np.bincount(y).tolist()
    loss = f"ldam(class_counts={counts}, temperature=0.2)"
    model = fit(X, y, loss=loss, **settings)
    assert model.converged_
    del counts[GONE]
    kept = y != GONE
    margins = 0.5 * (np.bincount(y) / np.bincount(y).min()) ** -0.25
    others = SoftmaxClassifier(
        loss=f"ldam(class_counts={counts}, temperature=0.2, max_margin={np.delete(margins, GONE).max()})",
        tol=1e-9,
        **settings,
    ).fit(X[kept], y[kept])
    assert model.certificate_.dual <= others.certificate_.primal * (1 + 1e-12)
    assert others.certificate_.dual <= model.certificate_.primal * (1 + 1e-12)
    assert model.n_iter_[0] <= 1.5 * others.n_iter_[0]
    assert model.loss_.probabilities(model.logits(X))[:, GONE].max() < NEXT_TO_NOTHING


@pytest.mark.parametrize("how", ["rows", "class"])
def test_without_a_penalty_the_class_separates_nothing(rng, how):
    X = rng.normal(size=(300, 3))
    y = (X @ rng.normal(size=(3, 4)) + rng.gumbel(size=(300, 4))).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(X, y, how, C=np.inf)
    assert model.converged_
    assert "separation" not in model.certificate_.reason
    kept = y != GONE
    others = SoftmaxClassifier(C=np.inf).fit(X[kept], y[kept])
    assert model.certificate_.primal == pytest.approx(others.certificate_.primal, rel=1e-9)


def test_what_the_columns_tell_apart_is_said_of_the_others_alone(rng):
    X = rng.normal(size=(300, 3))
    y = (X @ rng.normal(size=(3, 4)) + rng.gumbel(size=(300, 4))).argmax(axis=1)
    X[y == 3, 0] += 100
    with pytest.warns(SeparableWarning, match="tell 3 from 0 and 1 apart"):
        fit(X, y, C=np.inf)
