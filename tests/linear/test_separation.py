"""Data that a linear function separates have no finite optimum without a penalty, and the fit says so."""

import math
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris

from kullback import CrossEntropy, SigmoidClassifier, SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath, parse_loss
from kullback.errors import InputError, SeparableWarning
from kullback.linear import separation
from kullback.targets import ClassMixture, ClassRows, LabelRows


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


@pytest.mark.parametrize("kind", [SoftmaxClassifier, SigmoidClassifier])
@pytest.mark.parametrize("penalty", ["none", None])
def test_no_penalty_is_said_in_either_way(iris, kind, penalty):
    """C=inf and an absent penalty are one problem, with one finding."""
    X, y = iris
    y = y if kind is SoftmaxClassifier else (y == "setosa")[:, None].astype(int)
    unlimited, told = fit(X, y, kind=kind)
    with pytest.warns(SeparableWarning) as caught:
        absent = kind(penalty=penalty).fit(X, y)
    assert [str(warning.message) for warning in caught if warning.category is SeparableWarning] == [told]
    assert absent.certificate_.reason == unlimited.certificate_.reason
    np.testing.assert_array_equal(absent.coef_, unlimited.coef_)


@pytest.mark.parametrize("kind", [SoftmaxPath, SoftmaxClassifierCV])
@pytest.mark.parametrize("penalty", ["none", None])
def test_no_strength_is_chosen_of_no_penalty(iris, kind, penalty):
    with pytest.raises(InputError, match=f"penalty={penalty!r} has no strength to choose"):
        kind(penalty=penalty).fit(*iris)


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


def quasi(rng, rows=4000, columns=31, classes=6):
    """One column that only class 0 has, in data that overlap in all others."""
    X = rng.normal(size=(rows, columns))
    y = (0.3 * X @ rng.normal(size=(columns, classes)) + 2 * rng.gumbel(size=(rows, classes))).argmax(axis=1)
    X[:, -1] = np.where(y == 0, rng.random(rows) + 0.5, 0.0)
    return X, y


@pytest.fixture
def without_program(monkeypatch):
    """No linear program is run."""
    monkeypatch.setattr(separation, "_most_gains", lambda *_: pytest.fail("a linear program was run"))


@pytest.mark.parametrize("form", [np.asarray, sparse.csc_array, lambda X: X.astype(np.float32)])
def test_quasi_separation_beyond_a_linear_program(rng, form, without_program):
    X, y = quasi(rng)
    assert 2 * 4000 * 5 * 32 > separation.MOST_ENTRIES
    model, told = fit(form(X), y)
    assert "0 from 1, 2, 3, 4 and 5 apart without a mistake (quasi-complete separation)" in told
    assert "no finite optimum exists" in model.certificate_.reason


@pytest.mark.parametrize("classes", [2, 4])
def test_overlap_is_proved_without_a_linear_program(rng, classes, without_program):
    X = rng.normal(size=(600, 30)) * 10.0 ** np.linspace(-3, 3, 30)
    X = np.column_stack([X, X[:, :2], np.ones(600)])  # copies, and what the intercept is
    scores = X[:, :30] / 10.0 ** np.linspace(-3, 3, 30) @ rng.normal(size=(30, classes))
    y = (scores + 2 * rng.gumbel(size=(600, classes))).argmax(axis=1)
    model, told = fit(X, y)
    assert told == ""
    assert "separation" not in model.certificate_.reason


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["binary", "normal"])
def test_what_the_end_of_a_fit_shows_is_what_the_linear_program_finds(seed, kind, monkeypatch):
    rng = np.random.default_rng(seed)
    rows, columns = (80, 8) if kind == "binary" else (60, 4)
    X = rng.integers(0, 2, (rows, columns)).astype(float) if kind == "binary" else rng.normal(size=(rows, columns))
    y = (X @ rng.normal(size=(columns, 3)) * 2.5 + rng.gumbel(size=(rows, 3))).argmax(axis=1)
    _, told = fit(X, y)
    monkeypatch.setattr(separation, "told_apart", lambda *_: None)
    assert fit(X, y)[1] == told or "every class" in told


def test_an_overlap_by_a_hair_is_one(rng, without_program):
    """Classes that one example alone keeps from being told apart."""
    x = np.concatenate([np.linspace(-1, -0.1, 40), np.linspace(0.1, 1, 40)])
    y = (x > 0).astype(int)
    x[40] = -0.1 - 1e-3
    assert fit(x[:, None], y)[1] == ""
    x[40] = -0.1 + 1e-3
    assert "complete" in fit(x[:, None], y)[1]


