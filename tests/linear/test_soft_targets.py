"""Rows of probabilities as targets, wrapped or not, in every softmax estimator."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import cross_val_score

from kullback import (
    ClassIndices,
    ClassMixture,
    ClassRows,
    SigmoidClassifier,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    SoftmaxPath,
)
from kullback.errors import InputError, TargetError

CS = [0.1, 1.0, 10.0]


@pytest.fixture
def soft(rng):
    X = rng.normal(size=(200, 4))
    return X, rng.dirichlet(np.ones(3), 200)


@pytest.mark.parametrize("make", [np.asarray, lambda P: P.tolist(), pd.DataFrame, lambda P: P.astype(np.float32)])
def test_rows_of_probabilities_need_no_wrapper(soft, make):
    X, P = soft
    for kind in (SoftmaxClassifier(), SoftmaxClassifierCV(CS), SoftmaxPath(CS)):
        plain = type(kind)(**kind.get_params()).fit(X, make(P))
        wrapped = type(kind)(**kind.get_params()).fit(X, ClassRows(np.asarray(make(P))))
        np.testing.assert_array_equal(plain.coef_, wrapped.coef_)
        np.testing.assert_array_equal(plain.classes_, [0, 1, 2])


def test_one_hot_rows_are_labels(soft):
    X, P = soft
    y = P.argmax(axis=1)
    by_label = SoftmaxClassifier(tol=1e-10).fit(X, y)
    for rows in (np.eye(3)[y], np.eye(3, dtype=int)[y], np.eye(3, dtype=bool)[y], np.eye(3, dtype=np.uint8)[y]):
        model = SoftmaxClassifier(tol=1e-10).fit(X, rows)
        np.testing.assert_allclose(model.coef_, by_label.coef_, atol=1e-5)
        assert model.score(X, rows) == pytest.approx(by_label.score(X, y))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        column = SoftmaxClassifier(tol=1e-10).fit(X, y[:, None])
    np.testing.assert_array_equal(column.coef_, by_label.coef_)
    # Independent labels stay what they are.
    assert SigmoidClassifier().fit(X, (P > 0.3).astype(int)).predict(X).shape == (200, 3)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([1, 1, 0], "row 7 of y sums to 2. y with several columns is read as rows of probabilities"),
        ([0, 0, 0], "row 7 of y sums to 0"),
        ([0.5, 0.3, 0.1], "row 7 of y sums to 0.9"),
        ([0.5, -0.5, 1.0], "row 7, column 1 of y is -0.5"),
        ([0.5, np.nan, 0.5], "row 7, column 1 of y is nan"),
        ([3, -1, -1], "row 7, column 0 of y is 3"),
    ],
)
def test_other_rows_are_refused(soft, row, says):
    X, P = soft
    P = P.copy()
    P[7] = row
    for kind in (SoftmaxClassifier(), SoftmaxClassifierCV(CS), SoftmaxPath(CS)):
        with pytest.raises(TargetError, match=says) as caught:
            kind.fit(X, P)
        assert "SigmoidClassifier" in str(caught.value)
    P[7] = [0.333, 0.333, 0.333]  # digits that were dropped
    SoftmaxClassifier().fit(X, P)


def test_scores_of_soft_targets(soft, rng):
    X, P = soft
    weight = rng.random(200)
    model = SoftmaxClassifier().fit(X, P)
    decided = model.predict(X)
    assert model.score(X, P) == pytest.approx(P[np.arange(200), decided].mean())
    assert model.score(X, ClassRows(P), weight) == pytest.approx(np.average(P[np.arange(200), decided], weights=weight))
    y = P.argmax(axis=1)
    assert model.score(X, ClassIndices(y)) == model.score(X, y) == np.mean(decided == y)
    mixture = ClassMixture(y, (y + 1) % 3, 0.75)
    assert model.score(X, mixture) == pytest.approx(model.score(X, mixture.dense(3)))
    with pytest.raises(TargetError, match="of 2 classes, and the model of 3"):
        model.score(X, P[:, :2] / P[:, :2].sum(axis=1, keepdims=True))
    with pytest.raises(TargetError, match="of 8 classes, and the model of 3"):
        model.score(X, ClassIndices(np.full(200, 7)))
    with pytest.raises(TargetError, match="199 targets for 200 rows"):
        model.score(X, P[:-1])


def test_a_search_scores_soft_targets_by_their_log_loss(soft, rng):
    X, P = soft
    weight = rng.random(200)
    model = SoftmaxClassifierCV(CS).fit(X, P)
    logs = model.predict_log_proba(X)
    assert model.score(X, P) == pytest.approx((P * logs).sum(axis=1).mean())
    assert model.score(X, ClassRows(P), sample_weight=weight) == pytest.approx(
        np.average((P * logs).sum(axis=1), weights=weight)
    )
    y = P.argmax(axis=1)
    assert model.score(X, ClassIndices(y)) == pytest.approx(model.score(X, y))
    by_name = SoftmaxClassifierCV(CS, scoring="accuracy").fit(X, ClassIndices(y))
    assert by_name.score(X, ClassIndices(y)) == by_name.score(X, y)
    assert by_name.score(X, P) == pytest.approx(P[np.arange(200), by_name.predict(X)].mean())


def drawn(P, n_draws=400):
    """Labels drawn from the rows, evenly: each class as often as its share says, to 1/n_draws."""
    places = (np.arange(n_draws) + 0.5) / n_draws
    return np.array([np.searchsorted(np.cumsum(row), places).clip(max=len(row) - 1) for row in P])


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "neg_brier_score", "roc_auc_ovr", "f1_macro"])
def test_scorers_expect_labels_drawn_from_the_rows(soft, rng, scoring):
    X, P = soft
    weight = rng.random(200)
    model = SoftmaxClassifierCV(CS, scoring=scoring).fit(X, P, weight)
    labels = drawn(P)
    as_labels = model.score(
        np.repeat(X, labels.shape[1], axis=0),
        ClassIndices(labels.ravel()),
        sample_weight=np.repeat(weight, labels.shape[1]),
    )
    assert model.score(X, P, sample_weight=weight) == pytest.approx(as_labels, abs=2e-3)


def test_a_search_by_a_scorer_is_that_of_drawn_labels(soft):
    X, P = soft
    labels = drawn(P, 20)
    P = np.array([np.bincount(row, minlength=3) for row in labels]) / 20
    rows = np.arange(200)
    folds = [(rows[rows % 4 != k], rows[rows % 4 == k]) for k in range(4)]
    model = SoftmaxClassifierCV(CS, scoring="neg_brier_score", cv=folds, path_tol=1e-9).fit(X, P)
    many = [tuple((side[:, None] * 20 + np.arange(20)).ravel() for side in fold) for fold in folds]
    expected = SoftmaxClassifierCV(np.array(CS) / 20, scoring="neg_brier_score", cv=many, path_tol=1e-9)
    expected.fit(np.repeat(X, 20, axis=0), labels.ravel())
    np.testing.assert_allclose(model.scores_, expected.scores_, rtol=1e-4)


def test_a_function_as_scorer_is_given_the_rows(soft):
    X, P = soft
    seen = []

    def scorer(model, X, y):
        seen.append(y.shape)
        return (y * model.predict_log_proba(X)).sum(axis=1).mean()

    own = SoftmaxClassifierCV(CS, cv=4, scoring=scorer).fit(X, P)
    np.testing.assert_allclose(own.scores_, SoftmaxClassifierCV(CS, cv=4).fit(X, P).scores_, rtol=1e-4)
    assert set(seen) == {(50, 3)}
    assert own.score(X, P) == pytest.approx(SoftmaxClassifierCV(CS).fit(X, P).score(X, P), rel=1e-4)


def test_scorers_without_weights_and_without_probabilities_are_refused(soft):
    X, P = soft
    with pytest.raises(InputError, match="scoring='adjusted_rand_score' cannot score these 3 classes"):
        SoftmaxClassifierCV(CS, scoring="adjusted_rand_score").fit(X, P)
    with pytest.raises(InputError, match="the scorer needs probabilities, and weston_watkins has none"):
        SoftmaxClassifierCV(CS, scoring="neg_brier_score", loss="weston_watkins(squared=True)").fit(X, P)


@pytest.mark.parametrize("kind", [SoftmaxClassifier(), SoftmaxClassifierCV(CS), SoftmaxPath(CS)])
def test_cross_validation_of_scikit_learn_takes_soft_rows(soft, kind):
    X, P = soft
    scores = cross_val_score(kind, X, P, cv=3)
    assert np.isfinite(scores).all()
    assert len(scores) == 3


def test_no_penalty_is_spelt_as_in_scikit_learn(soft):
    X, P = soft
    ours, theirs = (SoftmaxClassifier(penalty=spelling).fit(X, P) for spelling in ("none", None))
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    labels = (P > 0.3).astype(int)
    ours, theirs = (SigmoidClassifier(penalty=spelling).fit(X, labels) for spelling in ("none", None))
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
