"""Data that a linear function separates have no finite optimum without a penalty, and the fit says so."""

import math
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris

from kullback import CrossEntropy, SigmoidClassifier, SoftmaxClassifier
from kullback.errors import SeparableWarning
from kullback.targets import ClassRows, LabelRows


def fit(X, y, sample_weight=None, kind=SoftmaxClassifier, **settings):
    """A model without a penalty, and what was said of separation."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = kind(C=math.inf, **settings).fit(X, y, sample_weight)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, SeparableWarning)]
    assert len(told) <= 1
    return model, told[0] if told else ""


@pytest.fixture
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, lambda X: X.astype(np.float32)])
def test_one_class_apart_is_quasi_complete(iris, form):
    X, y = iris
    model, told = fit(form(X), y)
    assert "'setosa' from 'versicolor' and 'virginica'" in told
    assert "quasi-complete" in told
    assert "'virginica' from" not in told
    assert "finite C" in told
    assert "no finite optimum exists" in model.certificate_.reason
    assert model.certificate_.relative_gap == math.inf
    assert model.score(form(X), y) > 0.97


def test_two_classes_apart_are_complete(iris):
    X, y = iris
    held = y != "virginica"
    model, told = fit(X[held], y[held])
    assert "every class from every other" in told
    assert "(complete separation)" in told
    assert model.score(X[held], y[held]) == 1


def test_overlapping_classes_are_not_told_apart(iris):
    X, y = iris
    held = y != "setosa"
    model, told = fit(X[held], y[held])
    assert told == ""
    assert model.converged_
    assert "without a penalty" in model.certificate_.reason


def test_a_penalty_makes_the_optimum_finite(iris):
    X, y = iris
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxClassifier(C=1e3).fit(X, y)


def test_one_column_that_only_one_class_has(rng):
    X = np.column_stack([rng.normal(size=(300, 2)), np.zeros(300)])
    y = rng.integers(0, 3, 300)
    X[np.flatnonzero(y == 1)[:5], 2] = 1.0
    _, told = fit(X, y)
    assert "1 from 0 and 2" in told
    X[np.flatnonzero(y == 0)[:5], 2] = 1.0
    _, told = fit(X, y)
    assert "2 from 0 and 1" in told  # what the column holds is never 2
    X[np.flatnonzero(y == 2)[:5], 2] = 1.0
    assert fit(X, y)[1] == ""


def test_the_intercept_may_be_what_separates():
    X, y = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([0, 0, 1, 1])
    assert "complete" in fit(X, y)[1]
    assert fit(X, y, fit_intercept=False)[1] == ""


def test_rows_without_weight_do_not_stand_in_the_way():
    X, y = np.array([[1.0], [2.0], [3.0], [4.0], [0.0]]), np.array([0, 0, 1, 1, 1])
    assert fit(X, y)[1] == ""
    assert "complete" in fit(X, y, [1, 1, 1, 1, 0])[1]
    assert "complete" in fit(X, y, [1, 1, 1, 1, 0], class_weight={0: 2.0, 1: 5.0})[1]


def test_soft_targets_have_an_optimum():
    X = np.array([[1.0], [2.0], [3.0], [4.0]])
    assert fit(X, ClassRows(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])))[1] == ""
    assert fit(X, [0, 0, 1, 1], loss=CrossEntropy(label_smoothing=0.1))[1] == ""


@pytest.mark.parametrize("soft", [False, True])
def test_labels_are_named_one_by_one(rng, soft):
    X = rng.normal(size=(200, 3))
    Y = np.column_stack([X[:, 0] > 0.2, rng.random(200) < 0.5, X @ [1, -1, 2] > 1]).astype(float)
    if soft:
        Y[0, 0] = 0.5  # along the separating direction this row's loss grows
    _, told = fit(X, LabelRows(Y), kind=SigmoidClassifier)
    assert ("with and without 2 " if soft else "with and without 0 and 2 ") in told


def test_more_data_than_a_linear_program_takes_is_judged_by_its_own_margins(rng):
    X = rng.normal(size=(20_000, 12))
    y = (X @ rng.normal(size=(12, 3))).argmax(axis=1)
    assert "(complete separation)" in fit(X, y, max_iter=3000)[1]