def test_what_was_not_checked_is_said(rng, monkeypatch):
    X, y = quasi(rng, rows=300, columns=5, classes=3)
    monkeypatch.setattr("kullback.linear.overlap.MOST_PARAMETERS", 0)
    assert "0 from 1 and 2" in fit(X, y)[1]
    with monkeypatch.context() as patch:
        patch.setattr(separation, "MOST_ENTRIES", 1000)
        model, told = fit(X, y)
    assert told == ""
    assert "not checked for separation: that takes a linear program, which would be too large" in (
        model.certificate_.reason
    )
    with monkeypatch.context() as patch:
        patch.setattr(separation, "LONGEST_SECONDS", 0.0)
        model, told = fit(X, y)
    assert told == ""
    assert "not done after 0 seconds" in model.certificate_.reason


def test_one_hot_and_half_hot_rows_are_judged_too(iris):
    X, y = iris
    hot = np.eye(3)[np.unique(y, return_inverse=True)[1]]
    assert "0 from 1 and 2" in fit(X, ClassRows(hot))[1]
    x, level = np.array([[1.0], [2.5], [4.0]]), [0.5, 0.5]
    assert "0 from 1" in fit(x, ClassRows(np.array([[1, 0], level, [0, 1]])))[1]
    assert fit(x, ClassRows(np.array([[1, 0], level, level])))[1] == ""
    assert "0 from 1" in fit(x, ClassMixture(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 0.5, 0.3])))[1]


def test_a_path_says_so_for_its_last_fit(iris):
    X, y = iris
    with pytest.warns(SeparableWarning, match="'setosa' from 'versicolor' and 'virginica'"):
        path = SoftmaxPath(Cs=[1, math.inf]).fit(X, y)
    assert "no finite optimum exists" in path.at(math.inf).certificate_.reason
    assert "no finite optimum exists" in path.certificate_.reason
    assert path.at(1).certificate_.reason == ""
    held = y != "setosa"
    with warnings.catch_warnings():
        warnings.simplefilter("error", SeparableWarning)
        SoftmaxPath(Cs=[1, math.inf]).fit(X[held], y[held])
        SoftmaxPath(Cs=[0.1, 1]).fit(X, y)


def test_folds_whose_average_is_the_model_are_judged(iris, rng):
    X, y = iris
    with pytest.warns(SeparableWarning, match="C=inf was chosen, and in fold 0 .* 'setosa' from 'versicolor'"):
        model = SoftmaxClassifierCV(Cs=[math.inf], refit=False, cv=3).fit(X, y)
    assert model.C_ == math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error", SeparableWarning)
        SoftmaxClassifierCV(Cs=[math.inf], refit=False, cv=3).fit(X, y[rng.permutation(150)])


def test_whoever_ends_the_search_keeps_the_model(iris, monkeypatch):
    def ended(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kullback.linear.task.find_separation", ended)
    model = SoftmaxClassifier(C=math.inf)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*iris)
    assert model.converged_
    assert model.score(*iris) > 0.97


FALLING = [
    "poly",
    "ldam(class_counts=[50, 60, 70])",
    "kullback_leibler",
    "cross_entropy(temperature=2) + 0.5 * weston_watkins(squared=True)",
    "0.7 * cross_entropy + 0.3 * weston_watkins",
    "poly + crammer_singer",
]


@pytest.mark.parametrize("loss", FALLING)
def test_every_loss_that_falls_for_ever_has_no_optimum(iris, loss):
    X, y = iris
    loss = parse_loss(loss)
    model, told = fit(X, y, loss=loss)
    assert "'setosa' from 'versicolor' and 'virginica'" in told
    assert "'virginica' from" not in told
    assert "quasi-complete" in model.certificate_.reason
    rng = np.random.default_rng(0)
    assert fit(rng.normal(size=(150, 2)), y, loss=loss)[1] == ""


@pytest.mark.parametrize(
    "loss",
    ["weston_watkins", "crammer_singer(squared=True)", "cross_entropy + 0.1 * logit_l2", "poly + 0.1 * logit_l1"],
)
def test_losses_with_an_optimum_on_any_data_separate_nothing(iris, loss):
    model, told = fit(*iris, loss=loss)
    assert told == ""
    assert "without a penalty (C=inf)" in model.certificate_.reason
