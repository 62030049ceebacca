import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kullback import (
    ClassIndices,
    ClassMixture,
    ClassRows,
    CrossEntropy,
    LogitL2,
    SigmoidClassifier,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    SoftmaxPath,
)
from kullback.errors import DataError, InputError, NotConvergedWarning, TargetError
from kullback.linear.softmax_classifier import encoded
from kullback.losses import CATALOGUE


@pytest.fixture
def iris():
    return load_iris(return_X_y=True)


def noisy(rng, n=300, d=4, n_classes=3):
    X = rng.normal(size=(n, d))
    return X, (X @ rng.normal(size=(d, n_classes)) + 2 * rng.gumbel(size=(n, n_classes))).argmax(axis=1)


@pytest.mark.parametrize(
    ("load", "C"),
    [
        *((load, C) for load in (load_iris, load_wine, load_breast_cancer) for C in (0.01, 1.0, 100.0)),
        (load_digits, 0.01),
    ],
)
def test_same_optimum_as_scikit_learn(load, C):
    X, y = load(return_X_y=True)
    X = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    ours = SoftmaxClassifier(C, tol=1e-16, max_iter=5000).fit(X, y)
    theirs = LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=1000).fit(X, y)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-5 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-3)


def test_raw_columns_of_very_different_size_converge_to_the_same(iris):
    X, y = iris
    X = X * [1e-4, 1.0, 1e3, 1e6] + [0, 50, -1e4, 1e7]
    ours = SoftmaxClassifier(C=math.inf, tol=1e-7, max_iter=5000).fit(X, y)
    plain = SoftmaxClassifier(C=math.inf, tol=1e-7, max_iter=5000).fit(iris[0], y)
    assert ours.converged_
    np.testing.assert_allclose(ours.predict_proba(X), plain.predict_proba(iris[0]), atol=1e-4)


def test_optimum_satisfies_its_own_equations(iris):
    """C·Σ(p − y)xᵀ + W = 0 and Σ(p − y) = 0, straight from the definition."""
    X, y = iris
    model = SoftmaxClassifier(C=0.7, tol=1e-16).fit(X, y)
    residual = model.predict_proba(X) - np.eye(3)[y]
    np.testing.assert_allclose(0.7 * residual.T @ X + model.coef_, 0, atol=1e-5)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(model.coef_.mean(axis=0), 0, atol=1e-12)
    assert abs(model.intercept_.mean()) < 1e-12


@pytest.mark.parametrize("binary", [False, True])
def test_no_intercept(iris, binary):
    X, y = iris
    y = y == 1 if binary else y
    ours = SoftmaxClassifier(fit_intercept=False, tol=1e-16).fit(X, y)
    theirs = LogisticRegression(fit_intercept=False, solver="newton-cg", tol=1e-10).fit(X, y)
    assert (ours.intercept_ == 0).all()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)


def test_sparse_dense_and_precision_agree(rng):
    X, y = noisy(rng)
    X[X < 0] = 0
    reference = SoftmaxClassifier(tol=1e-16).fit(X, y)
    for matrix in (sparse.csr_array(X), sparse.csr_matrix(X), sparse.csc_array(X), np.asfortranarray(X)):
        other = SoftmaxClassifier(tol=1e-16).fit(matrix, y)
        np.testing.assert_allclose(other.coef_, reference.coef_, atol=1e-6)
        np.testing.assert_allclose(other.predict_proba(matrix), reference.predict_proba(X), atol=1e-6)
    for matrix in (X.astype(np.float32), sparse.csr_array(X.astype(np.float32))):
        single = SoftmaxClassifier(tol=1e-9).fit(matrix, y)
        assert single.converged_
        assert single.logits(matrix).dtype == np.float32
        np.testing.assert_allclose(single.coef_, reference.coef_, atol=1e-3)


