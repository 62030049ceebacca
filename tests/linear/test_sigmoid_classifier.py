import math

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from kullback import BinaryCrossEntropy, LabelRows, SigmoidClassifier
from kullback.errors import InputError, TargetError


@pytest.fixture
def labelled(rng):
    X = rng.normal(size=(400, 5)) * [1, 5, 0.2, 1, 1] + [0, 10, 0, 0, 0]
    z = (X - [0, 10, 0, 0, 0]) @ rng.normal(size=(5, 3)) * 0.4 + [-2, 0, 1]
    return X, (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(int)


@pytest.mark.parametrize("C", [0.05, 1.0, math.inf])
def test_equals_one_logistic_regression_per_label(labelled, C):
    X, Y = labelled
    ours = SigmoidClassifier(C, tol=1e-16 if C < np.inf else 1e-9).fit(X, Y)
    theirs = OneVsRestClassifier(LogisticRegression(C=C, solver="newton-cg", tol=1e-10)).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, np.vstack([e.coef_ for e in theirs.estimators_]), atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, [e.intercept_[0] for e in theirs.estimators_], atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(X)), ours.predict_proba(X), rtol=1e-10)
    np.testing.assert_array_equal(ours.decision_function(X), ours.logits(X))
    assert ours.classes_.tolist() == [0, 1, 2]
    assert ours.history_[0].loss == pytest.approx(3 * math.log(2))
    assert ours.score(X, Y) == (ours.predict(X) == Y).all(axis=1).mean()


def test_forms_of_labels_agree(labelled):
    X, Y = labelled
    reference = SigmoidClassifier(tol=1e-16).fit(X, Y)
    for form in (Y.astype(bool), Y.astype(float), sparse.csr_matrix(Y), pd.DataFrame(Y), Y.tolist(), LabelRows(Y)):
        np.testing.assert_array_equal(SigmoidClassifier(tol=1e-16).fit(X, form).coef_, reference.coef_)
    csr = SigmoidClassifier(tol=1e-16).fit(sparse.csr_array(X), Y)
    np.testing.assert_allclose(csr.coef_, reference.coef_, atol=1e-6)
    single = SigmoidClassifier().fit(X.astype(np.float32), Y)
    np.testing.assert_allclose(single.coef_, reference.coef_, atol=5e-3)


def test_soft_labels_are_mixtures_of_hard_ones(labelled):
    X, Y = labelled
    soft = SigmoidClassifier(tol=1e-14).fit(X, LabelRows(0.75 * Y + 0.25 * (1 - Y)))
    hard = SigmoidClassifier(tol=1e-14).fit(
        np.vstack([X, X]), np.vstack([Y, 1 - Y]), sample_weight=np.repeat([0.75, 0.25], len(X))
    )
    np.testing.assert_allclose(soft.coef_, hard.coef_, atol=1e-6)


def test_mean_over_labels_is_the_sum_with_another_c(labelled):
    X, Y = labelled
    mean = SigmoidClassifier(C=3.0, loss="binary_cross_entropy", tol=1e-16).fit(X, Y)
    total = SigmoidClassifier(C=1.0, tol=1e-16).fit(X, Y)
    np.testing.assert_allclose(mean.coef_, total.coef_, atol=1e-5)


def test_unknown_labels_are_left_out(labelled, rng):
    X, Y = labelled
    unknown = rng.random(Y.shape) < 0.3
    loss = BinaryCrossEntropy(label_reduction="sum", ignore_index=-1)
    partial = SigmoidClassifier(loss=loss, tol=1e-16).fit(X, np.where(unknown, -1, Y))
    for k in range(3):
        known = ~unknown[:, k]
        alone = LogisticRegression(solver="newton-cg", tol=1e-10).fit(X[known], Y[known, k])
        np.testing.assert_allclose(partial.coef_[k], alone.coef_[0], atol=1e-5)
    balanced = SigmoidClassifier(loss=loss, class_weight="balanced").fit(X, np.where(unknown, -1, Y))
    on = ((Y == 1) & ~unknown).sum(axis=0)
    off = ((Y == 0) & ~unknown).sum(axis=0)
    assert balanced.loss_.positive_weight == pytest.approx(off / on)


def test_balanced_equals_scikit_learn_and_is_undone(labelled):
    X, Y = labelled
    raw = SigmoidClassifier(class_weight="balanced", recover=False, tol=1e-16).fit(X, Y)
    for k in range(3):
        alone = LogisticRegression(class_weight="balanced", solver="newton-cg", tol=1e-10).fit(X, Y[:, k])
        np.testing.assert_allclose(raw.predict_proba(X)[:, k], alone.predict_proba(X)[:, 1], atol=1e-5)
    recovered = SigmoidClassifier(class_weight="balanced", tol=1e-16).fit(X, Y)
    np.testing.assert_allclose(recovered.predict_proba(X).mean(axis=0), Y.mean(axis=0), atol=0.03)
    assert abs(raw.predict_proba(X).mean(axis=0) - Y.mean(axis=0)).max() > 0.1
    np.testing.assert_allclose(np.exp(recovered.predict_log_proba(X)), recovered.predict_proba(X), rtol=1e-9)


def test_positive_weights_by_column(labelled):
    X, Y = labelled
    model = SigmoidClassifier(class_weight={0: 4.0}, recover=False, tol=1e-16).fit(X, Y)
    alone = LogisticRegression(class_weight={1: 4.0}, solver="newton-cg", tol=1e-10).fit(X, Y[:, 0])
    np.testing.assert_allclose(model.coef_[0], alone.coef_[0], atol=1e-5)
    assert model.loss_.positive_weight == (4.0, 1.0, 1.0)


def test_a_label_that_never_or_always_holds(labelled):
    X, Y = labelled
    Y = np.hstack([Y, np.zeros((len(Y), 1), int), np.ones((len(Y), 1), int)])
    for settings in ({}, {"class_weight": "balanced"}):
        model = SigmoidClassifier(**settings).fit(X, Y)
        assert np.isfinite(model.coef_).all()
        assert (model.predict(X)[:, 3:] == [0, 1]).all()


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (None, "the target y is None"),
        (np.array([[0, 1]] * 399 + [[2, 0]]), "row 399, column 0 of y is 2;"),
        (np.array([[0.0, 1.0]] * 399 + [[0.0, np.nan]]), "row 399, column 1 of y is nan;"),
        (np.array([["a", "b"]] * 400), "row 0, column 0"),
        (np.zeros((10, 2), int), "y has 10 rows, X has 400"),
        (np.zeros((400, 0)), "no label columns"),
        (np.arange(400) % 3, "For one class per example use SoftmaxClassifier"),
        (np.linspace(0, 1, 400), "Unknown label type: continuous"),
    ],
)
def test_wrong_targets(labelled, y, says):
    with pytest.raises(TargetError, match=says):
        SigmoidClassifier().fit(labelled[0], y)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "cross_entropy"}, "SigmoidClassifier needs a loss over independent labels"),
        ({"class_weight": "even"}, "class_weight='even' is not known"),
        ({"class_weight": {7: 1.0}}, "label column 7; y has the columns 0 to 2"),
        ({"class_weight": [1, 2, 3]}, "not a mapping"),
        ({"class_weight": "balanced", "loss": BinaryCrossEntropy(positive_weight=[1, 2, 3])}, "given twice"),
    ],
)
def test_wrong_settings(labelled, settings, says):
    with pytest.raises(InputError, match=says):
        SigmoidClassifier(**settings).fit(*labelled)