def test_sample_weight_is_repetition(rng):
    X, y = noisy(rng)
    w = rng.integers(0, 4, len(y))
    weighted = SoftmaxClassifier(tol=1e-16).fit(X, y, sample_weight=w)
    repeated = SoftmaxClassifier(tol=1e-16).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)
    scaled = SoftmaxClassifier(C=0.5, tol=1e-16).fit(X, y, sample_weight=2 * w)
    np.testing.assert_allclose(scaled.coef_, weighted.coef_, atol=1e-6)
    constant = SoftmaxClassifier(tol=1e-16).fit(X, y, sample_weight=2.0)
    double_c = SoftmaxClassifier(C=2.0, tol=1e-16).fit(X, y)
    np.testing.assert_allclose(constant.coef_, double_c.coef_, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(["ant", "bee", "cow"], "U"), ([10, -3, 7], "i"), ([True, False], "b"), ([1.5, 2.0, 0.0], "f")],
)
def test_labels_of_any_type(rng, labels, kind):
    X, y = noisy(rng, n_classes=len(labels))
    named = np.array(labels)[y]
    if kind == "f":
        named = np.floor(named)  # whole numbers stored as floats are classes; fractions are a regression target
    model = SoftmaxClassifier().fit(X, named)
    assert model.predict(X).dtype == named.dtype
    assert set(model.predict(X)) <= set(named)
    assert model.score(X, named) > 0.4
    assert list(model.classes_) == sorted(set(named))


def test_object_strings_and_data_frames(rng):
    X, y = noisy(rng)
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = SoftmaxClassifier().fit(frame, pd.Series(np.array(["x", "y", "z"], dtype=object)[y]))
    assert list(model.feature_names_in_) == list("abcd")
    assert model.predict(frame).dtype == object
    with pytest.raises(DataError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_class_weights_move_decisions_but_not_reported_probabilities(rng):
    X, y = noisy(rng, n=4000, n_classes=2)
    y = np.where(rng.random(4000) < 0.7, 0, y)
    plain = SoftmaxClassifier(C=math.inf, tol=1e-7).fit(X, y)
    weighted = SoftmaxClassifier(C=math.inf, class_weight={0: 1, 1: 5}, tol=1e-7).fit(X, y)
    assert weighted.loss_ == CrossEntropy(class_weight=(1.0, 5.0))
    assert (weighted.predict(X) == 1).mean() > (plain.predict(X) == 1).mean() + 0.1
    assert abs(weighted.predict_proba(X) - plain.predict_proba(X)).mean() < 0.02
    assert weighted.predict_proba(X).mean(axis=0) == pytest.approx([(y == 0).mean(), (y == 1).mean()], abs=0.02)
    raw = clone(weighted).set_params(recover=False).fit(X, y)
    assert raw.predict_proba(X)[:, 1].mean() > weighted.predict_proba(X)[:, 1].mean() + 0.1
    theirs = LogisticRegression(C=math.inf, class_weight={0: 1, 1: 5}, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(raw.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    np.testing.assert_allclose(np.exp(raw.predict_log_proba(X)), raw.predict_proba(X), rtol=1e-12)
    np.testing.assert_allclose(np.exp(weighted.predict_log_proba(X)), weighted.predict_proba(X), rtol=1e-9)


def test_balanced_equals_its_definition(rng):
    X, y = noisy(rng)
    w = rng.random(len(y))
    balanced = SoftmaxClassifier(class_weight="balanced").fit(X, y, sample_weight=w)
    mass = np.bincount(y, weights=w)
    assert balanced.loss_.class_weight == pytest.approx(mass.sum() / (3 * mass))
    unweighted = SoftmaxClassifier(class_weight="balanced", tol=1e-16, recover=False).fit(X, y)
    theirs = LogisticRegression(class_weight="balanced", solver="newton-cg", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(unweighted.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_label_smoothing_is_undone(rng):
    X, y = noisy(rng, n=3000)
    plain = SoftmaxClassifier(tol=1e-7).fit(X, y)
    smoothed = SoftmaxClassifier(loss="cross_entropy(label_smoothing=0.3)", tol=1e-7).fit(X, y)
    as_trained = smoothed.loss_.probabilities(smoothed.logits(X))
    assert abs(smoothed.predict_proba(X) - plain.predict_proba(X)).max() < 0.1
    assert abs(as_trained - plain.predict_proba(X)).max() > 0.15


def test_soft_targets(rng):
    X, y = noisy(rng)
    indices = SoftmaxClassifier(tol=1e-14).fit(X, ClassIndices(y))
    rows = SoftmaxClassifier(tol=1e-14).fit(X, ClassRows(np.eye(3)[y]))
    np.testing.assert_allclose(rows.coef_, indices.coef_, atol=1e-7)
    other = rng.integers(0, 3, len(y))
    mixed = SoftmaxClassifier(tol=1e-14).fit(X, ClassMixture(y, other, 0.7))
    soft = SoftmaxClassifier(tol=1e-14).fit(X, ClassRows(0.7 * np.eye(3)[y] + 0.3 * np.eye(3)[other]))
    np.testing.assert_allclose(mixed.coef_, soft.coef_, atol=1e-7)
    assert list(rows.classes_) == [0, 1, 2]
    with pytest.raises(TargetError, match="10 targets for 300 rows"):
        SoftmaxClassifier().fit(X, ClassIndices(y[:10]))


def test_logits_decision_and_probabilities_belong_together(iris):
    X, y = iris
    for labels in (y, y == 0):
        model = SoftmaxClassifier().fit(X, labels)
        logits = model.logits(X)
        n_classes = len(model.classes_)
        assert logits.shape == (150, n_classes)
        np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-9)
        np.testing.assert_allclose(model.predict_proba(X), CrossEntropy().probabilities(logits))
        np.testing.assert_array_equal(model.predict(X), model.classes_[logits.argmax(axis=1)])
        decision = model.decision_function(X)
        if n_classes == 2:
            np.testing.assert_allclose(decision, X @ model.coef_[0] + model.intercept_[0])
        else:
            np.testing.assert_allclose(decision, X @ model.coef_.T + model.intercept_)


def test_log_probabilities_reach_below_the_smallest_float(iris):
    X, y = iris
    model = SoftmaxClassifier(C=1e4).fit(X, y)
    far = model.predict_log_proba(X * 1e4)
    assert np.isfinite(far).all()
    assert far.min() < -1000
    weighted = SoftmaxClassifier(C=1e4, class_weight="balanced").fit(X, y)
    assert np.isfinite(weighted.predict_log_proba(X * 1e4)).all()


def test_history_starts_at_log_c_and_callback_sees_every_iteration(rng):
    X, y = noisy(rng)
    for settings in ({}, {"class_weight": {0: 10.0}}):
        seen = []
        model = SoftmaxClassifier(callback=seen.append, **settings).fit(X, y)
        assert seen == model.history_
        assert model.history_[0].loss == pytest.approx(math.log(3))
        assert model.n_iter_ == len(seen) - 1
        assert model.history_[-1].distance <= model.tol
        assert model.certificate_.relative_gap <= model.tol
        assert model.history_[-1].loss < model.history_[-1].objective


def test_warm_start_continues(iris):
    X, y = iris
    model = SoftmaxClassifier(warm_start=True, tol=1e-6).fit(X, y)
    first, coef = model.n_iter_, model.coef_.copy()
    model.fit(X, y)
    assert model.history_[0].distance <= 1e-6
    assert model.n_iter_ == 1 < first
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-10)
    binary = SoftmaxClassifier(warm_start=True, tol=1e-6).fit(X, y == 0)
    assert binary.fit(X, y == 0).n_iter_ == 1
    with pytest.raises(InputError, match="set warm_start=False"):
        model.fit(X[:, :2], y)


def test_an_interrupted_fit_changes_nothing(iris):
    X, y = iris
    model = SoftmaxClassifier().fit(X, y)
    coef, history = model.coef_.copy(), model.history_

    def interrupt(record):
        if record.iteration == 3:
            raise KeyboardInterrupt

    model.set_params(callback=interrupt, C=10)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y == 1)
    assert model.history_ is history
    np.testing.assert_array_equal(model.coef_, coef)
    assert model.predict(X).shape == (150,)
    assert model.predict_proba(X).shape == (150, 3)


def test_not_converging_says_how_far_it_got(iris):
    with pytest.warns(NotConvergedWarning, match=r"duality gap is .* \(tol 1e-09\).*raise max_iter") as caught:
        model = SoftmaxClassifier(C=0.1, max_iter=3, tol=1e-9).fit(*iris)
    assert not model.converged_
    assert f"{model.certificate_.relative_gap:.3g}" in str(caught[0].message)
    assert caught[0].filename == __file__
    X, y = iris
    with pytest.warns(NotConvergedWarning, match=r"gradient norm is .* \(tol 1e-09; no duality gap: without a penalty"):
        model = SoftmaxClassifier(C=math.inf, max_iter=3, tol=1e-9).fit(X[50:], y[50:])
    assert model.certificate_.dual == -math.inf


@pytest.mark.parametrize("n_classes", [2, 3])
def test_separable_data_without_a_penalty(n_classes):
    X = np.repeat(np.arange(n_classes, dtype=float), 20)[:, None] * 10 + np.linspace(0, 1, 20 * n_classes)[:, None]
    y = np.repeat(np.arange(n_classes), 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        model = SoftmaxClassifier(C=math.inf, tol=1e-6).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1
    assert np.isfinite(model.predict_log_proba(X)).all()


def test_constant_and_duplicate_columns(iris):
    X, y = iris
    padded = np.hstack([X, np.full((150, 1), 7.0), X[:, :1]])
    model = SoftmaxClassifier(tol=1e-16).fit(padded, y)
    assert model.converged_
    np.testing.assert_allclose(model.coef_[:, 4], 0, atol=1e-6)
    np.testing.assert_allclose(model.coef_[:, 5], model.coef_[:, 0], atol=1e-5)


def test_verbose_prints_a_line_an_iteration(iris, capsys):
    model = SoftmaxClassifier(verbose=1, max_iter=100).fit(*iris)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_ + 2
    assert "solver preconditioned: a Hessian of all 5 columns" in lines[0]
    assert "loss 1.098612 nats" in lines[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"C": 0}, "C=0 is not valid"),
        ({"C": "1"}, "C='1'"),
        ({"C": math.nan}, "C=nan"),
        ({"tol": 0}, "tol=0"),
        ({"max_iter": -1}, "max_iter=-1"),
        ({"max_iter": 2.5}, "max_iter=2.5"),
        ({"solver": "sgd"}, "solver 'sgd' is unknown; choose one of: auto, lbfgs, preconditioned"),
        ({"callback": 3}, "callback=3 cannot be called"),
        ({"loss": "cross_entropi"}, "unknown loss"),
        ({"loss": "binary_cross_entropy"}, "SoftmaxClassifier needs a loss over mutually exclusive classes"),
        ({"loss": "cross_entropy(ignore_index=1)"}, "leave examples out with sample_weight 0"),
        ({"class_weight": "even"}, "class_weight='even' is not known"),
        ({"class_weight": [1, 2, 3]}, "not a mapping"),
        ({"class_weight": {5: 1.0}}, "names the class 5, which y does not hold; y holds 0, 1, 2"),
        ({"class_weight": {0: -1.0}}, "class_weight"),
        ({"class_weight": "balanced", "loss": CrossEntropy(class_weight=[1, 2, 3])}, "given twice"),
    ],
)
def test_wrong_settings(iris, settings, says):
    with pytest.raises(InputError, match=says):
        SoftmaxClassifier(**settings).fit(*iris)


def test_wrong_data(iris):
    X, y = iris
    bad = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    bad.loc[7, "c"] = np.nan
    with pytest.raises(DataError, match="The first is nan at row 7, column 'c'"):
        SoftmaxClassifier().fit(bad, y)
    hole = sparse.csr_array(X)
    hole.data[5] = np.inf
    with pytest.raises(DataError, match="The first is inf at row 1, column 1"):
        SoftmaxClassifier().fit(hole, y)
    with pytest.raises(TargetError, match="one class only"):
        SoftmaxClassifier().fit(X, np.zeros(150))
    with pytest.raises(TargetError, match="only the class 0 has examples with a positive sample_weight"):
        SoftmaxClassifier().fit(X, y, sample_weight=y == 0)
    with pytest.raises(InputError, match="every sample_weight is zero"):
        SoftmaxClassifier().fit(X, y, sample_weight=0 * y)
    with pytest.raises(InputError, match="row 2: sample weight -1"):
        SoftmaxClassifier().fit(X, y, sample_weight=np.where(np.arange(150) == 2, -1, 1))
    with pytest.raises(InputError, match="expected numbers"):
        SoftmaxClassifier().fit(X, y, sample_weight=["a"] * 150)
    with pytest.raises(TargetError, match="Unknown label type"):
        SoftmaxClassifier().fit(X, X[:, 0] / 7)
    with pytest.raises(InputError, match="features"):
        SoftmaxClassifier().fit(X, y).predict(X[:, :3])


@pytest.mark.parametrize("warm", [False, True])
def test_empty_columns_change_nothing(rng, warm):
    X, y = noisy(rng)
    X[X < 0] = 0
    wide = np.zeros((300, 40))
    wide[:, [3, 17, 18, 39]] = X
    narrow = SoftmaxClassifier(tol=1e-16).fit(sparse.csr_array(X), y)
    model = SoftmaxClassifier(tol=1e-16, warm_start=warm).fit(sparse.csr_array(wide), y)
    if warm:
        model.fit(sparse.csr_array(wide), y)
        assert model.n_iter_ == 1
    assert model.coef_.shape == (3, 40)
    np.testing.assert_allclose(model.coef_[:, [3, 17, 18, 39]], narrow.coef_, atol=1e-7)
    assert (np.delete(model.coef_, [3, 17, 18, 39], axis=1) == 0).all()
    np.testing.assert_allclose(model.predict_proba(wide), narrow.predict_proba(X), atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"loss": "poly"}, {"C": math.inf}], ids=str)
def test_a_start_far_along_shifts_of_all_classes_costs_no_steps(rng, settings):
    X = rng.normal(size=(300, 5))
    y = (X @ rng.normal(size=(5, 4)) + rng.gumbel(size=(300, 4))).argmax(axis=1)
    start = rng.normal(size=(4, 5))
    shift, lift = 100 * rng.normal(size=5), 1e3
    plain = SoftmaxClassifier(**settings).fit(X, y, coef_init=start - start.mean(axis=0))
    far = SoftmaxClassifier(**settings).fit(X, y, coef_init=start + shift, intercept_init=np.full(4, lift))
    assert far.converged_
    assert far.n_iter_[0] == plain.n_iter_[0]
    assert far.history_[0].objective == pytest.approx(plain.history_[0].objective, rel=1e-9)
    np.testing.assert_allclose(far.coef_, plain.coef_, atol=1e-9)


def test_starting_values(iris):
    X, y = iris
    best = SoftmaxClassifier(tol=1e-10).fit(X, y)
    again = SoftmaxClassifier(tol=1e-10).fit(X, y, coef_init=best.coef_, intercept_init=best.intercept_)
    assert again.history_[0].distance <= 1e-10
    np.testing.assert_allclose(again.coef_, best.coef_, rtol=1e-6)
    half = SoftmaxClassifier(max_iter=0, tol=1.0).fit(X, y, coef_init=best.coef_ / 2)
    np.testing.assert_allclose(half.coef_, best.coef_ / 2, rtol=1e-10)
    np.testing.assert_allclose(half.intercept_, 0, atol=1e-12)
    assert half.n_iter_ == 0
    two = SoftmaxClassifier(max_iter=0, tol=1.0).fit(X, y == 1, coef_init=[1, 2, 3, 4], intercept_init=0.5)
    np.testing.assert_allclose(two.coef_, [[1, 2, 3, 4]], rtol=1e-12)
    np.testing.assert_allclose(two.intercept_, [0.5], rtol=1e-12)
    for wrong, says in (
        ({"coef_init": best.coef_[:2]}, r"coef_init has shape \(2, 4\), but this data needs \(3, 4\)"),
        ({"intercept_init": [1, 2]}, r"intercept_init has shape \(2,\), but this data needs \(3,\)"),
        ({"intercept_init": [1, 2, math.nan]}, r"intercept_init holds nan at \(2,\)"),
        ({"coef_init": "zeros"}, "coef_init is not an array of numbers"),
    ):
        with pytest.raises(InputError, match=says):
            SoftmaxClassifier().fit(X, y, **wrong)


def test_sparse_coefficients_give_the_same_logits(iris):
    X, y = iris
    for labels in (y, y == 1):
        model = SoftmaxClassifier(warm_start=True).fit(X, labels)
        coef, logits = model.coef_, model.logits(X)
        assert sparse.issparse(model.sparsify().coef_)
        for matrix in (X, sparse.csr_array(X), X.astype(np.float32)):
            tolerance = 1e-5 if matrix.dtype == np.float32 else 1e-10
            np.testing.assert_allclose(model.logits(matrix), logits, rtol=tolerance, atol=tolerance)
        assert model.fit(X, labels).history_[0].distance <= model.tol
        assert isinstance(model.sparsify().densify().coef_, np.ndarray)
        np.testing.assert_allclose(model.coef_, coef, rtol=1e-6)


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_column_names_are_kept_and_must_match(iris, frame):
    library = pytest.importorskip(frame)
    X, y = iris
    names = ["sl", "sw", "pl", "pw"]
    table = library.DataFrame(dict(zip(names, X.T, strict=True)))
    label = library.Series("kind", y) if frame == "polars" else library.Series(y)
    model = SoftmaxClassifier().fit(table, label)
    assert list(model.feature_names_in_) == names
    np.testing.assert_allclose(model.predict_proba(table), SoftmaxClassifier().fit(X, y).predict_proba(X), rtol=1e-9)
    with pytest.raises(InputError, match=r"(?s)feature names should match.*order"):
        model.predict(table[names[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


def test_scaled_frames_pass_their_names_on_in_a_pipeline(iris):
    X, y = iris
    table = pd.DataFrame(X, columns=list("abcd"))
    chain = make_pipeline(StandardScaler(), SoftmaxClassifier()).set_output(transform="pandas").fit(table, y)
    assert list(chain[-1].feature_names_in_) == list("abcd")
    assert chain.score(table, y) > 0.95


def test_arrays_of_other_libraries(iris):
    torch = pytest.importorskip("torch")
    X, y = iris
    expected = SoftmaxClassifier().fit(X, y, np.arange(150.0))
    model = SoftmaxClassifier().fit(torch.tensor(X), torch.tensor(y), torch.arange(150.0))
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    np.testing.assert_array_equal(model.predict(torch.tensor(X)), expected.predict(X))
    labels = SigmoidClassifier().fit(torch.tensor(X), torch.eye(3, dtype=torch.int64)[torch.tensor(y)])
    assert labels.predict(X).shape == (150, 3)
    with pytest.raises(InputError, match=r"X is a torch\.Tensor that NumPy cannot read"):
        SoftmaxClassifier().fit(torch.tensor(X, requires_grad=True), y)


def test_the_warning_is_scikit_learns_too(iris):
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        SoftmaxClassifier(max_iter=1).fit(*iris)


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        ("negative_log_likelihood", "takes log-probabilities; use 'cross_entropy'"),
        ("cross_entropy_from_probabilities", "takes probabilities; use 'cross_entropy'"),
        ("logit_l2", "nothing to learn; add it to a loss"),
    ],
)
@pytest.mark.parametrize("kind", [SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath])
def test_losses_that_are_not_over_logits_are_refused(kind, loss, what):
    with pytest.raises(InputError, match=what):
        kind(loss=loss).fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])


def test_a_penalty_on_logits_added_to_a_loss_is_fitted():
    X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 1, 0, 1]
    small = SoftmaxClassifier(loss=CrossEntropy() + 1.0 * LogitL2()).fit(X, y)
    assert np.abs(small.coef_).max() < np.abs(SoftmaxClassifier().fit(X, y).coef_).max()


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.uint64])
def test_whole_numbers_are_classes_in_order(rng, dtype):
    limits = np.iinfo(dtype)
    for low, high in ((limits.min, limits.max), (0, 5), (limits.max - 3, limits.max)):
        y = rng.integers(low, high, 300, dtype=dtype, endpoint=True)
        classes, places = encoded(y)
        expected, inverse = np.unique(y, return_inverse=True)
        assert classes.dtype == dtype
        np.testing.assert_array_equal(classes, expected)
        np.testing.assert_array_equal(places, inverse)


def test_a_fit_stopped_early_says_its_gap_though_its_bound_lies_below_zero(iris):
    X, y = iris
    with pytest.warns(
        NotConvergedWarning, match=r"the duality gap is [0-9.]+ nats per example, more than the objective"
    ):
        model = SoftmaxClassifier(C=100, max_iter=1).fit(X, y)
    assert model.certificate_.dual <= 0
    assert model.certificate_.gap >= model.certificate_.primal


@pytest.mark.parametrize("settings", [{}, {"penalty": "l1"}, {"C": math.inf}], ids=str)
def test_columns_of_zeros_get_weights_of_zero(settings):
    rng = np.random.default_rng(0)
    used = np.r_[3:7, 8:12]
    X = np.zeros((400, 14))
    X[:, used] = rng.normal(size=(400, 8))
    y = rng.integers(0, 3, 400)
    model = SoftmaxClassifier(**settings).fit(X, y)
    alone = SoftmaxClassifier(**settings).fit(X[:, used], y)
    np.testing.assert_allclose(model.coef_[:, used], alone.coef_, atol=1e-12)
    assert not np.delete(model.coef_, used, axis=1).any()
    again = SoftmaxClassifier(**settings, max_iter=0, tol=1e9).fit(X, y, coef_init=model.coef_)
    np.testing.assert_allclose(again.coef_, model.coef_, atol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(z_loss=0.05),
        CrossEntropy(softcap=4.0),
        CrossEntropy() + 0.1 * LogitL2(),
        0.5 * CrossEntropy() + CrossEntropy(z_loss=0.1),
    ],
    ids=str,
)
def test_a_loss_that_minds_the_level_of_the_logits_is_minimised_at_that_level(iris, loss):
    X, y = iris
    model = SoftmaxClassifier(loss=loss, C=0.5, tol=1e-10, max_iter=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # what is not convex has no proof
        model.fit(X, y)
    logits = X @ model.coef_.T + model.intercept_
    value, gradient = loss.value_and_gradient(logits, y)
    assert value + np.square(model.coef_).sum() / (2 * 0.5 * len(y)) == pytest.approx(
        model.certificate_.primal, rel=1e-9
    )
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(gradient.T @ X + model.coef_ / (0.5 * len(y)), 0, atol=2e-5)
    np.testing.assert_allclose(model.decision_function(X), logits, rtol=1e-12)


LEVELS = {
    "z-loss": CrossEntropy(z_loss=0.05),
    "softcap": CrossEntropy(softcap=4.0),
    "size": CrossEntropy() + 0.1 * LogitL2(),
}


@pytest.mark.parametrize("loss", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", "group"])
def test_two_classes_keep_both_rows_where_the_loss_minds_the_level(iris, loss, penalty):
    X, y = iris[0][:80, :2], iris[1][:80]
    model = SoftmaxClassifier(loss=loss, penalty=penalty, C=0.5, tol=1e-9, max_iter=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # what is not convex has no proof
        model.fit(X, y)
    assert (model.coef_.shape, model.intercept_.shape) == ((2, 2), (2,))
    logits = X @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(model.decision_function(X), logits[:, 1] - logits[:, 0], rtol=1e-12)
    value, gradient = loss.value_and_gradient(logits, y)
    lasso, ridge = {"l2": (0, 2), "l1": (1, 0), "elasticnet": (0.5, 1), "group": (math.sqrt(2), 0)}[penalty]
    sizes = np.sqrt(np.square(model.coef_).sum(axis=0)) if penalty == "group" else np.abs(model.coef_)
    whole = value + (lasso * sizes.sum() + 0.5 * ridge * np.square(model.coef_).sum()) / (0.5 * len(y))
    assert whole == pytest.approx(model.certificate_.primal, rel=1e-9)
    # the derivatives in both intercepts, not in their difference alone
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-5)
    again = SoftmaxClassifier(loss=loss, penalty=penalty, C=0.5, tol=1e-9, warm_start=True, max_iter=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        again.fit(X, y, coef_init=model.coef_, intercept_init=model.intercept_)
    assert again.certificate_.primal == pytest.approx(whole, rel=1e-7)


@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", "group"])
def test_a_level_that_hardly_counts_leaves_the_fit_of_two_classes_as_it_is(iris, penalty):
    """So little of a z-loss moves nothing: both rows cost what their difference costs without one."""
    X, y = iris[0][:100, :2], iris[1][:100]
    settings = {"penalty": penalty, "C": 0.5, "tol": 1e-9, "max_iter": 5000}
    plain = SoftmaxClassifier(**settings).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        both = SoftmaxClassifier(loss=CrossEntropy(z_loss=1e-9), **settings).fit(X, y)
    assert both.certificate_.primal == pytest.approx(plain.certificate_.primal, rel=1e-6)
    np.testing.assert_allclose(both.coef_[1] - both.coef_[0], plain.coef_[0], atol=1e-3)


def test_paths_and_searches_keep_both_rows_of_two_classes(iris):
    X, y = iris[0][:100, :2], iris[1][:100]
    loss = CrossEntropy() + 0.1 * LogitL2()
    path = SoftmaxPath([0.1, 1.0], loss=loss).fit(X, y)
    assert path.coefs_.shape == (2, 2, 2)
    search = SoftmaxClassifierCV([0.1, 1.0], loss=loss, keep_coefs=True, cv=2).fit(X, y)
    assert search.coef_.shape == (2, 2)
    assert search.coefs_paths_.shape == (2, 2, 2, 3)


def test_losses_say_whether_they_mind_the_level_of_the_logits(rng):
    z, y = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    for name, loss in {name: kind() for name, kind in CATALOGUE.items() if kind().target_form == "classes"}.items():
        if loss.link in ("softmax", "none"):
            same = np.allclose(loss(z, y, reduction="none"), loss(z + 1.5, y, reduction="none"), rtol=1e-12)
            assert loss.ignores_level == same, name
